package imap

import (
	"iter"
	"slices"
	"sort"

	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// numbering is how a command names messages.
type numbering uint8

const (
	bySeq numbering = iota
	byUID
)

// ghost is a message that is expunged in the view's snapshot, and of which the
// client has not been told: it keeps its number and its last slot.
type ghost struct {
	uid  uint32
	slot metadata.Slot
}

// view is a selected mailbox as one client knows it: a snapshot, and the ghosts
// that stand among its messages. A sequence number counts both.
type view struct {
	mailbox  *mailstore.Mailbox
	name     string
	readOnly bool
	snap     *mailstore.Snapshot
	ghosts   []ghost  // rising by UID
	keywords []string // those that FLAGS has named, as they stand in the mailbox's row
	recent   recent
	saved    imapwire.NumSet // what "$" stands for: UIDs (RFC 5182 §2.1)
	kept     *kept           // the message that is read in slices, if one is
}

// exists is how many messages the client believes there are.
func (v *view) exists() uint32 { return uint32(v.snap.Len() + len(v.ghosts)) } //nolint:gosec // a mailbox has fewer than 2^32 messages

// highest is the greatest UID in the view, 0 in an empty one.
func (v *view) highest() uint32 {
	last := v.snap.Last()
	if n := len(v.ghosts); n > 0 {
		last = max(last, v.ghosts[n-1].uid)
	}
	return last
}

// ghostsBelow is how many ghosts have a UID below uid, and whether the next is uid itself.
func (v *view) ghostsBelow(uid uint32) (int, bool) {
	return slices.BinarySearchFunc(v.ghosts, uid, func(g ghost, uid uint32) int {
		return int(int64(g.uid) - int64(uid))
	})
}

// slot is the message's slot as the view has it; ok is false for a UID that the
// client does not know.
func (v *view) slot(uid uint32) (slot metadata.Slot, isGhost, ok bool) {
	if s := v.snap.Slot(uid); s.Live() {
		return s, false, true
	}
	if i, found := v.ghostsBelow(uid); found {
		return v.ghosts[i].slot, true, true
	}
	return metadata.Slot{}, false, false
}

// seq is the sequence number that uid has, or would have.
func (v *view) seq(uid uint32) uint32 {
	n, _ := v.ghostsBelow(uid)
	return uint32(v.snap.Rank(uid)+n) + 1 //nolint:gosec // as in exists
}

// uid is the UID of the message with a sequence number from 1 to exists().
func (v *view) uid(seq uint32) uint32 {
	if len(v.ghosts) == 0 {
		return v.snap.UID(int(seq) - 1)
	}
	k := sort.Search(len(v.ghosts), func(i int) bool { return v.seq(v.ghosts[i].uid) >= seq })
	if k < len(v.ghosts) && v.seq(v.ghosts[k].uid) == seq {
		return v.ghosts[k].uid
	}
	return v.snap.UID(int(seq) - 1 - k)
}

// message is one message of the view.
type message struct {
	seq, uid uint32
	slot     metadata.Slot
	ghost    bool
}

// messages yields the messages whose UIDs are in ranges, which rise.
func (v *view) messages(ranges []metadata.UIDRange) iter.Seq[message] {
	return func(yield func(message) bool) {
		for _, r := range ranges {
			if !v.run(r, yield) {
				return
			}
		}
	}
}

// run yields the messages of one range, merging live ones and ghosts.
func (v *view) run(r metadata.UIDRange, yield func(message) bool) bool {
	g, _ := v.ghostsBelow(r.First)
	seq := uint32(v.snap.Rank(r.First)+g) + 1 //nolint:gosec // as in exists
	next := func(uid uint32, slot metadata.Slot, isGhost bool) bool {
		ok := yield(message{seq: seq, uid: uid, slot: slot, ghost: isGhost})
		seq++
		return ok
	}
	for uid, slot := range v.snap.Live(r.First, r.Last) {
		for g < len(v.ghosts) && v.ghosts[g].uid < uid {
			if !next(v.ghosts[g].uid, v.ghosts[g].slot, true) {
				return false
			}
			g++
		}
		if !next(uid, slot, false) {
			return false
		}
	}
	for g < len(v.ghosts) && v.ghosts[g].uid <= r.Last {
		if !next(v.ghosts[g].uid, v.ghosts[g].slot, true) {
			return false
		}
		g++
	}
	return true
}

// ranges turns what a client names into UIDs of the view. A sequence number that
// no message has is an error (RFC 9051 §9, seq-number); a UID that none has is
// passed over.
func (v *view) ranges(set imapwire.NumSet, by numbering) ([]metadata.UIDRange, error) {
	var out []metadata.UIDRange
	if by == bySeq {
		if set.Highest() > v.exists() || set.Star() && v.exists() == 0 {
			return nil, badf("no message has such a number: there are %d", v.exists())
		}
		for _, r := range set.Resolve(v.exists()).Ranges() {
			out = append(out, metadata.UIDRange{First: v.uid(r.Lo), Last: v.uid(r.Hi)})
		}
	} else {
		// A range that reaches past the last UID means the last message
		// too where "*" is in it; Resolve sees to that.
		for _, r := range set.Resolve(v.highest()).Ranges() {
			out = append(out, metadata.UIDRange{First: r.Lo, Last: r.Hi})
		}
	}
	if set.Saved {
		out = append(out, v.savedRanges()...)
		slices.SortFunc(out, func(a, b metadata.UIDRange) int { return int(int64(a.First) - int64(b.First)) })
		out = mergeRanges(out)
	}
	return out, nil
}

func (v *view) savedRanges() []metadata.UIDRange {
	ranges := v.saved.Ranges()
	out := make([]metadata.UIDRange, len(ranges))
	for i, r := range ranges {
		out[i] = metadata.UIDRange{First: r.Lo, Last: r.Hi}
	}
	return out
}

// mergeRanges joins ranges that overlap; they rise by their first UID.
func mergeRanges(ranges []metadata.UIDRange) []metadata.UIDRange {
	out := ranges[:0]
	for _, r := range ranges {
		if n := len(out); n > 0 && r.First <= out[n-1].Last {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// hasGhost says whether a ghost is among the messages of ranges.
func (v *view) hasGhost(ranges []metadata.UIDRange) bool {
	for _, r := range ranges {
		if i, _ := v.ghostsBelow(r.First); i < len(v.ghosts) && v.ghosts[i].uid <= r.Last {
			return true
		}
	}
	return false
}

// recent is the UIDs that this session may call \Recent (RFC 3501 §2.3.2): ranges,
// never a bit, because no other session sees them.
type recent struct {
	ranges []metadata.UIDRange // rising
}

func (r *recent) add(first, last uint32) {
	if first > last {
		return
	}
	if n := len(r.ranges); n > 0 && r.ranges[n-1].Last+1 == first {
		r.ranges[n-1].Last = last
		return
	}
	r.ranges = append(r.ranges, metadata.UIDRange{First: first, Last: last})
}

func (r *recent) contains(uid uint32) bool {
	return len(r.ranges) > 0 && named(r.ranges, uid)
}

// count is how many messages of the view are recent.
func (r *recent) count(v *view) uint32 {
	var n uint32
	for _, x := range r.ranges {
		n += v.seq(x.Last) - v.seq(x.First)
		if _, _, ok := v.slot(x.Last); ok {
			n++
		}
	}
	return n
}
