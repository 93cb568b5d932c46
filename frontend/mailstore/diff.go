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
// that came and went in between is not in it.
type Difference struct {
	Gone    []Gone   // rising by UID
	Changed []Change // rising by UID; flags or modseq differ
	Arrived []uint32 // rising; live in the later one only
	// Undone says that the later one is of a database that lost commits of the former: a message
	// that was gone is there again, or one has a lower modseq than it had. No client can be told that.
	Undone bool
}

// Empty says that no message differs.
func (d *Difference) Empty() bool {
	return len(d.Gone) == 0 && len(d.Changed) == 0 && len(d.Arrived) == 0
}

// Diff compares two snapshots of one mailbox. Chunks that both share cost
// nothing.
func Diff(from, to *Snapshot) Difference {
	var d Difference
	if from == to {
		return d
	}
	i, j := 0, 0
	for i < len(from.chunks) || j < len(to.chunks) {
		switch {
		case j == len(to.chunks) || i < len(from.chunks) && from.chunks[i].No() < to.chunks[j].No():
			d.chunk(from.chunks[i], nil)
			i++
		case i == len(from.chunks) || to.chunks[j].No() < from.chunks[i].No():
			d.chunk(nil, to.chunks[j])
			j++
		default:
			if from.chunks[i] != to.chunks[j] {
				d.chunk(from.chunks[i], to.chunks[j])
			}
			i++
			j++
		}
	}
	d.Undone = d.Undone || len(d.Arrived) > 0 && int64(d.Arrived[0]) < from.row.UIDNext
	return d
}

// chunk compares two images of one chunk, of which one may be absent.
func (d *Difference) chunk(from, to *metadata.Chunk) {
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
		if old == now {
			continue
		}
		uid := first + uint32(i) //nolint:gosec // below 128
		switch {
		case old.Live() && now.Live():
			d.Changed = append(d.Changed, Change{UID: uid, Old: old, New: now})
			d.Undone = d.Undone || now.ModSeq < old.ModSeq
		case old.Live():
			d.Gone = append(d.Gone, Gone{UID: uid, Last: old})
		case now.Live():
			d.Arrived = append(d.Arrived, uid)
		}
	}
}
