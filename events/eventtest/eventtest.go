// Package eventtest is what every bus must do: one subtest for each sentence of the contract of package events.
package eventtest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"starling/events"
)

// Cluster starts nodes that hear each other and no others. The transport of each is to be seen through wrap.
type Cluster func(t testing.TB, o events.Options, wrap func(events.Transport) events.Transport) *events.Node

// Run runs the suite; each subtest on a cluster of its own. Subtests run by way of around, which is [testing/synctest.Test] or
// only calls its function.
func Run(t *testing.T, cluster func(testing.TB) Cluster, around func(*testing.T, func(*testing.T))) {
	for _, test := range sentences {
		t.Run(test.says, func(t *testing.T) {
			t.Parallel()
			around(t, func(t *testing.T) { test.shown(t, &world{cluster: cluster(t)}) })
		})
	}
}

const (
	patience  = 20 * time.Second      // for what must come
	heartbeat = 20 * time.Millisecond // of nodes under test
	gap       = 150 * time.Millisecond
	quiet     = 4 * gap // for what must not come
)

// Accounts a1 and a2 share a shard, b1 and c1 have others.
const (
	a1 int64 = 0x0123456789abcd11
	a2 int64 = 0x0000000000000211
	b1 int64 = 0x7fffffffffffff22
	c1 int64 = 0x0000000000000033
)

// world is a subtest's cluster.
type world struct{ cluster Cluster }

// node starts a node that takes nobody for silent in the time of a test.
func (w *world) node(t *testing.T) (*events.Node, *Faults) {
	t.Helper()
	return w.nodeWith(t, events.Options{})
}

func (w *world) nodeWith(t *testing.T, o events.Options) (*events.Node, *Faults) {
	t.Helper()
	o.Heartbeat = heartbeat
	if o.Gap == 0 {
		o.Gap = gap
	}
	if o.Silence == 0 {
		o.Silence = 2 * patience
	}
	faults := new(Faults)
	node := w.cluster(t, o, faults.Wrap)
	t.Cleanup(func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	return node, faults
}

// subscribe returns a subscription to the accounts, after their shards were joined.
func subscribe(t *testing.T, node *events.Node, accounts ...int64) *listener {
	t.Helper()
	s, err := node.Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{Subscription: s, connected: true}
	for _, account := range accounts {
		l.Follow(account)
	}
	for _, account := range accounts {
		l.await(t, func() bool { return l.suspects(account) })
	}
	l.forget()
	return l
}

// listener remembers all news of a subscription.
type listener struct {
	events.Subscription
	events    []events.Event
	suspect   []events.Shard
	connected bool
}

func (l *listener) forget() { l.events, l.suspect = nil, nil }

func (l *listener) suspects(account int64) bool {
	return slices.Contains(l.suspect, events.ShardOf(account))
}

func (l *listener) has(e events.Event) bool { return slices.Contains(l.events, e) }

func (l *listener) take(ctx context.Context) error {
	news, err := l.Next(ctx)
	if err != nil {
		return err
	}
	l.events = append(l.events, news.Events...)
	l.suspect = append(l.suspect, news.Suspect...)
	l.connected = news.Connected
	return nil
}

// await takes news until what is waited for is so.
func (l *listener) await(t *testing.T, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !is() {
		if err := l.take(ctx); err != nil {
			t.Fatalf("%v; until then %+v", err, l)
		}
	}
}

func (l *listener) awaitEvent(t *testing.T, e events.Event) {
	t.Helper()
	l.await(t, func() bool { return l.has(e) })
}

// wantQuiet fails if anything comes.
func (l *listener) wantQuiet(t *testing.T, during time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), during)
	defer cancel()
	if news, err := l.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Next returned %+v, %v; want nothing for %v", news, err, during)
	}
}

func (l *listener) wantEvents(t *testing.T, want ...events.Event) {
	t.Helper()
	if !slices.Equal(l.events, want) {
		t.Errorf("events %+v\nwant   %+v", l.events, want)
	}
}

func (l *listener) wantSuspect(t *testing.T, want ...events.Shard) {
	t.Helper()
	if !slices.Equal(l.suspect, want) {
		t.Errorf("suspect %v, want %v", l.suspect, want)
	}
}

func publish(t *testing.T, node *events.Node, hints ...events.Event) {
	t.Helper()
	if err := node.Publish(hints...); err != nil {
		t.Fatal(err)
	}
}

// changed is a hint about a mailbox.
func changed(account, mailbox, modseq int64) events.Event {
	return events.Event{Account: account, Mailbox: mailbox, Kind: events.Changed, ModSeq: modseq, Epoch: 1}
}
