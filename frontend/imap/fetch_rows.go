package imap

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"starling/blobstore"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// Rows are read in batches, wholly, before the first of them is answered: a
// client that reads slowly must not hold a connection to PostgreSQL.
const (
	batchRows  = 512     // rows of a batch
	batchMarks = 128     // the same where each may have to be marked as seen
	batchBytes = 1 << 20 // octets of summaries after which a batch ends early

	// A batch has batchFew rows where there is no memory for more; each row counts for
	// rowCost octets until it is known what they hold.
	batchFew = 64
	rowCost  = 1280
	rowSize  = 256 // of which are the row itself
)

// fetchRow is a message of a batch: what the view knows of it, and its row.
type fetchRow struct {
	seq, uid uint32
	slot     metadata.Slot
	ghost    bool
	found    bool // row was read
	changed  bool // the command changed slot, and has not told so yet
	row      metadata.Message
}

// rowBatch is messages whose rows are read together.
type rowBatch struct {
	rows  []fetchRow
	taken int                 // how many of rows have been met by what was read
	uids  []uint32            // of rows
	held  int64               // octets of the extents and summaries of rows
	rest  []metadata.UIDRange // what comes after the batch
}

// fromRows answers what needs the messages' rows, a batch at a time.
func (f *fetch) fromRows(ctx context.Context, uids []metadata.UIDRange) {
	if err := f.s.account.ReserveRows(ctx, batchFew*rowCost); err != nil {
		f.failure = fmt.Errorf("read rows: %w", err)
		return
	}
	f.reserved = batchFew * rowCost
	defer func() { f.s.account.AdjustRows(-f.reserved) }()
	f.gather(&f.rowBatch, uids)
	var err error
	if f.resume() {
		f.rest = nil
	} else {
		err = f.read(ctx, &f.rowBatch)
	}
	for err == nil && len(f.rows) > 0 {
		f.charge()
		read := f.readAhead(ctx)
		f.answerBatch(ctx)
		err = read(f.s.enc.Err() == nil)
	}
	if ctx.Err() != nil {
		err = errCut
	}
	if err != nil {
		f.failure = fmt.Errorf("read rows: %w", err)
	}
}

// readAhead begins to read the next batch while this one is answered, if there is memory for
// both: unpacking rows takes as long as answering them. Not where messages may be marked as seen,
// by which the view changes. What it returns is called when the batch is answered, and makes the
// next one the batch; without on it only ends what is under way.
func (f *fetch) readAhead(ctx context.Context) func(on bool) error {
	next := &f.other
	turn := func() { f.rowBatch, f.other = f.other, f.rowBatch }
	if len(f.rest) == 0 || f.marks || !f.reserve(f.reserved+batchRows*rowCost) {
		f.other = rowBatch{} // there is no memory for two
		return func(on bool) error {
			f.rows = f.rows[:0]
			if on {
				f.gather(&f.rowBatch, f.rest)
			}
			return f.read(ctx, &f.rowBatch)
		}
	}
	f.gather(next, f.rest)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- f.s.guard("read rows ahead", func() error { return f.read(ctx, next) })
	}()
	return func(on bool) error {
		if !on {
			cancel()
		}
		err := <-done
		cancel()
		turn()
		if !on {
			f.rows, err = f.rows[:0], nil
		}
		return err
	}
}

// errEnough ends reading when a batch has become large.
var errEnough = errors.New("enough was read")

// gather makes b the first of the messages with the given UIDs.
func (f *fetch) gather(b *rowBatch, uids []metadata.UIDRange) {
	most := batchRows
	if f.marks {
		most = batchMarks
	}
	b.rows, b.uids, b.held, b.taken, b.rest = b.rows[:0], b.uids[:0], 0, 0, uids
	for m := range f.s.view.messages(uids) {
		if len(b.rows) == most || len(b.rows) == batchFew && !f.reserve(int64(most)*rowCost) {
			break
		}
		if len(b.rows) == batchFew {
			b.rows, b.uids = slices.Grow(b.rows, most-batchFew), slices.Grow(b.uids, most-batchFew)
		}
		b.rows = append(b.rows, fetchRow{seq: m.seq, uid: m.uid, slot: m.slot, ghost: m.ghost})
		b.uids = append(b.uids, m.uid)
	}
}

// read reads the rows of b, which may become shorter by it.
func (f *fetch) read(ctx context.Context, b *rowBatch) error {
	if len(b.rows) == 0 {
		return nil
	}
	err := f.s.view.mailbox.Rows(ctx, b.uids, f.needs, true, b.take)
	if errors.Is(err, errEnough) {
		b.rows, err = b.rows[:b.taken], nil
	}
	b.rest = after(b.rest, b.rows[len(b.rows)-1].uid)
	return err
}

