package mailstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"starling/metadata"
)

// ledger is what was acknowledged to anybody, by mailbox.
type ledger struct {
	t  *testing.T
	mu sync.Mutex

	added   map[place]string        // by what
	gone    map[place]string        // by what
	slots   map[place]metadata.Slot // the latest that a STORE saw of its own change
	changes int
	slowest time.Duration
}

type place struct {
	mailbox string
	uid     uint32
}

func (l *ledger) add(mailbox string, uid uint32, by string) {
	if before, twice := l.added[place{mailbox, uid}]; twice {
		l.t.Errorf("%s %d was given to %s and to %s", mailbox, uid, before, by)
	}
	l.added[place{mailbox, uid}] = by
}

func (l *ledger) stored(mailbox string, done *Stored) {
	for _, uid := range done.Changed {
		at := place{mailbox, uid}
		if slot := done.After.Slot(uid); slot.ModSeq > l.slots[at].ModSeq {
			l.slots[at] = slot
		}
	}
}

func (l *ledger) moved(mailbox string, done *Copied) {
	for _, uid := range done.Source {
		if by := l.gone[place{mailbox, uid}]; by == "move" {
			l.t.Errorf("%s %d was moved twice", mailbox, uid)
		}
		l.gone[place{mailbox, uid}] = "move"
	}
}

// actor is a client that does all kinds of things to two mailboxes.
type actor struct {
	*ledger
	node  *node
	boxes map[string]*client
	rand  *rand.Rand
}

func (a *actor) act(ctx context.Context) error {
	from, to := Inbox, "Archive"
	if a.rand.IntN(2) == 0 {
		from, to = to, from
	}
	mine := a.boxes[from]
	view := mine.Snapshot()
	first := view.UID(a.rand.IntN(max(1, view.Len())))
	uids := []metadata.UIDRange{{First: first, Last: first + a.rand.Uint32N(4)}}
	begun := time.Now()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.changes++
		a.slowest = max(a.slowest, time.Since(begun))
	}()
	what := a.rand.IntN(10)
	if first == 0 {
		what = 0 // nothing is there
	}
	switch what {
	case 0, 1, 2:
		done, err := upload(ctx, a.node.Account, Incoming{Mailbox: from, Flags: flagSet("seen", fmt.Sprint("k", a.rand.IntN(5)))}, mail("m"), nil)
		if err != nil {
			return fmt.Errorf("append: %w", err)
		}
		a.mu.Lock()
		a.add(from, done.UID, "append")
		a.mu.Unlock()
	case 3, 4, 5, 6:
		done, err := mine.Store(ctx, StoreFlags{
			View: view, UIDs: uids, Mode: FlagMode(a.rand.IntN(3)),
			Flags: flagSet("seen", []string{"flagged", "k1", "k2"}[a.rand.IntN(3)]),
		})
		if err != nil {
			return fmt.Errorf("store: %w", err)
		}
		a.mu.Lock()
		a.stored(from, &done)
		a.mu.Unlock()
	case 7:
		return a.expunge(ctx, from, view, uids)
	case 8:
		done, err := mine.Copy(ctx, CopyArgs{View: view, UIDs: uids, Dest: to})
		return a.transferred(from, to, &done, false, err)
	default:
		done, err := mine.Move(ctx, CopyArgs{View: view, UIDs: uids, Dest: to})
		return a.transferred(from, to, &done, true, err)
	}
	return nil
}

func (a *actor) expunge(ctx context.Context, name string, view *Snapshot, uids []metadata.UIDRange) error {
	mine := a.boxes[name]
	done, err := mine.Store(ctx, StoreFlags{View: view, UIDs: uids, Mode: AddFlags, Flags: flagSet("deleted")})
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	after, err := mine.Expunge(ctx, view, uids)
	if err != nil {
		return fmt.Errorf("expunge: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stored(name, &done)
	for uid := range view.Live(uids[0].First, uids[0].Last) {
		if after.Slot(uid).Live() {
			continue // another took \Deleted away in between
		}
		if at := (place{name, uid}); a.gone[at] == "" {
			a.gone[at] = "expunge"
		}
	}
	return nil
}

func (a *actor) transferred(from, to string, done *Copied, move bool, err error) error {
	if err != nil {
		return fmt.Errorf("copy or move: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range done.Source {
		a.add(to, done.First+uint32(i), "copy")
	}
	if move {
		a.moved(from, done)
	}
	return nil
}

// Two nodes do everything at once to two mailboxes. All that was acknowledged is
// there, nothing is there twice, nobody starves, and all see the same in the end.
func TestContention(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{Bytes: 1 << 40})
	nodes := []*node{c.node(), c.node(func(c *Config) { c.PutTimeout = patience })}
	l := &ledger{
		t: t, added: make(map[place]string), gone: make(map[place]string), slots: make(map[place]metadata.Slot),
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	var running sync.WaitGroup
	var clients []*client
	for i := range 6 {
		n := nodes[i%2]
		a := &actor{ledger: l, node: n, boxes: make(map[string]*client), rand: rand.New(rand.NewPCG(7, uint64(i)))}
		for _, name := range []string{Inbox, "Archive"} {
			a.boxes[name] = c.enter(n, name)
			clients = append(clients, a.boxes[name])
		}
		running.Go(func() {
			for ctx.Err() == nil {
				if err := a.act(t.Context()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	t.Logf("%d changes, the slowest took %v", l.changes, l.slowest)
	if l.changes < 100 {
		t.Errorf("only %d changes", l.changes)
	}
	final := map[string]*Snapshot{Inbox: c.check(Inbox), "Archive": c.check("Archive")}
	for _, cl := range clients {
		same(t, cl.refresh(), final[cl.Snapshot().row.Name])
	}
	l.compare(final)
	bytes := final[Inbox].row.Bytes + final["Archive"].row.Bytes
	if used, err := nodes[0].Usage(t.Context()); err != nil || used.Bytes != bytes {
		t.Errorf("usage %+v, counted %d, %v", used, bytes, err)
	}
}

// compare holds the mailboxes against what was acknowledged.
func (l *ledger) compare(final map[string]*Snapshot) {
	l.t.Helper()
	for at := range l.added {
		if live := final[at.mailbox].Slot(at.uid).Live(); live == (l.gone[at] != "") {
			l.t.Errorf("%v, added by %s, is live: %v; gone by %q", at, l.added[at], live, l.gone[at])
		}
	}
	for at, slot := range l.slots {
		now := final[at.mailbox].Slot(at.uid)
		if now.ModSeq < slot.ModSeq || now.ModSeq == slot.ModSeq && now != slot {
			l.t.Errorf("%v is %+v, acknowledged was %+v", at, now, slot)
		}
		if now.ModSeq > slot.ModSeq && now.Live() {
			l.t.Errorf("%v is %+v, which nobody was told of; the last was %+v", at, now, slot)
		}
	}
	for name, s := range final {
		if added := int64(len(slices.Collect(l.uids(name)))); added != s.row.UIDNext-1 {
			l.t.Errorf("%s gave out %d UIDs, acknowledged were %d", name, s.row.UIDNext-1, added)
		}
	}
}

func (l *ledger) uids(mailbox string) func(func(uint32) bool) {
	return func(yield func(uint32) bool) {
		for at := range l.added {
			if at.mailbox == mailbox && !yield(at.uid) {
				return
			}
		}
	}
}
