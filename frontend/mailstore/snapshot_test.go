package mailstore

import (
	"math/rand/v2"
	"slices"
	"testing"

	"starling/metadata"
)

// model is a mailbox kept the simple way, to compare snapshots with.
type model struct {
	slots []metadata.Slot // by UID; 0 is no UID
}

func (m *model) snapshot(base *Snapshot, modseq int64) *Snapshot {
	row := metadata.Mailbox{UIDNext: int64(len(m.slots)), Version: metadata.Version{ModSeq: modseq}}
	var chunks []*metadata.Chunk
	for first := 0; first < len(m.slots); first += metadata.ChunkSlots {
		no := int32(first / metadata.ChunkSlots) //nolint:gosec // small
		e := metadata.NewEdit(no)
		same := base != nil && base.chunk(no) != nil
		for i := range min(metadata.ChunkSlots, len(m.slots)-first) {
			e.Set(i, m.slots[first+i])
			same = same && base.chunk(no).Slot(i) == m.slots[first+i]
		}
		if same {
			chunks = append(chunks, base.chunk(no))
			continue
		}
		chunks = append(chunks, e.Chunk())
	}
	return newSnapshot(row, chunks)
}

func (m *model) live() []uint32 {
	var uids []uint32
	for uid, s := range m.slots {
		if s.Live() {
			uids = append(uids, uint32(uid)) //nolint:gosec // small
		}
	}
	return uids
}

func (m *model) change(r *rand.Rand, modseq int64) {
	switch uid := r.IntN(len(m.slots)); r.IntN(3) {
	case 0:
		m.slots = append(m.slots, metadata.Slot{Flags: metadata.Flags(r.IntN(32)), ModSeq: modseq})
	case 1:
		if m.slots[uid].Live() {
			m.slots[uid].Flags |= metadata.Expunged
			m.slots[uid].ModSeq = modseq
		}
	default:
		if m.slots[uid].Live() {
			m.slots[uid].Flags ^= metadata.Seen
			m.slots[uid].ModSeq = modseq
		}
	}
}

func TestSnapshotAgreesWithModel(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test
	m := &model{slots: make([]metadata.Slot, 1, 1000)}
	snap := m.snapshot(nil, 1)
	for modseq := int64(2); modseq < 3000; modseq++ {
		m.change(r, modseq)
		if modseq%97 != 0 {
			continue
		}
		next := m.snapshot(snap, modseq)
		checkNumbers(t, m, next)
		checkDiff(t, snap, next)
		snap = next
	}
}

// checkNumbers compares positions, ranks and slots.
func checkNumbers(t *testing.T, m *model, s *Snapshot) {
	t.Helper()
	live := m.live()
	if s.Len() != len(live) {
		t.Fatalf("Len is %d, want %d", s.Len(), len(live))
	}
	for i, uid := range live {
		if got := s.UID(i); got != uid {
			t.Fatalf("UID(%d) is %d, want %d", i, got, uid)
		}
		if got := s.Rank(uid); got != i {
			t.Fatalf("Rank(%d) is %d, want %d", uid, got, i)
		}
		if got := s.Slot(uid); got != m.slots[uid] {
			t.Fatalf("Slot(%d) is %v, want %v", uid, got, m.slots[uid])
		}
	}
	var got []uint32
	for uid := range s.Live(0, 1<<31) {
		got = append(got, uid)
	}
	if !slices.Equal(got, live) {
		t.Fatalf("Live is %v, want %v", got, live)
	}
	unseen := slices.IndexFunc(live, func(uid uint32) bool { return m.slots[uid].Flags&metadata.Seen == 0 })
	if s.FirstUnseen() != unseen {
		t.Fatalf("FirstUnseen is %d, want %d", s.FirstUnseen(), unseen)
	}
}

// checkDiff compares Diff with a comparison of all slots.
func checkDiff(t *testing.T, from, to *Snapshot) {
	t.Helper()
	var gone []Gone
	var changed []Change
	var arrived []uint32
	for uid := uint32(1); int64(uid) < to.row.UIDNext; uid++ {
		old, now := from.Slot(uid), to.Slot(uid)
		switch {
		case old.Live() && !now.Live():
			gone = append(gone, Gone{uid, old})
		case !old.Live() && now.Live():
			arrived = append(arrived, uid)
		case old.Live() && old != now:
			changed = append(changed, Change{uid, old, now})
		}
	}
	d := Diff(from, to)
	if got := slices.Collect(d.EachGone); !slices.Equal(got, gone) || d.Gone != len(gone) {
		t.Fatalf("gone are %d, %v, want %v", d.Gone, got, gone)
	}
	if got := slices.Collect(d.EachChanged); !slices.Equal(got, changed) || d.Changed != len(changed) {
		t.Fatalf("changed are %d, %v, want %v", d.Changed, got, changed)
	}
	ends := []uint32{0, 0}
	if n := len(arrived); n > 0 {
		ends = []uint32{arrived[0], arrived[n-1]}
	}
	if d.Arrived != len(arrived) || d.First != ends[0] || d.Last != ends[1] {
		t.Fatalf("%d arrived, %d to %d, want %v", d.Arrived, d.First, d.Last, arrived)
	}
}

