package mailstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"starling/events"
	"starling/events/nats"
	"starling/events/nats/natsserver"
	"starling/metadata"
)

func often(c *Config) { c.Sweep = 20 * time.Millisecond }

// onEachBus runs a test with hints that cross a hub, and a NATS server.
func onEachBus(t *testing.T, run func(t *testing.T, c *cluster)) {
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		run(t, newCluster(t, metadata.Quota{}))
	})
	t.Run("nats", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t, metadata.Quota{})
		c.onNATS()
		run(t, c)
	})
}

// onNATS has the nodes that are started from here on hear each other by a NATS server.
func (c *cluster) onNATS() {
	c.t.Helper()
	server, err := natsserver.Start(natsserver.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(server.Shutdown)
	c.open = func(o events.Options, wrap func(events.Transport) events.Transport) *events.Node {
		config := nats.Config{URLs: []string{server.URL()}, Options: o}
		bus, err := events.Start(o, func(in *events.Inlet) (events.Transport, error) {
			transport, err := config.Dial(in)
			return wrap(transport), err
		})
		if err != nil {
			c.t.Fatal(err)
		}
		return bus
	}
}

// Every change of one node is heard of on the other without being asked for.
func TestHintsCrossNodes(t *testing.T) {
	t.Parallel()
	onEachBus(t, func(t *testing.T, c *cluster) {
		x, y := c.node(), c.node()
		mine, theirs := c.enter(x, Inbox), c.enter(y, Inbox)
		archive := c.enter(y, "Archive")
		reached := func() bool { return theirs.Snapshot().row.Version == mine.Snapshot().row.Version }
		c.append(x, Inbox, mail("1"))
		theirs.await("append", reached)
		mine.store(one(1), AddFlags, "seen", "$Label")
		theirs.await("store", reached)
		if _, err := mine.Copy(t.Context(), CopyArgs{View: mine.Snapshot(), UIDs: one(1), Dest: "Archive"}); err != nil {
			t.Fatal(err)
		}
		archive.await("copy", func() bool { return archive.Snapshot().Len() == 1 })
		mine.store(one(1), AddFlags, "deleted")
		if _, err := mine.Expunge(t.Context(), mine.Snapshot(), nil); err != nil {
			t.Fatal(err)
		}
		theirs.await("expunge", reached)
		same(t, theirs.Snapshot(), c.check(Inbox))
		same(t, archive.Snapshot(), c.check("Archive"))
		remove(t, x, "Archive")
		archive.await("delete", archive.Gone)
		if err := c.db.SetState(t.Context(), c.account.Name, metadata.Suspended); err != nil {
			t.Fatal(err)
		}
		x.publish(events.Event{Account: int64(c.account.ID), Kind: events.Auth, ModSeq: 2})
		await(t, "suspension", y.ended)
	})
}

func await(t *testing.T, what string, token chan struct{}) {
	t.Helper()
	select {
	case <-token:
	case <-time.After(patience):
		t.Fatalf("no news of %s", what)
	}
}

// A NOOP on any node sees what was acknowledged on any other, hints or not.
func TestRefreshSeesWhatWasAcknowledged(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x, y := c.node(), c.node()
	x.faults.Mute(true)
	mine, theirs := c.enter(x, Inbox), c.enter(y, Inbox)
	for i := range 20 {
		c.append(x, Inbox, mail(fmt.Sprint(i)))
		same(t, theirs.refresh(), mine.Snapshot())
		theirs.store(all(theirs.Snapshot()), AddFlags, fmt.Sprint("k", i))
		same(t, mine.refresh(), theirs.Snapshot())
	}
}

// What no hint tells of is found by the sweep: changes, deletions, logins.
func TestSweep(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x, y := c.node(), c.node(often)
	x.faults.Mute(true)
	theirs, archive := c.enter(y, Inbox), c.enter(y, "Archive")
	c.append(x, Inbox, mail("1"))
	theirs.await("append", func() bool { return theirs.Snapshot().Len() == 1 })
	remove(t, x, "Archive")
	archive.await("delete", archive.Gone)
	if err := c.db.SetPassword(t.Context(), c.account.Name, "{PLAIN}new"); err != nil {
		t.Fatal(err)
	}
	await(t, "a new password", y.ended)
}

// Silence of another node makes a node deaf: it compares at once, and from then
// on at the short interval.
func TestSweepWhileDeaf(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	plain := c.open
	c.open = func(o events.Options, wrap func(events.Transport) events.Transport) *events.Node {
		o.Silence = 200 * time.Millisecond
		return plain(o, wrap)
	}
	x := c.node()
	y := c.node(func(c *Config) { c.SweepDeaf = 20 * time.Millisecond })
	theirs := c.enter(y, Inbox)
	c.append(x, Inbox, mail("1"))
	theirs.await("append", func() bool { return theirs.Snapshot().Len() == 1 })
	x.faults.Mute(true)
	for want := 2; want < 5; want++ {
		c.append(x, Inbox, mail("2"))
		theirs.await("append without a hint", func() bool { return theirs.Snapshot().Len() == want })
	}
}

// A hint that is lost leaves a gap in the numbers, and its shard is compared.
func TestSuspectShard(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x, y := c.node(), c.node()
	theirs := c.enter(y, Inbox)
	c.append(x, Inbox, mail("1"))
	theirs.await("append", func() bool { return theirs.Snapshot().Len() == 1 })
	x.faults.Drop(1)
	c.append(x, Inbox, mail("2"))
	theirs.await("append of which the hint was lost", func() bool { return theirs.Snapshot().Len() == 2 })
}

// Hints that are doubled, late or one's own cost no reading.
func TestHintsThatSayNothingNew(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still()
	mine := c.enter(x, Inbox)
	c.append(x, Inbox, mail("1"))
	now := mine.Snapshot().row
	if n := x.trips(func() {
		for _, modseq := range []int64{now.ModSeq, now.ModSeq - 1, 1} {
			x.heard(events.Event{Account: int64(c.account.ID), Mailbox: int64(mine.ID()), Kind: events.Changed, ModSeq: modseq, Epoch: now.Epoch})
		}
		x.heard(events.Event{Account: int64(c.account.ID), Mailbox: 77, Kind: events.Changed, ModSeq: 9, Epoch: now.Epoch})
		x.heard(events.Event{Account: 1, Mailbox: 1, Kind: events.Changed, ModSeq: 9, Epoch: now.Epoch})
	}); n != 0 {
		t.Errorf("%d round trips", n)
	}
}

// Many hints that come together are one reading.
func TestHintsAreMerged(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x, y := c.still(), c.still()
	theirs := c.enter(y, Inbox)
	c.append(x, Inbox, mail("1"))
	if n := y.trips(func() {
		for range maxCatchUps {
			y.watch.reading <- struct{}{} // others are being read
		}
		for modseq := range int64(200) {
			y.heard(events.Event{Account: int64(c.account.ID), Mailbox: int64(theirs.ID()), Kind: events.Changed, ModSeq: modseq})
		}
		for range maxCatchUps {
			<-y.watch.reading
		}
		theirs.await("the last", func() bool { return theirs.Snapshot().Len() == 1 })
	}); n != 1 {
		t.Errorf("%d round trips", n)
	}
}

// Who has a mailbox open keeps it; what nobody has open goes.
func TestEviction(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.node()
	held := c.enter(x, Inbox)
	other, err := x.Open(t.Context(), "Archive", func() {})
	if err != nil {
		t.Fatal(err)
	}
	ref := other.box.ref
	x.evict(time.Now())
	if x.lookup(ref) == nil {
		t.Error("an open mailbox was evicted")
	}
	other.Close()
	x.evict(time.Now().Add(-time.Minute))
	if x.lookup(ref) == nil {
		t.Error("evicted before its time")
	}
	x.evict(time.Now().Add(time.Second))
	if x.lookup(ref) != nil {
		t.Error("not evicted")
	}
	if x.lookup(held.box.ref) != held.box {
		t.Error("an open mailbox was evicted")
	}
	c.append(x, Inbox, mail("1"))
	if held.Snapshot().Len() != 1 {
		t.Error("the mailbox that is open is not the one that was changed")
	}
}

// Who goes away while a mailbox is read does not take the reading from others.
func TestRefreshOfOneWhoLeft(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x, y := c.still(), c.still()
	mine := c.enter(x, Inbox)
	left, leave := context.WithCancel(t.Context())
	leave()
	for i := range 10 {
		c.append(y, Inbox, mail(fmt.Sprint(i)))
		s, err := mine.Refresh(left)
		if err != nil && (!errors.Is(err, context.Canceled) || s != nil) {
			t.Fatal(s, err)
		}
		if got := mine.refresh().Len(); got != i+1 {
			t.Errorf("%d messages, want %d", got, i+1)
		}
	}
	_, err := x.Open(left, "Archive", func() {})
	wantError(t, err, context.Canceled)
	c.enter(x, "Archive")
}

// Many who ask at the same time share the reading.
func TestRefreshIsShared(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still()
	mine := c.enter(x, Inbox)
	const n = 100
	trips := x.trips(func() {
		var running sync.WaitGroup
		for range n {
			running.Go(func() { mine.refresh() })
		}
		running.Wait()
	})
	if trips > n/2 {
		t.Errorf("%d round trips for %d at once", trips, n)
	}
}
