package events

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Options are the settings of a [Node]. What is 0 is set to its default.
type Options struct {
	// Heartbeat is the time between two beats (2 s).
	Heartbeat time.Duration
	// Silence is the time after which others shall take this node for silent when it does not beat (three and a half heartbeats, and
	// never less than two).
	Silence time.Duration
	// Gap is how long a missing number may still arrive before its shard is suspect (500 ms).
	Gap time.Duration
	// Linger is how long a shard is still received after nothing in it is followed any more, or up to twice as long (30 s).
	Linger time.Duration
	// Pending is how many events a subscription holds; what is more makes its shard suspect (8,192).
	Pending int
	// Outgoing is how many messages wait for the network before Publish returns ErrOverflow (16,384).
	Outgoing int
	// Epoch is asked for the highest epoch of PostgreSQL that this process has seen, which each beat tells the other nodes (none is told).
	Epoch func() int64
	// Learn is called with the epoch that a beat of another node tells. It must not wait (nobody learns).
	Learn func(epoch int64)
	// Log is told what an operator should know (nothing is logged).
	Log *zap.Logger
	// Metrics is where the node's figures are registered (nowhere). One node of a process can be.
	Metrics prometheus.Registerer
}

func (o Options) withDefaults() Options {
	setDefault(&o.Heartbeat, 2*time.Second)
	setDefault(&o.Silence, o.Heartbeat*7/2)
	o.Silence = max(o.Silence, 2*o.Heartbeat)
	setDefault(&o.Gap, 500*time.Millisecond)
	setDefault(&o.Linger, 30*time.Second)
	setDefault(&o.Pending, 8192)
	setDefault(&o.Outgoing, 16384)
	if o.Epoch == nil {
		o.Epoch = func() int64 { return 0 }
	}
	if o.Learn == nil {
		o.Learn = func(int64) {}
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return o
}

func setDefault[T ~int | ~int64](v *T, to T) {
	if *v <= 0 {
		*v = to
	}
}

// Node is a process's end of the bus: the [Bus] of all its parts. It numbers what it publishes, by shard, under a random incarnation; its one
// heartbeat says the last numbers, so that others know what they missed; and it watches the numbers and heartbeats of others.
type Node struct {
	options     Options
	incarnation uint64
	transport   Transport
	outbox      outbox
	shards      shards
	receiver    receiver
	counters    counters

	beatNow chan struct{}
	done    chan struct{}
	running sync.WaitGroup
	close   func() error
}

// Start returns a running node on the transport that dial makes. The Inlet may be used before dial returns.
func Start(o Options, dial func(*Inlet) (Transport, error)) (*Node, error) {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, fmt.Errorf("draw an incarnation: %w", err)
	}
	n := &Node{
		options: o.withDefaults(), incarnation: binary.BigEndian.Uint64(random[:]),
		beatNow: make(chan struct{}, 1), done: make(chan struct{}),
	}
	n.outbox = outbox{wake: make(chan struct{}, 1), limit: n.options.Outgoing}
	n.shards.wake = make(chan struct{}, 1)
	n.receiver = receiver{node: n, peers: make(map[uint64]*peer), open: make(map[*sequence]Shard)}
	n.close = sync.OnceValue(n.stop)

	var err error
	if n.transport, err = dial(&Inlet{n}); err != nil {
		return nil, err
	}
	if n.options.Metrics != nil {
		if err := n.options.Metrics.Register(newMetrics(n)); err != nil {
			return nil, errors.Join(fmt.Errorf("register the figures of the event bus: %w", err), n.transport.Close())
		}
	}
	n.running.Go(n.send)
	n.running.Go(n.join)
	n.running.Go(n.watch)
	return n, nil
}

// Publish implements [Bus].
func (n *Node) Publish(hints ...Event) error {
	for _, e := range hints {
		if err := e.check(); err != nil {
			return err
		}
	}
	dropped, err := n.outbox.put(n.incarnation, hints)
	n.counters.unpublished.Add(uint64(dropped))
	return err
}

