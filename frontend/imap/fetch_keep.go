package imap

import (
	"maps"
	"slices"
	"sync"
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
	m     *fetched
	row   fetchRow
	has   metadata.Columns
	on    *shelf
	of    metadata.AccountID
	timer *time.Timer // gives back what the body holds if no slice is asked for in time
}

// shelf has the messages that are kept. Who takes one from it has its body: the session that goes on
// with it, or who gives back what it holds.
type shelf struct {
	mu   sync.Mutex
	kept map[*kept]struct{}
}

func (sh *shelf) put(k *kept) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.kept == nil {
		sh.kept = make(map[*kept]struct{})
	}
	sh.kept[k] = struct{}{}
	k.timer = time.AfterFunc(keptFor, func() { sh.drop(k) })
}

// take reports whether k was still there.
func (sh *shelf) take(k *kept) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	_, there := sh.kept[k]
	delete(sh.kept, k)
	k.timer.Stop()
	return there
}

// drop gives back what k holds, if nobody has taken it.
func (sh *shelf) drop(k *kept) {
	if sh.take(k) {
		k.m.closeBody()
	}
}

// clear drops all, or if of is not 0 those of that account.
func (sh *shelf) clear(of metadata.AccountID) {
	sh.mu.Lock()
	all := slices.Collect(maps.Keys(sh.kept))
	sh.mu.Unlock()
	for _, k := range all {
		if of == 0 || of == k.of {
			sh.drop(k)
		}
	}
}

// keep keeps m for the next slice if this one was a slice of a single message, unless somebody waits for
// the memory that it holds. It reports whether it did.
func (f *fetch) keep(m *fetched) bool {
	if !f.partial || len(f.rows) != 1 || m.body == nil || m.err != nil {
		return false
	}
	v, on := f.s.view, &f.s.server.shelf
	v.dropKept()
	k := &kept{m: m, row: *m.fetchRow, has: f.needs, on: on, of: f.s.account.Row().ID}
	m.fetchRow = &k.row
	on.put(k)
	// Who begins to wait after this clears the shelf, and so finds it there.
	if f.s.account.ReadIsWaitedFor() {
		on.drop(k)
		return true
	}
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
	if !k.on.take(k) {
		return nil // its body is closed already
	}
	return k.m
}

func (v *view) dropKept() {
	if v.kept != nil {
		if v.kept.on.take(v.kept) {
			v.kept.m.giveBack()
		}
		v.kept = nil
	}
}
