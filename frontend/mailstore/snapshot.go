package mailstore

import (
	"iter"
	"slices"
	"sort"
	"strings"

	"starling/metadata"
)

// Snapshot is one state of a mailbox: its row, and the slots of its messages
// in chunks of 128 UIDs. It is immutable, and shares the chunks that a change
// did not touch with the snapshots before it, so that any number of sessions
// may hold one for as long as they like.
//
// A position is a message's place among the live ones, from 0.
type Snapshot struct {
	row    metadata.Mailbox
	chunks []*metadata.Chunk // rising by number; those of which nothing is known are left out
	starts []int32           // starts[i]: live messages before chunks[i]; one more entry for the end
	bytes  int64             // of memory, about
	cause  Cause             // set before anybody else has it
}

// NewSnapshot returns the snapshot that a mailbox's row and chunks make. The chunks
// rise by number; neither they nor row's slices may be changed afterwards.
func NewSnapshot(row metadata.Mailbox, chunks []*metadata.Chunk) *Snapshot {
	return newSnapshot(row, chunks)
}

// What a snapshot costs in memory: for itself, for each of its chunks beside the
// stored form, and for one that is full.
const (
	snapshotBytes  = 512
	chunkBytes     = 64 + 128 // the size of an allocation is rounded up
	fullChunkBytes = chunkBytes + 1 + metadata.ChunkSlots*13
)

func newSnapshot(row metadata.Mailbox, chunks []*metadata.Chunk) *Snapshot {
	s := &Snapshot{row: row, chunks: chunks, starts: make([]int32, len(chunks)+1), bytes: snapshotBytes}
	live := int32(0)
	for i, c := range chunks {
		s.starts[i] = live
		s.bytes += bytesOf(c)
		live += int32(c.Live()) //nolint:gosec // at most 128
	}
	s.starts[len(chunks)] = live
	return s
}

// with returns the snapshot that has row, and changed in place of the chunks
// of the same numbers. changed rises by number. What did not change is copied
// without a look at it: of a large mailbox that is nearly all.
func (s *Snapshot) with(row metadata.Mailbox, changed []*metadata.Chunk) *Snapshot {
	n := len(s.chunks) + len(changed)
	to := &Snapshot{row: row, chunks: make([]*metadata.Chunk, 0, n), starts: make([]int32, 0, n+1), bytes: s.bytes}
	i, more := 0, int32(0) // more live messages than in s so far
	for _, c := range changed {
		j := s.chunkIndex(c.No())
		to.take(s, i, j, more)
		to.starts = append(to.starts, s.starts[j]+more)
		to.chunks = append(to.chunks, c)
		to.bytes += bytesOf(c)
		more += int32(c.Live()) //nolint:gosec // at most 128
		if i = j; j < len(s.chunks) && s.chunks[j].No() == c.No() {
			to.bytes -= bytesOf(s.chunks[j])
			more -= int32(s.chunks[j].Live()) //nolint:gosec // at most 128
			i++
		}
	}
	to.take(s, i, len(s.chunks), more)
	to.starts = append(to.starts, s.starts[len(s.chunks)]+more)
	return to
}

// take appends the chunks i to j-1 of from, before which there are more live messages than there.
func (s *Snapshot) take(from *Snapshot, i, j int, more int32) {
	s.chunks = append(s.chunks, from.chunks[i:j]...)
	if more == 0 {
		s.starts = append(s.starts, from.starts[i:j]...)
		return
	}
	for _, start := range from.starts[i:j] {
		s.starts = append(s.starts, start+more)
	}
}

// bytesOf is what a chunk costs in memory, about.
func bytesOf(c *metadata.Chunk) int64 { return chunkBytes + int64(len(c.Stored())) }

// Mailbox is the mailbox's row as of this snapshot. Its slices must not be changed.
func (s *Snapshot) Mailbox() *metadata.Mailbox { return &s.row }

// Len is how many messages it holds.
func (s *Snapshot) Len() int { return int(s.starts[len(s.chunks)]) }