// reserve sees to it that so many octets are reserved for the batch, if there is room.
func (f *fetch) reserve(octets int64) bool {
	more := octets - f.reserved
	if more > 0 && !f.s.account.TryReserveRows(more) {
		return false
	}
	f.reserved += max(more, 0)
	return true
}

// charge notes what is held of rows, now that it is known: more than was reserved, or less.
func (f *fetch) charge() {
	held := int64(cap(f.rows)+cap(f.other.rows))*rowSize + f.held + f.other.held
	held = max(held, batchFew*rowCost) // for which each batch has room
	if held != f.reserved {
		f.s.account.AdjustRows(held - f.reserved)
		f.reserved = held
	}
}

// take puts a row where it belongs in the batch.
func (b *rowBatch) take(row *metadata.Message) error {
	for b.taken < len(b.rows) && b.rows[b.taken].uid < row.UID {
		b.taken++
	}
	if b.taken == len(b.rows) || b.rows[b.taken].uid != row.UID {
		return nil
	}
	r := &b.rows[b.taken]
	b.taken++
	r.row, r.found = *row, true
	b.held += int64(len(row.Extent) + len(row.Summary))
	if b.held >= batchBytes && b.taken < len(b.rows) {
		return errEnough
	}
	return nil
}

// after is what ranges, which rise, have above last. It changes them.
func after(ranges []metadata.UIDRange, last uint32) []metadata.UIDRange {
	for i := range ranges {
		if ranges[i].Last > last {
			ranges[i].First = max(ranges[i].First, last+1)
			return ranges[i:]
		}
	}
	return nil
}

// answerBatch answers the messages of the batch in order.
func (f *fetch) answerBatch(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	ahead := &runAhead{f: f}
	f.ahead, f.marked = ahead, false
	defer ahead.close()
	defer cancel()
	for f.s.enc.Err() == nil {
		m := ahead.next(ctx)
		if m == nil {
			break
		}
		f.respond(ctx, m)
		ahead.done(m)
	}
	for i := range f.rows { // those that were left out
		if r := &f.rows[i]; r.changed && !r.ghost {
			f.s.tellFlags(r.uid, r.slot)
		}
	}
}

// markSeen sets \Seen on the messages of the batch (RFC 9051 §6.4.5) when the first
// of them is about to be answered, so that the answers have the new flags. What is
// known not to be readable is not seen. Where the flags cannot be stored the
// messages are served all the same.
func (f *fetch) markSeen(ctx context.Context) {
	f.marked = true
	head := f.ahead.head()
	away := slices.ContainsFunc(head, func(m *fetched) bool { return errors.Is(m.err, blobstore.ErrUnavailable) })
	rows := f.rows[f.ahead.answered:]
	if away {
		rows = rows[:len(head)]
	}
	var uids []metadata.UIDRange
	for i := range rows {
		r := &rows[i]
		switch {
		case !r.found, r.ghost, r.slot.Flags&metadata.Seen != 0, i < len(head) && head[i].err != nil:
		case len(uids) > 0 && uids[len(uids)-1].Last+1 == r.uid:
			uids[len(uids)-1].Last = r.uid
		default:
			uids = append(uids, metadata.UIDRange{First: r.uid, Last: r.uid})
		}
	}
	if len(uids) == 0 {
		return
	}
	v := f.s.view
	done, err := v.mailbox.Store(ctx, mailstore.StoreFlags{
		View: v.snap, UIDs: uids, Mode: mailstore.AddFlags, Flags: mailstore.FlagSet{System: metadata.Seen},
	})
	if err != nil {
		f.s.log().Warn("messages not marked as seen", zap.Error(err))
		f.marks = false // the next batches would wait for the same
		return
	}
	f.s.update(done.After, false, f.noteChange)
	for i := range f.rows {
		if slot, ghost, ok := v.slot(f.rows[i].uid); ok {
			f.rows[i].slot, f.rows[i].ghost = slot, ghost
		}
	}
}

// noteChange takes a change upon itself if the message's answer is still to come,
// which will have the new flags.
func (f *fetch) noteChange(c mailstore.Change) bool {
	i, found := slices.BinarySearchFunc(f.rows, c.UID, func(r fetchRow, uid uint32) int {
		return int(int64(r.uid) - int64(uid))
	})
	if !found {
		return false
	}
	f.rows[i].changed = c.Old.Flags != c.New.Flags || f.s.has(condStore)
	return true
}
