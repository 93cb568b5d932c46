package eventtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"starling/events"
)

var sentences = []struct {
	says  string
	shown func(*testing.T, *world)
}{
	{"a hint reaches the other nodes that follow its account", reaches},
	{"a hint reaches nobody who does not follow its account", reachesNobodyElse},
	{"a node does not hear itself", notItself},
	{"all kinds and numbers arrive as they were published", roundTrip},
	{"many hints of one call arrive", manyInOneCall},
	{"the same account, mailbox and kind is one event, the latest", coalesces},
	{"that event has the earliest time, and a trace if any had one", causes},
	{"a greater epoch is later whatever the modseq", epochs},
	{"a beat tells the others the highest epoch that its node has seen", learns},
	{"Unfollow takes back one Follow", counted},
	{"a shard followed for the first time is suspect once", firstJoin},
	{"a shard is left late", leftLate},
	{"a subscription that is not read ends in Suspect and stops nobody", slowConsumer},
	{"Publish does not wait for the network", doesNotWait},
	{"Publish refuses negative numbers and events without a kind", invalid},
	{"a lost hint makes its shard suspect and no other", lost},
	{"a loss among later hints is found", lostInTheMiddle},
	{"a doubled hint is harmless", twice},
	{"late and reordered hints close gaps", lateAndReordered},
	{"a hint that comes after its gap was told is news", tooLate},
	{"what was published before a node came is suspect", newcomer},
	{"a goodbye is not silence", goodbye},
	{"silence is suspicion", silence},
	{"a node restarted without goodbye is silent under its old incarnation", restarted},
	{"Next returns the error of its context", nextContext},
	{"a subscription ends with its context", subscriptionContext},
	{"after Close of the subscription Next returns ErrClosed", closeSubscription},
	{"after Close of the bus everything returns ErrClosed", closeBus},
}

func reaches(t *testing.T, w *world) {
	a, _ := w.node(t)
	b, _ := w.node(t)
	c, _ := w.node(t)
	onB, onC := subscribe(t, b, a1), subscribe(t, c, a1, b1)
	publish(t, a, changed(a1, 1, 7))
	for _, l := range []*listener{onB, onC} {
		l.awaitEvent(t, changed(a1, 1, 7))
		l.wantEvents(t, changed(a1, 1, 7))
		l.wantSuspect(t)
	}
}

func reachesNobodyElse(t *testing.T, w *world) {
	a, _ := w.node(t)
	b, _ := w.node(t)
	l := subscribe(t, b, a1)
	publish(t, a, changed(a2, 1, 7), changed(b1, 1, 7), changed(a1, 1, 8))
	l.awaitEvent(t, changed(a1, 1, 8))
	l.wantEvents(t, changed(a1, 1, 8))
}

func notItself(t *testing.T, w *world) {
	a, _ := w.node(t)
	b, _ := w.node(t)
	onA, onB := subscribe(t, a, a1), subscribe(t, b, a1)
	publish(t, a, changed(a1, 1, 7))
	onB.awaitEvent(t, changed(a1, 1, 7))
	publish(t, b, changed(a1, 2, 3))
	onA.awaitEvent(t, changed(a1, 2, 3))
	onA.wantEvents(t, changed(a1, 2, 3))
}

func roundTrip(t *testing.T, w *world) {
	a, _ := w.node(t)
	b, _ := w.node(t)
	const most = 1<<63 - 1
	want := []events.Event{
		{Account: a1, Mailbox: most, Kind: events.Changed, ModSeq: most, Epoch: most},
		{Account: a1, Mailbox: 0, Kind: events.List, ModSeq: 1, Epoch: 0},
		{Account: a1, Mailbox: 0, Kind: events.Auth, ModSeq: 1 << 40, Epoch: 1 << 33, At: most},
		{Account: a1, Mailbox: 2, Kind: events.Changed, ModSeq: 2, At: 1, Trace: events.Trace{0: 1, 23: 255}},
		{Account: a1, Mailbox: 3, Kind: events.Changed, ModSeq: 2, Trace: events.Trace{7: 7}},
		{Account: b1, Mailbox: 1, Kind: events.Changed, ModSeq: 0, Epoch: 1},
	}
	l := subscribe(t, b, a1, b1)
	publish(t, a, want...)
	l.awaitEvent(t, want[len(want)-1])
	l.wantEvents(t, want...)
}