// chunkIndex is the index of the first chunk whose number is at least no.
func (s *Snapshot) chunkIndex(no int32) int {
	if int(no) < len(s.chunks) && s.chunks[no].No() == no {
		return int(no) // the usual case: no chunk was ever dropped
	}
	return sort.Search(len(s.chunks), func(i int) bool { return s.chunks[i].No() >= no })
}

func (s *Snapshot) chunk(no int32) *metadata.Chunk {
	if i := s.chunkIndex(no); i < len(s.chunks) && s.chunks[i].No() == no {
		return s.chunks[i]
	}
	return nil
}

// Slot is the slot of uid; an empty one (modseq 0) where nothing is known of it.
func (s *Snapshot) Slot(uid uint32) metadata.Slot {
	c := s.chunk(metadata.ChunkOf(uid))
	if c == nil {
		return metadata.Slot{}
	}
	return c.Slot(int(uid - c.First()))
}

// Rank is how many live messages have a UID below uid.
func (s *Snapshot) Rank(uid uint32) int {
	i := s.chunkIndex(metadata.ChunkOf(uid))
	if i == len(s.chunks) {
		return s.Len()
	}
	rank := int(s.starts[i])
	c := s.chunks[i]
	if c.First() > uid {
		return rank
	}
	for j := range int(uid - c.First()) {
		if c.Slot(j).Live() {
			rank++
		}
	}
	return rank
}

// count is how many live messages have their UIDs in ranges.
func (s *Snapshot) count(ranges []metadata.UIDRange) int {
	n := 0
	for _, r := range ranges {
		if r.First <= r.Last {
			n += s.Rank(r.Last) - s.Rank(r.First)
			if s.Slot(r.Last).Live() {
				n++
			}
		}
	}
	return n
}

// UID is the UID at a position, 0 to Len()-1; 0 outside of that.
func (s *Snapshot) UID(position int) uint32 {
	if position < 0 || position >= s.Len() {
		return 0
	}
	i := sort.Search(len(s.chunks), func(i int) bool { return int(s.starts[i+1]) > position })
	c, left := s.chunks[i], position-int(s.starts[i])
	for j := range c.Len() {
		if c.Slot(j).Live() {
			if left == 0 {
				return c.First() + uint32(j) //nolint:gosec // below 128
			}
			left--
		}
	}
	return 0
}

// Last is the greatest UID that a live message has; 0 in an empty mailbox.
func (s *Snapshot) Last() uint32 { return s.UID(s.Len() - 1) }

// Live yields the live messages with first <= UID <= last, rising by UID.
func (s *Snapshot) Live(first, last uint32) iter.Seq2[uint32, metadata.Slot] {
	return s.slots(first, last, metadata.Slot.Live)
}

func (s *Snapshot) slots(first, last uint32, want func(metadata.Slot) bool) iter.Seq2[uint32, metadata.Slot] {
	return func(yield func(uint32, metadata.Slot) bool) {
		for _, c := range s.chunks[s.chunkIndex(metadata.ChunkOf(first)):] {
			if c.First() > last {
				return
			}
			for j := range c.Len() {
				uid := c.First() + uint32(j) //nolint:gosec // below 128
				if uid < first {
					continue
				}
				if uid > last {
					return
				}
				if slot := c.Slot(j); want(slot) && !yield(uid, slot) {
					return
				}
			}
		}
	}
}

// ChangedSince yields the live messages whose modseq is above since. It yields all if
// since was given out by a database that lost commits, or before it did: what they changed is as
// it was before, and its modseqs do not show that. A client may have been told of it by commands that were
// never answered, and then names an older modseq.
func (s *Snapshot) ChangedSince(since int64) iter.Seq2[uint32, metadata.Slot] {
	if s.lost(since) || s.jumped(since) {
		since = 0
	}
	return func(yield func(uint32, metadata.Slot) bool) {
		for _, c := range s.chunks {
			if c.MaxModSeq() <= since {
				continue
			}
			for j := range c.Len() {
				slot := c.Slot(j)
				if slot.Live() && slot.ModSeq > since && !yield(c.First()+uint32(j), slot) { //nolint:gosec // below 128
					return
				}
			}
		}
	}
}