// Subscribe implements [Bus].
func (n *Node) Subscribe(ctx context.Context) (Subscription, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := newSubscription(n)
	if !n.receiver.add(s) {
		return nil, ErrClosed
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() }) // which cannot fail
	s.mu.Lock()
	s.stop = stop
	s.mu.Unlock()
	return s, nil
}

// Counters returns what the node counted so far.
func (n *Node) Counters() Counters {
	c := n.counters.read()
	c.Peers, c.Connected = n.receiver.state()
	return c
}

// Close ends all subscriptions, sends what still waits, and says goodbye to the other nodes. It waits for the network
// as long as the transport does. It can be called again.
func (n *Node) Close() error { return n.close() }

func (n *Node) stop() error {
	n.outbox.close()
	var errs []error
	for _, s := range n.receiver.close() {
		errs = append(errs, s.Close())
	}
	close(n.done)
	n.running.Wait()
	errs = append(errs, n.transport.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close the event bus: %w", err)
	}
	return nil
}

func (n *Node) signalBeat() { signal(n.beatNow) }

// signal leaves a token in a channel that holds one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// send owns the way out: hints as they come, a beat from time to time, and the goodbye.
func (n *Node) send() {
	ticker := time.NewTicker(n.options.Heartbeat)
	defer ticker.Stop()
	last, spare := n.flush(batch{})
	n.beat(last, false)
	for {
		select {
		case <-n.outbox.wake:
			_, spare = n.flush(spare)
			continue
		case <-n.beatNow:
		case <-ticker.C:
		case <-n.done:
			last, _ = n.flush(spare)
			n.beat(last, true)
			return
		}
		last, spare = n.flush(spare)
		n.beat(last, false)
	}
}

// flush sends all that waits. It returns the numbers that were given out by then, and the batch for the next time.
func (n *Node) flush(spare batch) (numbers, batch) {
	b, last := n.outbox.take(spare)
	start := 0
	for _, item := range b.items {
		if err := n.transport.Hint(item.account, b.frames[start:item.end]); err != nil {
			n.counters.unpublished.Add(1)
			n.options.Log.Debug("hint not sent", zap.Int64("account", item.account), zap.Error(err))
		} else {
			n.counters.published.Add(1)
		}
		start = item.end
	}
	return last, b
}

// beat says the numbers of what was sent, behind what was sent.
func (n *Node) beat(last numbers, goodbye bool) {
	frame := appendBeat(nil, beat{
		incarnation: n.incarnation, goodbye: goodbye,
		patience: uint64(n.options.Silence.Milliseconds()), epoch: n.options.Epoch(), last: last.list(),
	})
	if err := n.transport.Beat(frame); err != nil {
		n.options.Log.Debug("heartbeat not sent", zap.Error(err))
	}
}

// join brings what the transport receives in line with what is followed. Shards are left late: clients come back.
func (n *Node) join() {
	ticker := time.NewTicker(n.options.Linger)
	defer ticker.Stop()
	for {
		select {
		case <-n.shards.wake:
			wanted := n.shards.toJoin()
			if len(wanted) == 0 {
				continue
			}
			if err := n.transport.Join(wanted); err != nil {
				n.options.Log.Debug("subscriptions are late", zap.Int("shards", len(wanted)), zap.Error(err))
			}
			n.receiver.doubt(wanted...)
		case <-ticker.C:
			idle := n.shards.toLeave()
			if len(idle) == 0 {
				continue
			}
			if err := n.transport.Leave(idle); err != nil {
				n.options.Log.Debug("shards not left", zap.Int("shards", len(idle)), zap.Error(err))
			}
		case <-n.done:
			return
		}
	}
}

// watch finds what did not come: numbers and beats.
func (n *Node) watch() {
	period := min(n.options.Gap, n.options.Silence, n.options.Heartbeat) / 4
	ticker := time.NewTicker(max(period, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			n.receiver.tick(now)
		case <-n.done:
			return
		}
	}
}