func manyInOneCall(t *testing.T, w *world) {
	a, _ := w.node(t)
	b, _ := w.node(t)
	l := subscribe(t, b, a1)
	var hints []events.Event
	for i := range int64(1000) {
		hints = append(hints, changed(a1, i+1, i+1))
	}
	publish(t, a, hints...)
	l.awaitEvent(t, hints[len(hints)-1])
	l.wantEvents(t, hints...)
}

// afterAll publishes hints and then a last one, and waits until all arrived at node, where subscriptions made before have them too.
func afterAll(t *testing.T, from, node *events.Node, hints ...events.Event) {
	t.Helper()
	l := subscribe(t, node, b1)
	publish(t, from, hints...)
	publish(t, from, changed(b1, 99, 99))
	l.awaitEvent(t, changed(b1, 99, 99))
}

func coalesces(t *testing.T, w *world) {
	a, _ := w.node(t)
	b, _ := w.node(t)
	l := subscribe(t, b, a1, a2)
	var hints []events.Event
	for i := range int64(100) {
		list := events.Event{Account: a1, Kind: events.List, ModSeq: i}
		auth := events.Event{Account: a1, Kind: events.Auth, ModSeq: i}
		hints = append(hints, changed(a1, 1, i), changed(a1, 2, 100-i), changed(a2, 1, i), list, auth)
	}
	afterAll(t, a, b, hints...)
	if err := l.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.wantEvents(
		t, changed(a1, 1, 99), changed(a1, 2, 100), changed(a2, 1, 99),
		events.Event{Account: a1, Kind: events.List, ModSeq: 99}, events.Event{Account: a1, Kind: events.Auth, ModSeq: 99},
	)
	publish(t, a, changed(a1, 1, 5))
	l.forget()
	l.awaitEvent(t, changed(a1, 1, 5)) // what was handed out is forgotten
}

func causes(t *testing.T, w *world) {
	a, _ := w.node(t)
	b, _ := w.node(t)
	l := subscribe(t, b, a1)
	at := func(mailbox, modseq, at int64, trace byte) events.Event {
		e := changed(a1, mailbox, modseq)
		e.At, e.Trace[0] = at, trace
		return e
	}
	afterAll(
		t, a, b,
		at(1, 1, 0, 1), at(1, 2, 7, 0), at(1, 3, 9, 0), at(1, 1, 5, 0), at(1, 2, 0, 0),
		at(2, 1, 3, 1), at(2, 2, 4, 2), at(3, 2, 4, 2), at(3, 1, 3, 1), at(4, 1, 0, 0), at(4, 2, 0, 0),
	)
	if err := l.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.wantEvents(t, at(1, 3, 5, 1), at(2, 2, 3, 2), at(3, 2, 3, 2), at(4, 2, 0, 0))
}

func epochs(t *testing.T, w *world) {
	a, _ := w.node(t)
	b, _ := w.node(t)
	l := subscribe(t, b, a1)
	at := func(epoch, modseq int64) events.Event {
		return events.Event{Account: a1, Mailbox: 1, Kind: events.Changed, ModSeq: modseq, Epoch: epoch}
	}
	afterAll(t, a, b, at(1, 50), at(2, 10), at(1, 60), at(2, 9))
	if err := l.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.wantEvents(t, at(2, 10))
}

func counted(t *testing.T, w *world) {
	a, _ := w.node(t)
	b, _ := w.node(t)
	l := subscribe(t, b, a1, a1, a2)
	l.Unfollow(a1)
	publish(t, a, changed(a1, 1, 7))
	l.awaitEvent(t, changed(a1, 1, 7))
	l.Unfollow(a1)
	l.Unfollow(a1) // once too often
	publish(t, a, changed(a1, 1, 8), changed(a2, 1, 1))
	l.awaitEvent(t, changed(a2, 1, 1))
	l.wantEvents(t, changed(a1, 1, 7), changed(a2, 1, 1))
	l.Follow(a1)
	publish(t, a, changed(a1, 1, 9))
	l.awaitEvent(t, changed(a1, 1, 9))
}

