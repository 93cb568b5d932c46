package mailstore

import "starling/metadata"

// Change is a message that is live in two snapshots, with another slot.
type Change struct {
	UID      uint32
	Old, New metadata.Slot
}

// Gone is a message that is live in the first of two snapshots only, with the
// last slot it had there.
type Gone struct {
	UID  uint32
	Last metadata.Slot
}

// Difference is what brings a reader from one snapshot to another. A message
// that came and went in between is not in it. It holds the snapshots, and no list of what differs: many sessions
// may have one of a large mailbox at the same time, and take as long as their clients do to read it.
type Difference struct {
	from, to *Snapshot

	Gone    int // how many messages are live in the former only
	Changed int // how many are live in both, with other flags or another modseq
	Arrived int // how many are live in the later one only
	// First and Last are the least and the greatest UID of those that arrived; 0 if none did.
	First, Last uint32
	// Undone says that the later one is of a database that lost commits of the former: a message
	// that was gone is there again, or one has a lower modseq than it had. No client can be told that.
	Undone bool
}

// Diff compares two snapshots of one mailbox. Chunks that both share cost
// nothing.
func Diff(from, to *Snapshot) Difference {
	d := Difference{from: from, to: to}
	d.each(func(uid uint32, old, now metadata.Slot) bool {
		switch {
		case old.Live() && now.Live():
			d.Changed++
			d.Undone = d.Undone || now.ModSeq < old.ModSeq
		case old.Live():
			d.Gone++
		case now.Live():
			if d.Arrived == 0 {
				d.First = uid
				d.Undone = d.Undone || int64(uid) < from.row.UIDNext
			}
			d.Arrived++
			d.Last = uid
		}
		return true
	})
	return d
}

// EachGone yields the messages that are gone, rising by UID.
func (d *Difference) EachGone(yield func(Gone) bool) {
	if d.Gone == 0 {
		return
	}
	d.each(func(uid uint32, old, now metadata.Slot) bool {
		return !old.Live() || now.Live() || yield(Gone{UID: uid, Last: old})
	})
}

// EachChanged yields the messages that have another slot, rising by UID.
func (d *Difference) EachChanged(yield func(Change) bool) {
	if d.Changed == 0 {
		return
	}
	d.each(func(uid uint32, old, now metadata.Slot) bool {
		return !old.Live() || !now.Live() || yield(Change{UID: uid, Old: old, New: now})
	})
}

// each yields the slots that differ, rising by UID.
func (d *Difference) each(yield func(uid uint32, old, now metadata.Slot) bool) {
	from, to := d.from.chunks, d.to.chunks
	for len(from) > 0 || len(to) > 0 {
		var old, now *metadata.Chunk
		if len(from) > 0 && (len(to) == 0 || from[0].No() <= to[0].No()) {
			old = from[0]
		}
		if len(to) > 0 && (len(from) == 0 || to[0].No() <= from[0].No()) {
			now = to[0]
		}
		if old != nil {
			from = from[1:]
		}
		if now != nil {
			to = to[1:]
		}
		if old != now && !compare(old, now, yield) {
			return
		}
	}
}

// compare compares two images of one chunk, of which one may be absent.
func compare(from, to *metadata.Chunk, yield func(uid uint32, old, now metadata.Slot) bool) bool {
	var first uint32
	n := 0
	if from != nil {
		first, n = from.First(), from.Len()
	}
	if to != nil {
		first, n = to.First(), max(n, to.Len())
	}
	for i := range n {
		var old, now metadata.Slot
		if from != nil {
			old = from.Slot(i)
		}
		if to != nil {
			now = to.Slot(i)
		}
		if old != now && !yield(first+uint32(i), old, now) { //nolint:gosec // below 128
			return false
		}
	}
	return true
}
