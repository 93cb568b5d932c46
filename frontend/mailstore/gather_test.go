package mailstore

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"starling/events"
	"starling/metadata"
)

// gathered has questions wait as while statements are under way, until all of them do,
// and then asks.
func gathered[Q any](g *gather[Q], questions ...func()) {
	g.mu.Lock()
	g.asking = maxGathers
	g.mu.Unlock()
	var running sync.WaitGroup
	for i, q := range questions {
		running.Go(q)
		for waiting := 0; waiting <= i; {
			g.mu.Lock()
			waiting = len(g.waiting)
			g.mu.Unlock()
		}
	}
	g.mu.Lock()
	g.asking = 1
	g.mu.Unlock()
	g.run()
	running.Wait()
}

// What many ask at the same time is one statement; only what another node changed
// meanwhile is read on its own.
func TestRefreshesAreGathered(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x, y := c.still(), c.still()
	names := []string{Inbox, "Archive", "a", "b", "c"}
	boxes := make([]*client, len(names))
	for i, name := range names {
		if i > 1 {
			if _, err := y.Create(t.Context(), name, nil); err != nil {
				t.Fatal(err)
			}
		}
		boxes[i] = c.enter(x, name)
	}
	before := boxes[0].Snapshot()
	c.append(y, "Archive", mail("1"))
	if _, err := y.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := y.Rename(t.Context(), "b", "renamed"); err != nil {
		t.Fatal(err)
	}
	errs := make([]error, len(names))
	var questions []func()
	for i, m := range boxes {
		questions = append(questions, func() { _, errs[i] = m.Refresh(t.Context()) })
	}
	if n := x.trips(func() { gathered(x.proofs, questions...) }); n != 4 {
		t.Errorf("%d round trips, want one and those of three mailboxes that changed", n)
	}
	for i, err := range errs {
		if gone := names[i] == "a"; gone != errors.Is(err, metadata.ErrNoMailbox) || !gone && err != nil {
			t.Errorf("%s: %v", names[i], err)
		}
	}
	if boxes[0].Snapshot() != before || boxes[1].Snapshot().Len() != 1 || !boxes[2].Gone() || boxes[3].Snapshot().Mailbox().Name != "renamed" {
		t.Error("not all mailboxes are as they are in PostgreSQL")
	}
	if n := x.trips(func() { gathered(x.proofs, questions[0], questions[1], questions[3], questions[4]) }); n != 1 {
		t.Errorf("%d round trips where nothing changed", n)
	}
}

// Who comes while a statement is under way is not answered by it.
func TestGatheredIsNotTooEarly(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x, y := c.still(), c.still()
	mine, other := c.enter(x, Inbox), c.enter(x, "Archive")
	ask := x.proofs.ask
	var late sync.WaitGroup
	var seen int
	x.proofs.ask = func(group []*reading) {
		x.proofs.ask = ask
		ask(group[1:])
		r := group[0]
		if !r.beginProof() {
			t.Error("a mailbox that nothing was heard of was not to be compared")
		}
		c.append(y, Inbox, mail("1"))
		late.Go(func() {
			after, err := mine.Refresh(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			seen = after.Len()
		})
		for waits := false; !waits; { // for the reading after r
			mine.box.mu.Lock()
			waits = mine.box.next != nil
			mine.box.mu.Unlock()
		}
		r.finish(nil)
	}
	refresh := func(m *client) func() {
		return func() {
			if _, err := m.Refresh(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	gathered(x.proofs, refresh(mine), refresh(other))
	late.Wait()
	if seen != 1 {
		t.Errorf("a refresh that was asked for after a change saw %d messages", seen)
	}
}

// Rows of mailboxes that are asked for by their names at the same time are one statement.
func TestNamesAreGathered(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still()
	c.append(x, "Archive", mail("1"))
	names := []string{"Archive", "missing", Inbox, "Archive"}
	rows, errs := make([]metadata.Mailbox, len(names)), make([]error, len(names))
	var questions []func()
	for i, name := range names {
		questions = append(questions, func() { rows[i], errs[i] = x.Mailbox(t.Context(), name) })
	}
	if n := x.trips(func() { gathered(x.names, questions...) }); n != 1 {
		t.Errorf("%d round trips", n)
	}
	for i, name := range names {
		alone, err := c.db.MailboxByName(t.Context(), c.account.ID, name)
		if fmt.Sprint(rows[i], errs[i]) != fmt.Sprint(alone, err) {
			if name != "missing" || !errors.Is(errs[i], metadata.ErrNoMailbox) {
				t.Errorf("%s is %+v, %v; alone %+v, %v", name, rows[i], errs[i], alone, err)
			}
		}
	}
}

// Who asks by itself does not ask for those who came meanwhile, but sees to it that
// somebody does.
func TestGatherIsHandedOver(t *testing.T) {
	t.Parallel()
	var work, askers sync.WaitGroup
	const questions = maxGathers + 3
	asked, goOn := make(chan []int), make(chan struct{})
	var answered [questions]chan struct{}
	for i := range answered {
		answered[i] = make(chan struct{})
	}
	g := newGather(&work, func(group []int) {
		asked <- group
		<-goOn
		for _, q := range group {
			close(answered[q])
		}
	})
	var returned [maxGathers]chan struct{}
	for i := range maxGathers {
		returned[i] = make(chan struct{})
		askers.Go(func() { g.do(i); close(returned[i]) })
		<-asked
	}
	for i := maxGathers; i < questions; i++ {
		g.do(i) // which waits for nothing
	}
	goOn <- struct{}{}
	if group := <-asked; len(group) != questions-maxGathers {
		t.Errorf("%d questions went into the next statement, want all %d that waited", len(group), questions-maxGathers)
	}
	goOn <- struct{}{}
	goOn <- struct{}{}
	for i := range answered {
		<-answered[i]
	}
	for _, done := range returned {
		<-done
	}
	work.Wait()
	askers.Wait()
	if g.asking != 0 {
		t.Errorf("%d statements are said to be under way after the end", g.asking)
	}
}

// A mailbox that nobody else writes to is not read on its own because a COPY to it came from one that others write to.
func TestQuietTargetOfCopy(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still()
	c.append(x, Inbox, mail("1"))
	from, to := c.enter(x, Inbox), c.enter(x, "Archive")
	from.box.contested()
	for range contestLength {
		if _, err := from.Copy(t.Context(), CopyArgs{View: from.Snapshot(), UIDs: one(1), Dest: "Archive"}); err != nil {
			t.Fatal(err)
		}
	}
	for name, b := range map[string]*box{"the source": from.box, "the target": to.box} {
		b.mu.Lock()
		if !b.likely() {
			t.Errorf("%s counts as contested: %d", name, b.contest)
		}
		b.mu.Unlock()
	}
}

// A hint of what the node had when it came, or of the past, is forgotten once it was looked after.
func TestHintOfThePast(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still()
	c.append(x, Inbox, mail("1"))
	cl := c.enter(x, Inbox)
	row := cl.Snapshot().Mailbox()
	x.heard(events.Event{
		Account: int64(c.account.ID), Mailbox: int64(row.ID), Kind: events.Changed, ModSeq: row.ModSeq + 7, Epoch: row.Epoch - 1,
	})
	cl.refresh()
	cl.box.mu.Lock()
	defer cl.box.mu.Unlock()
	if !cl.box.likely() {
		t.Errorf("the mailbox counts as changed elsewhere: %+v", cl.box.hinted)
	}
}