func firstJoin(t *testing.T, w *world) {
	b, _ := w.node(t)
	l := subscribe(t, b, a1) // which waits for Suspect
	l.Follow(a2)
	l.wantQuiet(t, quiet)
	other := subscribe(t, b, b1)
	other.Follow(a1)
	other.wantQuiet(t, quiet)
	l.wantQuiet(t, quiet)
}

func leftLate(t *testing.T, w *world) {
	a, _ := w.node(t)
	b, _ := w.nodeWith(t, events.Options{Linger: time.Second})
	l := subscribe(t, b, a1)
	l.Unfollow(a1)
	l.Follow(a1)
	publish(t, a, changed(a1, 1, 1))
	l.awaitEvent(t, changed(a1, 1, 1))
	l.wantSuspect(t)
	l.Unfollow(a1)
	l.wantQuiet(t, 3*time.Second) // until it is left
	received := b.Counters().Received
	l.Follow(b1)
	l.await(t, func() bool { return l.suspects(b1) })
	publish(t, a, changed(a1, 1, 2), changed(b1, 1, 1))
	l.awaitEvent(t, changed(b1, 1, 1))
	if got := b.Counters().Received - received; got != 1 {
		t.Errorf("received %d messages, want 1: the shard was not left", got)
	}
	l.Follow(a1)
	l.await(t, func() bool { return l.suspects(a1) })
	publish(t, a, changed(a1, 1, 3))
	l.awaitEvent(t, changed(a1, 1, 3))
}

func slowConsumer(t *testing.T, w *world) {
	a, _ := w.node(t)
	b, _ := w.nodeWith(t, events.Options{Pending: 4})
	l := subscribe(t, b, a1)
	var hints []events.Event
	for i := range int64(5000) {
		hints = append(hints, changed(a1, i+1, 1))
	}
	afterAll(t, a, b, hints...)
	if err := l.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.wantEvents(t, hints[:4]...)
	l.wantSuspect(t, events.ShardOf(a1))
	if got := b.Counters().Overflows; got != uint64(len(hints)-4) {
		t.Errorf("%d overflows, want %d", got, len(hints)-4)
	}
	publish(t, a, changed(a1, 1, 2))
	l.awaitEvent(t, changed(a1, 1, 2))
}

func doesNotWait(t *testing.T, w *world) {
	a, faults := w.nodeWith(t, events.Options{Outgoing: 8})
	b, _ := w.node(t)
	l := subscribe(t, b, a1, b1)
	unblock := faults.Block()
	var err error
	for i := int64(1); err == nil && i < 100; i++ {
		err = a.Publish(changed(a1, 1, i))
	}
	unblock()
	if !errors.Is(err, events.ErrOverflow) {
		t.Errorf("Publish returned %v with a blocked network, want ErrOverflow", err)
	}
	l.await(t, func() bool { return l.suspects(a1) })
	l.wantSuspect(t, events.ShardOf(a1))
	if a.Counters().Unpublished == 0 {
		t.Error("the dropped hint was not counted")
	}
}

func invalid(t *testing.T, w *world) {
	a, _ := w.node(t)
	b, _ := w.node(t)
	l := subscribe(t, b, 0)
	for _, wrong := range []events.Event{
		{Kind: events.Changed, Account: -1},
		{Kind: events.Changed, Mailbox: -1},
		{Kind: events.Changed, ModSeq: -1},
		{Kind: events.Changed, Epoch: -1},
		{Kind: events.Changed, At: -1},
		{ModSeq: 1},
	} {
		if err := a.Publish(changed(0, 1, 1), wrong); err == nil {
			t.Errorf("published %+v", wrong)
		}
	}
	publish(t, a, changed(0, 1, 2))
	l.awaitEvent(t, changed(0, 1, 2))
	l.wantEvents(t, changed(0, 1, 2)) // of a refused call, nothing is published
}

func lost(t *testing.T, w *world) {
	a, faults := w.node(t)
	b, _ := w.node(t)
	l := subscribe(t, b, a1, b1)
	publish(t, a, changed(b1, 1, 1), changed(a1, 1, 1))
	l.awaitEvent(t, changed(a1, 1, 1))
	faults.Drop(1)
	publish(t, a, changed(a1, 1, 2)) // found by the heartbeat
	l.await(t, func() bool { return l.suspects(a1) })
	publish(t, a, changed(b1, 1, 2), changed(a1, 1, 3))
	l.awaitEvent(t, changed(a1, 1, 3))
	l.wantQuiet(t, quiet)
	l.wantSuspect(t, events.ShardOf(a1))
}