// What differs is not held, however much it is.
func TestDiffOfSharedChunksCostsNothing(t *testing.T) {
	m := &model{slots: make([]metadata.Slot, 100_000)}
	for uid := 1; uid < len(m.slots); uid++ {
		m.slots[uid] = metadata.Slot{ModSeq: 1}
	}
	from := m.snapshot(nil, 1)
	m.slots[77_777].Flags = metadata.Seen
	to := m.snapshot(from, 2)
	allocs := testing.AllocsPerRun(10, func() {
		if d := Diff(from, to); d.Changed != 1 {
			t.Fatal("want one change")
		}
	})
	if allocs > 0 {
		t.Errorf("%v allocations, want none", allocs)
	}
	for uid := range m.slots[1:] {
		m.slots[1+uid].Flags = metadata.Expunged * metadata.Flags(uid&1)
		m.slots[1+uid].ModSeq = 3
	}
	to = m.snapshot(nil, 3)
	allocs = testing.AllocsPerRun(10, func() {
		d, n := Diff(from, to), 0
		for range d.EachGone {
			n++
		}
		for range d.EachChanged {
			n++
		}
		if n != len(m.slots)-1 {
			t.Fatalf("%d differ", n)
		}
	})
	if allocs > 2 { // under the race detector functions are allocated; a list would be grown some twenty times
		t.Errorf("%v allocations for a whole mailbox, as if they were listed", allocs)
	}
}

func TestVanishedSince(t *testing.T) {
	t.Parallel()
	m := &model{slots: make([]metadata.Slot, 11)}
	for uid := 1; uid <= 10; uid++ {
		m.slots[uid] = metadata.Slot{ModSeq: int64(uid)}
	}
	m.slots[2] = metadata.Slot{ModSeq: 11, Flags: metadata.Expunged}
	m.slots[5] = metadata.Slot{ModSeq: 12, Flags: metadata.Expunged}
	m.slots[6] = metadata.Slot{ModSeq: 13, Flags: metadata.Expunged}
	s := m.snapshot(nil, 13)
	for _, c := range []struct {
		horizon, since int64
		first, last    uint32
		want           []metadata.UIDRange
	}{
		{0, 10, 1, 10, []metadata.UIDRange{{First: 2, Last: 2}, {First: 5, Last: 6}}},
		{0, 11, 1, 10, []metadata.UIDRange{{First: 5, Last: 6}}},
		{0, 11, 6, 1000, []metadata.UIDRange{{First: 6, Last: 6}}},
		{0, 13, 1, 10, nil},
		{12, 11, 1, 1000, []metadata.UIDRange{{First: 2, Last: 2}, {First: 5, Last: 6}}}, // below the horizon: all that is not there
		{12, 11, 6, 6, []metadata.UIDRange{{First: 6, Last: 6}}},
	} {
		s.row.Horizon = c.horizon
		got := slices.Collect(s.VanishedSince(c.since, c.first, c.last))
		if !slices.Equal(got, c.want) {
			t.Errorf("since %d in %d:%d with horizon %d: %v, want %v", c.since, c.first, c.last, c.horizon, got, c.want)
		}
	}
}

