package metadata_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

// effect is what one commit did to one mailbox.
type effect struct {
	seen    metadata.Version
	after   metadata.Version
	uidnext int64
	inserts int64
	delta   metadata.Counters
	slots   map[uint32]metadata.Slot
}

// state is a mailbox as a reader held it.
type state struct {
	box   metadata.Mailbox
	slots map[uint32]metadata.Slot
}

// race is several connections working on two mailboxes.
type race struct {
	t     *testing.T
	db    *metadata.DB
	start []*node // by index of mailbox

	mu      sync.Mutex
	effects []map[int64]effect // by mailbox, then modseq
	states  []map[int64]state
	lost    atomic.Int64
	won     atomic.Int64
}

// TestReplay: writers append, store, expunge, copy and move between two
// mailboxes, with and without locks, while readers follow. Whatever a reader
// held must be what a replay of all commits up to its modseq gives.
func TestReplay(t *testing.T) {
	t.Parallel()
	for _, writers := range []int{2, 8} {
		t.Run(fmt.Sprint(writers), func(t *testing.T) {
			t.Parallel()
			db := metadatatest.Open(t, func(c *metadata.Config) { c.MaxConns = writers + 2 })
			runRace(t, db, writers)
		})
	}
}

// runRace lets writers and two readers work on two mailboxes for a while, and
// checks what they saw and left.
func runRace(t *testing.T, db *metadata.DB, writers int) {
	t.Helper()
	inbox := inboxOf(t, db, func(a *metadata.NewAccount) { a.Limits = metadata.Quota{Messages: 1 << 40} })
	r := &race{t: t, db: db, start: []*node{inbox, create(t, db, inbox, "Archive")}}
	for range r.start {
		r.effects = append(r.effects, map[int64]effect{})
		r.states = append(r.states, map[int64]state{})
	}
	var writing, reading sync.WaitGroup
	stop := make(chan struct{})
	begin := time.Now()
	enough := func() bool { // on a slow machine it takes longer to make a race
		took := time.Since(begin)
		return took > 1500*time.Millisecond && r.won.Load() >= int64(10*writers) && r.lost.Load() > 0 || took > 20*time.Second
	}
	for i := range writers {
		writing.Go(func() { r.write(rand.New(rand.NewPCG(1, uint64(i))), enough) })
	}
	for i := range r.start {
		reading.Go(func() { r.read(i, stop) })
	}
	writing.Wait()
	close(stop)
	reading.Wait()
	if t.Failed() {
		return
	}
	for i := range r.start {
		r.replay(i)
	}
	r.owners()
	t.Logf("%d commits, %d attempts lost", r.won.Load(), r.lost.Load())
	if r.won.Load() < int64(10*writers) || r.lost.Load() == 0 {
		t.Errorf("%d commits and %d lost attempts are no race", r.won.Load(), r.lost.Load())
	}
}

func (r *race) write(rnd *rand.Rand, enough func() bool) {
	mine := []*node{r.start[0], r.start[1]}
	for !enough() && !r.t.Failed() {
		op := r.operation(rnd)
		c := op(mine)
		if c == nil {
			continue
		}
		done, err := r.db.Commit(r.t.Context(), c)
		if errors.Is(err, metadata.ErrConflict) {
			r.lost.Add(1)
			if rnd.IntN(2) == 0 {
				r.refresh(mine)
				continue
			}
			c, done, err = r.locked(mine, op)
		}
		if err != nil {
			r.t.Error(err)
			return
		}
		if c != nil {
			r.record(c, done)
		}
		if rnd.IntN(2) == 0 {
			r.refresh(mine)
		}
	}
}

// operation chooses what to do; the result computes it on what is held.
func (r *race) operation(rnd *rand.Rand) func(mine []*node) *metadata.Commit {
	from, kind, pick := rnd.IntN(2), rnd.IntN(8), rnd.Int()
	return func(mine []*node) *metadata.Commit {
		n, to := mine[from], mine[1-from]
		live := n.live()
		if kind < 2 || len(live) < 4 {
			return n.appending(1 + pick%3)
		}
		uid, other := live[pick%len(live)], live[(pick/7)%len(live)]
		switch kind {
		case 2, 3:
			return n.storing(n.slot(uid).Flags^metadata.Seen, uid)
		case 4:
			return n.expunging(uid)
		case 5:
			return n.transferring(to, false, uid)
		case 6:
			return n.within(pick%2 == 0, uid)
		}
		if uid == other {
			return n.transferring(to, true, uid)
		}
		return n.transferring(to, true, uid, other)
	}
}

func (r *race) refresh(mine []*node) {
	for i, n := range mine {
		l, err := r.db.Load(r.t.Context(), n.box.Account, n.box.ID, n.box.Version)
		if err != nil {
			r.t.Error(err)
			return
		}
		mine[i] = apply(n, l)
	}
}