func lostInTheMiddle(t *testing.T, w *world) {
	a, faults := w.node(t)
	b, _ := w.node(t)
	l := subscribe(t, b, a1, b1)
	publish(t, a, changed(a1, 1, 1))
	l.awaitEvent(t, changed(a1, 1, 1))
	faults.Drop(3)
	for i := range int64(1000) { // more messages than one
		publish(t, a, changed(a1, 1, 2+i))
	}
	l.await(t, func() bool { return l.suspects(a1) })
	l.wantQuiet(t, quiet)
	l.wantSuspect(t, events.ShardOf(a1))
	if c := b.Counters(); c.Lost != 1 || c.Received != 998 {
		t.Errorf("counted %d losses and %d messages, want 1 and 998", c.Lost, c.Received)
	}
}

func twice(t *testing.T, w *world) {
	a, faults := w.node(t)
	b, _ := w.node(t)
	l := subscribe(t, b, a1)
	faults.Double(1)
	publish(t, a, changed(a1, 1, 1))
	publish(t, a, changed(a1, 1, 2))
	l.awaitEvent(t, changed(a1, 1, 2))
	l.wantQuiet(t, quiet)
	l.wantSuspect(t)
	if got := b.Counters().Doubled; got != 1 {
		t.Errorf("counted %d doubled, want 1", got)
	}
}

func lateAndReordered(t *testing.T, w *world) {
	a, faults := w.nodeWith(t, events.Options{})
	b, _ := w.nodeWith(t, events.Options{Gap: time.Second})
	l := subscribe(t, b, a1)
	faults.Hold(3)
	for i := range int64(4) {
		publish(t, a, changed(a1, i+1, i+1))
	}
	l.awaitEvent(t, changed(a1, 4, 4))
	faults.Release()
	l.awaitEvent(t, changed(a1, 1, 1))
	l.wantEvents(t, changed(a1, 4, 4), changed(a1, 3, 3), changed(a1, 2, 2), changed(a1, 1, 1))
	l.wantQuiet(t, 2*time.Second)
	l.wantSuspect(t)
	if got := b.Counters().Late; got != 3 {
		t.Errorf("counted %d late, want 3", got)
	}
}

func tooLate(t *testing.T, w *world) {
	a, faults := w.node(t)
	b, _ := w.node(t)
	l := subscribe(t, b, a1)
	faults.Hold(1)
	publish(t, a, changed(a1, 1, 1))
	l.await(t, func() bool { return l.suspects(a1) })
	faults.Release()
	l.awaitEvent(t, changed(a1, 1, 1))
}

func newcomer(t *testing.T, w *world) {
	a, faults := w.node(t)
	witness, _ := w.node(t)
	afterAll(t, a, witness, changed(a1, 1, 1))
	faults.Mute(true) // so that the newcomer follows before it hears the numbers
	b, _ := w.node(t)
	l := subscribe(t, b, a1, b1, c1) // suspect because joined
	faults.Mute(false)
	l.await(t, func() bool { return l.suspects(a1) })
	l.wantQuiet(t, quiet)
	l.wantSuspect(t, events.ShardOf(a1), events.ShardOf(b1)) // once more, where something was published
}

func goodbye(t *testing.T, w *world) {
	const short = time.Second
	a, _ := w.nodeWith(t, events.Options{Silence: short})
	b, _ := w.node(t)
	l := subscribe(t, b, a1)
	publish(t, a, changed(a1, 1, 1))
	l.awaitEvent(t, changed(a1, 1, 1))
	publish(t, a, changed(a1, 1, 2))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	l.awaitEvent(t, changed(a1, 1, 2)) // sent before the goodbye
	l.wantQuiet(t, 2*short)
	l.wantSuspect(t)
	if got := b.Counters().Silences; got != 0 {
		t.Errorf("counted %d silences", got)
	}
}

