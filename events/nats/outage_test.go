package nats_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"starling/events"
	"starling/events/nats"
	"starling/events/nats/natsserver"
)

const (
	account = 0x0123456789abcd11
	other   = 0x22
)

func hint(account, modseq int64) events.Event {
	return events.Event{Account: account, Mailbox: 1, Kind: events.Changed, ModSeq: modseq, Epoch: 1}
}

func open(t *testing.T, c nats.Config) *events.Node {
	t.Helper()
	c.Options.Heartbeat, c.Options.Gap = 20*time.Millisecond, 100*time.Millisecond
	if c.Options.Silence == 0 {
		c.Options.Silence = time.Minute
	}
	node, err := nats.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	return node
}

// listener keeps the news of a subscription.
type listener struct {
	events.Subscription
	events    []events.Event
	suspect   map[events.Shard]bool
	connected bool
}

func follow(t *testing.T, node *events.Node, accounts ...int64) *listener {
	t.Helper()
	s, err := node.Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range accounts {
		s.Follow(a)
	}
	return &listener{Subscription: s, suspect: make(map[events.Shard]bool), connected: true}
}

func (l *listener) forget() { l.events, l.suspect = nil, make(map[events.Shard]bool) }

func (l *listener) take(ctx context.Context) error {
	news, err := l.Next(ctx)
	if err != nil {
		return err
	}
	l.events = append(l.events, news.Events...)
	for _, shard := range news.Suspect {
		l.suspect[shard] = true
	}
	l.connected = news.Connected
	return nil
}

func (l *listener) await(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !is() {
		if err := l.take(ctx); err != nil {
			t.Fatalf("waiting for %s: %v; until then %+v", what, err, l)
		}
	}
}

func (l *listener) suspects(account int64) bool { return l.suspect[events.ShardOf(account)] }
func (l *listener) has(e events.Event) bool     { return slices.Contains(l.events, e) }

// awaitFlow publishes on one node until the other hears it: all subscriptions stand.
func (l *listener) awaitFlow(t *testing.T, from *events.Node, accounts ...int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, a := range accounts {
		for modseq := int64(1); !slices.ContainsFunc(l.events, func(e events.Event) bool { return e.Account == a }); modseq++ {
			if err := from.Publish(hint(a, modseq)); err != nil {
				t.Fatal(err)
			}
			short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			err := l.take(short)
			cancel()
			if err != nil && ctx.Err() != nil {
				t.Fatalf("no hint arrives: %v", err)
			}
		}
	}
}