func (r *race) locked(mine []*node, op func([]*node) *metadata.Commit) (c *metadata.Commit, done metadata.Committed, err error) {
	done, err = r.db.CommitLocked(r.t.Context(), mine[0].box.Account,
		[]metadata.MailboxID{mine[0].box.ID, mine[1].box.ID},
		[]metadata.Version{mine[0].box.Version, mine[1].box.Version},
		func(loads []metadata.Load) (*metadata.Commit, error) {
			for i := range mine {
				mine[i] = apply(mine[i], loads[i])
			}
			c = op(mine)
			return c, nil
		})
	return c, done, err
}

func (r *race) record(c *metadata.Commit, done metadata.Committed) {
	r.won.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, ch := range c.Changes {
		if ch.ModSeq == ch.Seen.ModSeq {
			continue // the source of a copy
		}
		e := effect{
			seen: ch.Seen, after: done.Version(c, i), uidnext: ch.UIDNext, delta: ch.Delta,
			inserts: int64(len(ch.Insert)), slots: map[uint32]metadata.Slot{},
		}
		for _, copied := range c.Copies {
			if copied.To == ch.Mailbox {
				e.inserts++
			}
		}
		for _, chunk := range ch.Chunks {
			for k := range chunk.Len() {
				if s := chunk.Slot(k); s.ModSeq == ch.ModSeq {
					e.slots[chunk.First()+uint32(k)] = s
				}
			}
		}
		box := 0
		if ch.Mailbox == r.start[1].box.ID {
			box = 1
		}
		if _, ok := r.effects[box][ch.ModSeq]; ok {
			r.t.Errorf("modseq %d was given out twice", ch.ModSeq)
		}
		r.effects[box][ch.ModSeq] = e
	}
}

func (r *race) read(box int, stop <-chan struct{}) {
	n := r.start[box]
	for {
		select {
		case <-stop:
			return
		default:
		}
		l, err := r.db.Load(context.WithoutCancel(r.t.Context()), n.box.Account, n.box.ID, n.box.Version)
		if err != nil {
			r.t.Error(err)
			return
		}
		n = apply(n, l)
		r.mu.Lock()
		r.states[box][n.box.ModSeq] = state{box: n.box, slots: n.slots()}
		r.mu.Unlock()
	}
}

// replay makes the mailbox from the commits, in the order of their modseqs.
func (r *race) replay(box int) {
	n := r.start[box]
	version, uidnext, counters := n.box.Version, n.box.UIDNext, n.box.Counters
	slots := map[uint32]metadata.Slot{}
	for modseq := n.box.ModSeq + 1; ; modseq++ {
		e, ok := r.effects[box][modseq]
		if !ok {
			break
		}
		if e.seen != version {
			r.t.Errorf("modseq %d was computed on %+v, before it was %+v", modseq, e.seen, version)
		}
		if e.uidnext != uidnext+e.inserts {
			r.t.Errorf("modseq %d took UIDNEXT from %d to %d with %d messages", modseq, uidnext, e.uidnext, e.inserts)
		}
		version, uidnext, counters = e.after, e.uidnext, counters.Add(e.delta)
		maps.Copy(slots, e.slots)
		if s, ok := r.states[box][modseq]; ok {
			if s.box.Version != version || s.box.UIDNext != uidnext || s.box.Counters != counters {
				r.t.Errorf("at modseq %d a reader held %+v, the replay gives %+v", modseq, s.box, counters)
			}
			if !maps.Equal(s.slots, slots) {
				r.t.Errorf("at modseq %d a reader held other slots than the replay gives", modseq)
			}
		}
	}
	if int(version.ModSeq-n.box.ModSeq) != len(r.effects[box]) {
		r.t.Errorf("modseq %d after %d commits", version.ModSeq, len(r.effects[box]))
	}
	end := load(r.t, r.db, n.box)
	sound(r.t, r.db, end)
	if end.box.Version != version || !maps.Equal(end.slots(), slots) {
		r.t.Errorf("the mailbox ends at %+v, the replay at %+v", end.box.Version, version)
	}
}

// owners counts who owns each object: the rows that were not moved away.
func (r *race) owners() {
	owners := map[metadata.ObjectID]int{}
	var live metadata.Quota
	for _, n := range r.start {
		n = load(r.t, r.db, n.box)
		live.Messages += n.box.Messages
		live.Bytes += n.box.Bytes
		for uid, m := range messages(r.t, r.db, n.box) {
			if n.slot(uid).Flags&metadata.Moved == 0 {
				owners[m.Object]++
			}
		}
	}
	shares := refs(r.t, r.db, r.start[0].box.Account)
	for object, count := range owners {
		if want := max(1, shares[object]); count != want {
			r.t.Errorf("object %x has %d owners, %d refs", object, count, shares[object])
		}
	}
	used, err := r.db.Usage(r.t.Context(), r.start[0].box.Account)
	check(r.t, err)
	if used != live {
		r.t.Errorf("used are %+v, there is %+v", used, live)
	}
}
