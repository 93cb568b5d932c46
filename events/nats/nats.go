// Package nats carries hints over a cluster of NATS servers (core NATS; JetStream is not used).
//
// The subjects are <prefix>.<shard>.<account>, two and sixteen hexadecimal digits, and <prefix>.beat. A node subscribes to the shards in
// which it follows accounts, as <prefix>.<shard>.*, all of them on one channel.
package nats

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"starling/events"
)

// Open starts a node. It tries each server once and then goes on in the background: a server that cannot be reached, or
// does not let this client in, is no error but is logged. An error is one of the settings, or of a file they name.
func Open(c Config) (*events.Node, error) {
	return events.Start(c.Options, c.Dial)
}

// Dial is the transport, for [events.Start].
func (c Config) Dial(in *events.Inlet) (events.Transport, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return dial(c.withDefaults(), in, in.Receive)
}

// link is a connection to the servers. It reconnects for ever.
type link struct {
	config  Config
	in      *events.Inlet
	log     *zap.Logger
	conn    *nats.Conn
	arrived chan *nats.Msg
	joined  map[events.Shard]*nats.Subscription // touched by the one who calls Join and Leave

	ready   chan struct{} // closed when dial is done: no callback goes on before
	up      atomic.Bool   // as last told; told by one goroutine at a time
	reason  string        // why the last attempt to connect went wrong; of the callbacks
	closed  chan struct{} // closed after the last callback
	done    chan struct{} // closed to end the reader
	reading sync.WaitGroup
}

func dial(c Config, in *events.Inlet, receive func([]byte)) (events.Transport, error) {
	l := &link{
		config: c, in: in, log: c.Options.Log, arrived: make(chan *nats.Msg, c.Pending), joined: make(map[events.Shard]*nats.Subscription),
		ready: make(chan struct{}), closed: make(chan struct{}), done: make(chan struct{}),
	}
	if l.log == nil {
		l.log = zap.NewNop()
	}
	options, err := c.options()
	if err != nil {
		return nil, err
	}
	l.conn, err = nats.Connect(strings.Join(c.URLs, ","), append(options, l.callbacks()...)...)
	if err != nil {
		return nil, fmt.Errorf("nats: connect: %w", err)
	}
	l.reading.Go(func() { l.read(receive) })
	if _, err := l.conn.ChanSubscribe(l.beatSubject(), l.arrived); err != nil {
		close(l.ready)
		return nil, errors.Join(fmt.Errorf("nats: subscribe to heartbeats: %w", err), l.Close())
	}
	if l.conn.IsConnected() {
		l.setUp(true)
	} else {
		l.log.Warn("NATS is not reached yet", zap.Strings("urls", redacted(c.URLs)))
	}
	close(l.ready)
	return l, nil
}

// callbacks are called one after the other, in the order of what happened.
func (l *link) callbacks() []nats.Option {
	return []nats.Option{
		nats.ConnectHandler(func(*nats.Conn) {
			<-l.ready
			if !l.up.Load() {
				l.setUp(true)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) {
			<-l.ready
			l.setUp(true)
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			<-l.ready
			if l.up.Load() {
				l.setUp(false)
				if err != nil {
					l.log.Warn("NATS is lost", zap.Error(err))
				}
			}
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { l.unreached(err) }),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			<-l.ready
			l.trouble(s, err)
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(l.closed) }),
	}
}

// unreached logs why an attempt to connect went wrong, if it is not what the last one said: there are some each second.
func (l *link) unreached(err error) {
	if reason := err.Error(); reason != l.reason {
		l.reason = reason
		l.log.Warn("NATS is not reached", zap.Error(err))
	}
}

func (l *link) setUp(up bool) {
	l.up.Store(up)
	if up {
		l.log.Info("NATS is connected", zap.String("server", l.conn.ConnectedUrlRedacted()))
	}
	l.in.Connected(up)
}

// trouble is what the client library has to say beside the state of the connection.
func (l *link) trouble(s *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrSlowConsumer) && s != nil {
		if shard, ok := l.shardOf(s.Subject); ok {
			l.in.Missed(shard)
		}
		l.log.Warn("hints were dropped: this process reads too slowly", zap.String("subject", s.Subject))
		return
	}
	l.log.Warn("NATS reports an error", zap.Error(err))
}

func (l *link) read(receive func([]byte)) {
	for {
		select {
		case m := <-l.arrived:
			receive(m.Data)
		case <-l.done:
			return
		}
	}
}

// Hint implements [events.Transport].
func (l *link) Hint(account int64, frame []byte) error {
	return l.conn.Publish(l.subject(account), frame)
}

// Beat implements [events.Transport].
func (l *link) Beat(frame []byte) error {
	return l.conn.Publish(l.beatSubject(), frame)
}

// Join implements [events.Transport]. It waits for the server it is connected to; the other servers learn of it moments later.
func (l *link) Join(shards []events.Shard) error {
	var errs []error
	for _, shard := range shards {
		s, err := l.conn.ChanSubscribe(l.shardSubject(shard), l.arrived)
		if err != nil {
			errs = append(errs, fmt.Errorf("nats: subscribe to shard %02x: %w", shard, err))
			continue
		}
		l.joined[shard] = s
	}
	if l.conn.IsConnected() {
		if err := l.conn.FlushTimeout(l.config.Timeout); err != nil {
			errs = append(errs, fmt.Errorf("nats: wait for %d subscriptions: %w", len(shards), err))
		}
	}
	return errors.Join(errs...)
}

// Leave implements [events.Transport].
func (l *link) Leave(shards []events.Shard) error {
	var errs []error
	for _, shard := range shards {
		if s := l.joined[shard]; s != nil {
			delete(l.joined, shard)
			if err := s.Unsubscribe(); err != nil {
				errs = append(errs, fmt.Errorf("nats: leave shard %02x: %w", shard, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Close implements [events.Transport].
func (l *link) Close() error {
	var err error
	if l.conn.IsConnected() {
		if err = l.conn.FlushTimeout(l.config.Timeout); err != nil {
			err = fmt.Errorf("nats: send the last hints: %w", err)
		}
	}
	l.conn.Close()
	<-l.closed
	close(l.done)
	l.reading.Wait()
	return err
}

func (l *link) beatSubject() string { return l.config.Prefix + ".beat" }

func (l *link) shardSubject(shard events.Shard) string {
	return fmt.Sprintf("%s.%02x.*", l.config.Prefix, shard)
}

// subject is on the path of every hint.
func (l *link) subject(account int64) string {
	b := make([]byte, 0, 64)
	b = append(b, l.config.Prefix...)
	b = append(b, '.')
	b = hex.AppendEncode(b, []byte{byte(events.ShardOf(account))})
	b = append(b, '.')
	for shift := 56; shift >= 0; shift -= 8 {
		b = hex.AppendEncode(b, []byte{byte(account >> shift)})
	}
	return string(b)
}

// shardOf returns the shard of a subscription's subject.
func (l *link) shardOf(subject string) (events.Shard, bool) {
	shard, ok := strings.CutPrefix(subject, l.config.Prefix+".")
	shard, wild := strings.CutSuffix(shard, ".*")
	n, err := strconv.ParseUint(shard, 16, 8)
	return events.Shard(n), ok && wild && err == nil
}

// redacted returns the URLs without what logs in.
func redacted(urls []string) []string {
	list := make([]string, 0, len(urls))
	for _, u := range urls {
		if at := strings.LastIndexByte(u, '@'); at >= 0 {
			scheme, _, _ := strings.Cut(u, "://")
			u = scheme + "://" + u[at+1:]
		}
		list = append(list, u)
	}
	return list
}