// settle takes news until there were none for a while longer than a gap may stay open.
func (l *listener) settle(t *testing.T) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
		err := l.take(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func publish(t *testing.T, node *events.Node, hints ...events.Event) {
	t.Helper()
	if err := node.Publish(hints...); err != nil {
		t.Fatal(err)
	}
}

// restartable is a server that comes back on the same address. It outlives the nodes that are opened after it.
type restartable struct {
	server *natsserver.Server
	config natsserver.Config // when it comes back
}

func startRestartable(t *testing.T) *restartable {
	t.Helper()
	r := &restartable{server: startServer(t, natsserver.Config{})}
	t.Cleanup(func() { r.server.Shutdown() })
	return r
}

func (r *restartable) again(t *testing.T) {
	t.Helper()
	r.config.Addr = r.server.Addr()
	server, err := natsserver.Start(r.config)
	if err != nil {
		t.Fatal(err)
	}
	r.server = server
}

func TestServerRestarts(t *testing.T) {
	t.Parallel()
	r := startRestartable(t)
	c := nats.Config{URLs: []string{r.server.URL()}}
	a, b := open(t, c), open(t, c)
	l := follow(t, b, account)
	onA := follow(t, a, account)
	l.awaitFlow(t, a, account)
	l.settle(t)
	l.forget()

	r.server.Shutdown()
	l.await(t, "the outage", func() bool { return !l.connected })
	onA.await(t, "the outage at the publisher", func() bool { return !onA.connected })
	publish(t, a, hint(account, 100)) // lost, and nobody waited
	r.again(t)
	l.await(t, "the reconnect", func() bool { return l.connected && l.suspects(account) })
	l.awaitFlow(t, a, account)
	if l.has(hint(account, 100)) {
		t.Error("a hint of the outage was kept")
	}
	if got := b.Counters(); got.Reconnects != 1 || !got.Connected || got.Silences != 0 {
		t.Errorf("counters %+v", got)
	}
	if got := a.Counters().Unpublished; got == 0 {
		t.Error("the lost hint was not counted")
	}
}

func TestServerComesLater(t *testing.T) {
	t.Parallel()
	r := startRestartable(t)
	c := nats.Config{URLs: []string{r.server.URL()}}
	r.server.Shutdown()
	a, b := open(t, c), open(t, c)
	l := follow(t, b, account)
	l.await(t, "the word that nothing is connected", func() bool { return !l.connected })
	r.again(t)
	l.await(t, "the connection", func() bool { return l.connected && l.suspects(account) })
	l.awaitFlow(t, a, account)
}

// cutCluster is two servers with a route between them that can be cut, and a node on each.
func cutCluster(t *testing.T, silence time.Duration) (route *proxy, a, b *events.Node) {
	t.Helper()
	first := startServer(t, natsserver.Config{Cluster: "127.0.0.1:0"})
	route = startProxy(t, first.ClusterAddr())
	second := startServer(t, natsserver.Config{Cluster: "127.0.0.1:0", Routes: []string{route.addr()}})
	options := events.Options{Silence: silence}
	a = open(t, nats.Config{URLs: []string{first.URL()}, Options: options})
	b = open(t, nats.Config{URLs: []string{second.URL()}, Options: options})
	return route, a, b
}

func TestCutRouteIsFoundByTheHeartbeatAfterIt(t *testing.T) {
	t.Parallel()
	route, a, b := cutCluster(t, time.Minute)
	l := follow(t, b, account, other)
	l.awaitFlow(t, a, account, other)
	l.settle(t)
	l.forget()

	route.cut()
	publish(t, a, hint(account, 1000))
	route.heal()
	l.await(t, "the loss", func() bool { return l.suspects(account) })
	l.settle(t)
	if l.has(hint(account, 1000)) {
		t.Fatal("the hint was not lost: the test shows nothing")
	}
	if l.suspects(other) || !l.connected {
		t.Errorf("suspect %v, connected %t; want the one shard only", l.suspect, l.connected)
	}
	if got := b.Counters(); got.Reconnects != 0 || got.Silences != 0 {
		t.Errorf("counters %+v: the client library was told, and the numbers were not needed", got)
	}
	l.forget()
	l.awaitFlow(t, a, account)
}

func TestCutRouteIsFoundBySilence(t *testing.T) {
	t.Parallel()
	route, a, b := cutCluster(t, time.Second)
	l, back := follow(t, b, account, other), follow(t, a, account)
	l.awaitFlow(t, a, account, other)
	back.awaitFlow(t, b, account)
	l.settle(t)
	l.forget()
	back.forget()

	route.cut()
	l.await(t, "silence", func() bool { return !l.connected && l.suspects(account) && l.suspects(other) })
	back.await(t, "silence on the other side", func() bool { return !back.connected && back.suspects(account) })
	l.forget()
	route.heal()
	l.await(t, "the end of silence", func() bool { return l.connected })
	l.awaitFlow(t, a, account)
}

// proxy forwards connections, until it is cut.
type proxy struct {
	listener net.Listener
	to       string
	running  sync.WaitGroup

	mu     sync.Mutex
	isCut  bool
	opened []net.Conn
}

func startProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, to: to}
	p.running.Go(p.accept)
	t.Cleanup(func() {
		p.cut()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		p.running.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// cut closes all connections, and new ones at once.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isCut = true
	for _, c := range p.opened {
		_ = c.Close() // both sides of it may have been closed before
	}
	p.opened = nil
}

func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isCut = false
}

func (p *proxy) accept() {
	for {
		from, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		isCut := p.isCut
		p.mu.Unlock()
		to, err := net.Dial("tcp", p.to)
		if err != nil || isCut {
			_ = from.Close()
			if to != nil {
				_ = to.Close()
			}
			continue
		}
		p.mu.Lock()
		p.opened = append(p.opened, from, to)
		p.mu.Unlock()
		p.running.Go(func() { forward(from, to) })
		p.running.Go(func() { forward(to, from) })
	}
}

func forward(to, from net.Conn) {
	_, _ = io.Copy(to, from) // ends with an error when the route is cut
	_ = to.Close()
	_ = from.Close()
}