// FirstUnseen is the position of the first message without \Seen, or -1.
func (s *Snapshot) FirstUnseen() int {
	for i, c := range s.chunks {
		if c.Unseen() == 0 {
			continue
		}
		position := int(s.starts[i])
		for j := range c.Len() {
			slot := c.Slot(j)
			if !slot.Live() {
				continue
			}
			if slot.Flags&metadata.Seen == 0 {
				return position
			}
			position++
		}
	}
	return -1
}

// Remembers says whether every expunge after the modseq since is still known
// one by one, and no number of it was given out twice by a database that lost
// commits. Where it is false, a client that knows the mailbox as of since has
// to be told of every UID that is not there (RFC 7162 §3.2.6).
func (s *Snapshot) Remembers(since int64) bool {
	return since >= s.row.Horizon && !s.lost(since)
}

// lost says that a database may have given out modseq for a commit that it lost. Where it jumped from the first
// modseq of an epoch, that may be of a jump that was lost itself, and so from what nobody knows any more.
func (s *Snapshot) lost(modseq int64) bool {
	for _, jump := range s.row.Jumps {
		if (modseq > jump || modseq == jump && jump%epochSpan == 0) && modseq < nextEpoch(jump) {
			return true
		}
	}
	return false
}

// jumped says whether the mailbox was taken into another epoch at since or later.
func (s *Snapshot) jumped(since int64) bool {
	return slices.ContainsFunc(s.row.Jumps, func(jump int64) bool { return jump >= since })
}

// epochSpan is the distance between the modseqs of two epochs.
const epochSpan = 1 << 28

func nextEpoch(modseq int64) int64 { return (modseq/epochSpan + 1) * epochSpan }

// VanishedSince yields, rising, the ranges of UIDs in [first, last] that are
// gone and that a client who knows the mailbox as of modseq since may not have
// heard of (RFC 7162 §3.2.10.1).
func (s *Snapshot) VanishedSince(since int64, first, last uint32) iter.Seq[metadata.UIDRange] {
	last = min(last, uint32(s.row.UIDNext-1)) //nolint:gosec // UIDNEXT fits 32 bits
	switch {
	case !s.Remembers(since):
		return s.except(first, last, metadata.Slot.Live)
	case s.jumped(since):
		// A client may have been told of messages that were lost by commands that were
		// never answered, which the modseq that it names does not show. Their UIDs are
		// among those that no slot is kept of.
		return s.except(first, last, func(slot metadata.Slot) bool {
			return slot.Live() || slot.ModSeq <= since && slot.Flags&metadata.Expunged != 0
		})
	}
	return func(yield func(metadata.UIDRange) bool) {
		var run metadata.UIDRange
		gone := func(slot metadata.Slot) bool {
			return slot.ModSeq > since && slot.Flags&metadata.Expunged != 0
		}
		for uid := range s.slots(first, last, gone) {
			if run.Last != 0 && run.Last+1 == uid {
				run.Last = uid
				continue
			}
			if run.Last != 0 && !yield(run) {
				return
			}
			run = metadata.UIDRange{First: uid, Last: uid}
		}
		if run.Last != 0 {
			yield(run)
		}
	}
}

// except yields the ranges of UIDs in [first, last] that have no slot of which there is true.
func (s *Snapshot) except(first, last uint32, there func(metadata.Slot) bool) iter.Seq[metadata.UIDRange] {
	return func(yield func(metadata.UIDRange) bool) {
		next := max(first, 1)
		for uid := range s.slots(next, last, there) {
			if uid > next && !yield(metadata.UIDRange{First: next, Last: uid - 1}) {
				return
			}
			next = uid + 1
		}
		if next <= last {
			yield(metadata.UIDRange{First: next, Last: last})
		}
	}
}

// KeywordBit is the bit of the keyword name, compared without case; 0 if the
// mailbox does not have it.
func (s *Snapshot) KeywordBit(name string) metadata.Flags {
	return keywordBit(s.row.Keywords, name)
}

func keywordBit(keywords []string, name string) metadata.Flags {
	for i, k := range keywords {
		if k != "" && strings.EqualFold(k, name) {
			return metadata.Keyword(i)
		}
	}
	return 0
}