func silence(t *testing.T, w *world) {
	a, faults := w.nodeWith(t, events.Options{Silence: time.Second})
	b, _ := w.nodeWith(t, events.Options{Silence: time.Second})
	l := subscribe(t, b, a1, b1)
	publish(t, a, changed(a1, 1, 1), changed(b1, 1, 1))
	l.awaitEvent(t, changed(b1, 1, 1))

	faults.Mute(true)
	l.await(t, func() bool { return l.suspects(a1) && l.suspects(b1) && !l.connected })
	publish(t, a, changed(a1, 1, 2))
	l.forget()
	l.wantQuiet(t, quiet) // told once, not again and again

	faults.Mute(false)
	l.await(t, func() bool { return l.connected && l.suspects(a1) })
	l.wantSuspect(t, events.ShardOf(a1)) // the numbers say where
}

func restarted(t *testing.T, w *world) {
	a, faults := w.nodeWith(t, events.Options{Silence: time.Second})
	b, _ := w.nodeWith(t, events.Options{Silence: time.Second})
	l := subscribe(t, b, a1, b1)
	publish(t, a, changed(a1, 1, 1))
	l.awaitEvent(t, changed(a1, 1, 1))
	faults.Mute(true)
	again, _ := w.node(t)
	publish(t, again, changed(a1, 1, 2))
	l.awaitEvent(t, changed(a1, 1, 2))
	l.wantSuspect(t)
	l.await(t, func() bool { return l.suspects(a1) && l.suspects(b1) })
}

func nextContext(t *testing.T, w *world) {
	a, _ := w.node(t)
	l := subscribe(t, a, a1)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(heartbeat, cancel)
	if _, err := l.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Next returned %v, want Canceled", err)
	}
}

func subscriptionContext(t *testing.T, w *world) {
	a, _ := w.node(t)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := a.Subscribe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(heartbeat, cancel)
	if _, err := s.Next(t.Context()); !errors.Is(err, events.ErrClosed) {
		t.Errorf("Next returned %v, want ErrClosed", err)
	}
	if _, err := a.Subscribe(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Subscribe returned %v, want Canceled", err)
	}
}

func learns(t *testing.T, w *world) {
	learned := make(chan int64, 1)
	w.nodeWith(t, events.Options{Epoch: func() int64 { return 7 }})
	w.nodeWith(t, events.Options{Epoch: func() int64 { return 5 }, Learn: func(epoch int64) {
		select {
		case learned <- epoch:
		default:
		}
	}})
	select {
	case epoch := <-learned:
		if epoch != 7 {
			t.Errorf("the other node told of epoch %d, want 7: one's own is not learned", epoch)
		}
	case <-time.After(patience):
		t.Error("nothing was learned")
	}
}

func closeSubscription(t *testing.T, w *world) {
	a, _ := w.node(t)
	b, _ := w.node(t)
	l, other := subscribe(t, b, a1), subscribe(t, b, b1)
	time.AfterFunc(heartbeat, func() {
		if err := errors.Join(l.Close(), l.Close()); err != nil {
			t.Error(err)
		}
	})
	if _, err := l.Next(t.Context()); !errors.Is(err, events.ErrClosed) {
		t.Errorf("Next returned %v, want ErrClosed", err)
	}
	l.Follow(a1)
	l.Unfollow(a1)
	publish(t, a, changed(a1, 1, 1), changed(b1, 1, 1))
	other.awaitEvent(t, changed(b1, 1, 1)) // the others go on
}

func closeBus(t *testing.T, w *world) {
	a, _ := w.node(t)
	l := subscribe(t, a, a1)
	time.AfterFunc(heartbeat, func() {
		if err := errors.Join(a.Close(), a.Close()); err != nil {
			t.Error(err)
		}
	})
	if _, err := l.Next(t.Context()); !errors.Is(err, events.ErrClosed) {
		t.Errorf("Next returned %v, want ErrClosed", err)
	}
	if err := a.Publish(changed(a1, 1, 1)); !errors.Is(err, events.ErrClosed) {
		t.Errorf("Publish returned %v, want ErrClosed", err)
	}
	if _, err := a.Subscribe(t.Context()); !errors.Is(err, events.ErrClosed) {
		t.Errorf("Subscribe returned %v, want ErrClosed", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
