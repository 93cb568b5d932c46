package imap

import (
	"time"

	"starling/metadata"
)

// keptFor is how long the body of a message that is read in slices stays open
// for the next slice.
const keptFor = 30 * time.Second

// kept is a message that the client reads in slices (RFC 9051 §6.4.5, partial), one
// command after the other: its body has read ahead, and needs no row again. A
// message never changes, so it stays good.
type kept struct {
	m      *fetched
	row    fetchRow
	has    metadata.Columns
	closer *time.Timer // gives back what the body holds if no slice is asked for in time
}

// keep keeps m for the next slice if this one was a slice of a single message. It
// reports whether it did.
func (f *fetch) keep(m *fetched) bool {
	if !f.partial || len(f.rows) != 1 || m.body == nil || m.err != nil {
		return false
	}
	v := f.s.view
	v.dropKept()
	k := &kept{m: m, row: *m.fetchRow, has: f.needs, closer: time.AfterFunc(keptFor, m.closeBody)}
	m.fetchRow = &k.row
	v.kept = k
	return true
}

// resume takes the row of the batch's only message from what was kept, and
// reports whether it could.
func (f *fetch) resume() bool {
	k := f.s.view.kept
	if k == nil || len(f.rows) != 1 || f.rows[0].uid != k.row.uid || f.needs&^k.has != 0 {
		return false
	}
	r := &f.rows[0]
	r.row, r.found = k.row.row, true
	return true
}

// takeKept is the message that was kept, if row is the one that resume filled.
func (f *fetch) takeKept(row *fetchRow) *fetched {
	v := f.s.view
	k := v.kept
	if k == nil || len(f.rows) != 1 || !row.found || row.uid != k.row.uid || f.needs&^k.has != 0 {
		return nil
	}
	v.kept = nil
	if !k.closer.Stop() {
		return nil // its body is closed already
	}
	return k.m
}

func (v *view) dropKept() {
	if v.kept != nil {
		if v.kept.closer.Stop() {
			v.kept.m.giveBack()
		}
		v.kept = nil
	}
}
