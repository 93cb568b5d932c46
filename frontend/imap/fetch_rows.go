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

// fromRows answers what needs the messages' rows, a batch at a time.
func (f *fetch) fromRows(ctx context.Context, uids []metadata.UIDRange) {
	if err := f.s.account.ReserveRows(ctx, batchFew*rowCost); err != nil {
		f.failure = fmt.Errorf("read rows: %w", err)
		return
	}
	f.reserved = batchFew * rowCost
	defer func() { f.s.account.AdjustRows(-f.reserved) }()
	for len(uids) > 0 && f.s.enc.Err() == nil {
		rest, err := f.load(ctx, uids)
		if ctx.Err() != nil {
			err = errCut
		}
		if err != nil {
			f.failure = fmt.Errorf("read rows: %w", err)
			return
		}
		if len(f.rows) > 0 {
			f.answerBatch(ctx)
		}
		uids = rest
	}
}

// errEnough ends reading when a batch has become large.
var errEnough = errors.New("enough was read")

// load reads the next batch, and returns what is left to be read.
func (f *fetch) load(ctx context.Context, uids []metadata.UIDRange) ([]metadata.UIDRange, error) {
	v := f.s.view
	most := batchRows
	if f.marks {
		most = batchMarks
	}
	f.rows, f.held, f.taken = f.rows[:0], 0, 0
	for m := range v.messages(uids) {
		if len(f.rows) == most || len(f.rows) == batchFew && !f.reserve(int64(most)*rowCost) {
			break
		}
		f.rows = append(f.rows, fetchRow{seq: m.seq, uid: m.uid, slot: m.slot, ghost: m.ghost})
	}
	if len(f.rows) == 0 {
		return nil, nil
	}
	if f.resume() {
		return nil, nil
	}
	err := v.mailbox.Rows(ctx, f.wanted(), f.needs, true, f.take)
	if errors.Is(err, errEnough) {
		f.rows, err = f.rows[:f.taken], nil
	}
	f.charge()
	return after(uids, f.rows[len(f.rows)-1].uid), err
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

// charge notes what the batch holds, if that is more than was reserved.
func (f *fetch) charge() {
	if more := int64(cap(f.rows))*rowSize + f.held - f.reserved; more > 0 {
		f.s.account.AdjustRows(more)
		f.reserved += more
	}
}

// wanted are the UIDs of the batch.
func (f *fetch) wanted() []uint32 {
	f.uids = f.uids[:0]
	for i := range f.rows {
		f.uids = append(f.uids, f.rows[i].uid)
	}
	return f.uids
}

// take puts a row where it belongs in the batch.
func (f *fetch) take(row *metadata.Message) error {
	for f.taken < len(f.rows) && f.rows[f.taken].uid < row.UID {
		f.taken++
	}
	if f.taken == len(f.rows) || f.rows[f.taken].uid != row.UID {
		return nil
	}
	r := &f.rows[f.taken]
	f.taken++
	r.row, r.found = *row, true
	f.held += int64(len(row.Extent) + len(row.Summary))
	if f.held >= batchBytes && f.taken < len(f.rows) {
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