// A modseq of a commit that was lost proves nothing: all is told again. With one of before so are all flags, and that
// the numbers that were lost are gone: who names it may have been told of more.
func TestSinceALostCommit(t *testing.T) {
	t.Parallel()
	m := &model{slots: make([]metadata.Slot, 9)}
	for uid := 1; uid <= 4; uid++ {
		m.slots[uid] = metadata.Slot{ModSeq: int64(uid)}
	}
	m.slots[2].Flags = metadata.Expunged
	m.slots[4] = metadata.Slot{} // 4 to 6 are passed over
	m.slots[7].ModSeq = epochSpan + 1
	m.slots[8] = metadata.Slot{ModSeq: epochSpan + 2, Flags: metadata.Expunged}
	s := m.snapshot(nil, epochSpan+2)
	s.row.Jumps = []int64{3}
	for _, c := range []struct {
		since   int64
		changed []uint32
		gone    []metadata.UIDRange
	}{
		{1, []uint32{1, 3, 7}, []metadata.UIDRange{{First: 2, Last: 2}, {First: 4, Last: 6}, {First: 8, Last: 8}}},
		{3, []uint32{1, 3, 7}, []metadata.UIDRange{{First: 4, Last: 6}, {First: 8, Last: 8}}},
		{4, []uint32{1, 3, 7}, []metadata.UIDRange{{First: 2, Last: 2}, {First: 4, Last: 6}, {First: 8, Last: 8}}},
		{epochSpan - 1, []uint32{1, 3, 7}, []metadata.UIDRange{{First: 2, Last: 2}, {First: 4, Last: 6}, {First: 8, Last: 8}}},
		{epochSpan, []uint32{7}, []metadata.UIDRange{{First: 8, Last: 8}}},
	} {
		var changed []uint32
		for uid := range s.ChangedSince(c.since) {
			changed = append(changed, uid)
		}
		gone := slices.Collect(s.VanishedSince(c.since, 1, 8))
		if !slices.Equal(changed, c.changed) || !slices.Equal(gone, c.gone) {
			t.Errorf("since %d: changed %v, gone %v; want %v, %v", c.since, changed, gone, c.changed, c.gone)
		}
		view := *s
		op := &storeOp{StoreFlags: StoreFlags{View: &view, UnchangedSince: &c.since}}
		passes := op.passes(&build{base: s}, 1, s.Slot(1), 0)
		if passes != (c.since <= 3 || len(c.changed) == 1) {
			t.Errorf("since %d: UNCHANGEDSINCE passes %v", c.since, passes)
		}
	}
}

// Of two failovers in a row the second lost the jump that the first had made: who was told of no more than that jump
// knows of commits that are lost.
func TestSinceALostJump(t *testing.T) {
	t.Parallel()
	m := &model{slots: make([]metadata.Slot, 4)}
	for uid := 1; uid <= 3; uid++ {
		m.slots[uid] = metadata.Slot{ModSeq: int64(uid)}
	}
	s := m.snapshot(nil, 2*epochSpan)
	s.row.Jumps, s.row.UIDNext = []int64{3, epochSpan}, 7
	for _, since := range []int64{epochSpan, epochSpan + 1} {
		changed := 0
		for range s.ChangedSince(since) {
			changed++
		}
		gone := slices.Collect(s.VanishedSince(since, 1, 6))
		op := &storeOp{StoreFlags: StoreFlags{View: s, UnchangedSince: &since}}
		if passes := op.passes(&build{base: s}, 1, s.Slot(1), 0); changed != 3 || !slices.Equal(gone, []metadata.UIDRange{{First: 4, Last: 6}}) || passes {
			t.Errorf("since %d: %d changed, %v gone, UNCHANGEDSINCE passes %t", since, changed, gone, passes)
		}
	}
	now := int64(2 * epochSpan)
	for range s.ChangedSince(now) {
		t.Error("who knows of the last jump is told of a change")
	}
}

// A snapshot made of another and some chunks is that made of all chunks: whether they
// replace others, or come before, between and behind them.
func TestSnapshotWith(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // a test
	chunk := func(no int32) *metadata.Chunk {
		e := metadata.NewEdit(no)
		for i := range r.IntN(metadata.ChunkSlots) {
			e.Set(i, metadata.Slot{Flags: metadata.Flags(r.IntN(64)), ModSeq: 1})
		}
		return e.Chunk()
	}
	for range 500 {
		all := make([]*metadata.Chunk, 12)
		var before, changed []*metadata.Chunk
		for no := range int32(12) {
			if r.IntN(3) > 0 {
				all[no] = chunk(no)
				before = append(before, all[no])
			}
			if r.IntN(3) == 0 {
				all[no] = chunk(no)
				changed = append(changed, all[no])
			}
		}
		all = slices.DeleteFunc(all, func(c *metadata.Chunk) bool { return c == nil })
		row := metadata.Mailbox{UIDNext: 7}
		got, want := newSnapshot(metadata.Mailbox{}, before).with(row, changed), newSnapshot(row, all)
		if !slices.Equal(got.chunks, want.chunks) || !slices.Equal(got.starts, want.starts) || got.bytes != want.bytes || got.row.UIDNext != 7 {
			t.Fatalf("starts %v, %d bytes\nwant   %v, %d", got.starts, got.bytes, want.starts, want.bytes)
		}
	}
}
