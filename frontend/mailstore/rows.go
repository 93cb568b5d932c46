package mailstore

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"starling/frontend/message"
	"starling/metadata"
)

const (
	// smallColumns are all but the summary: where one of them is read, so are the others.
	smallColumns = metadata.ColDates | metadata.ColSize | metadata.ColIDs | metadata.ColBlob
	// rowGap is how many UIDs that are not asked for may lie between two that are for both to be
	// read as one range.
	rowGap = 4
	// rowMost is how many octets a row may have to be kept: a few that are large must not push
	// out many.
	rowMost = 16 << 10
)

// rowCache keeps rows of messages that were read to answer with, of all accounts within one
// budget: clients ask for the same list again, and for a message of it. Nothing in it ever has to
// be taken back, because a row never changes; but one by which its message cannot be read may be mended.
type rowCache struct {
	chunks *otter.Cache[rowKey, *rowChunk]
}

// rowKey names a chunk of a mailbox. A UID is never given to another message, and a mailbox's
// number to no other mailbox, but after a failover that lost commits, which is another epoch.
type rowKey struct {
	ref      metadata.BoxRef
	validity uint32
	epoch    int64
	chunk    int32
}

func (b *box) rowKey(chunk int32) rowKey {
	row := &b.current.Load().row
	return rowKey{ref: b.ref, validity: row.UIDValidity, epoch: row.Epoch, chunk: chunk}
}

// rowChunk has the rows of a chunk that are kept, by slot.
type rowChunk struct {
	octets atomic.Int64
	rows   [metadata.ChunkSlots]atomic.Pointer[keptRow]
}

// keptRow is a message's row, with all its small columns. It is immutable.
type keptRow struct {
	internal, saved     int64 // microseconds, as PostgreSQL has them
	size, email, thread int64
	object              metadata.ObjectID
	extent              []byte
	summary             []byte // not compressed; nil: it was not read
}

// What a rowChunk and a keptRow take beside what slices refer to, about.
const (
	rowChunkCost = 1400
	keptRowCost  = 144
)

func newRowCache(size int64) *rowCache {
	return &rowCache{chunks: otter.Must(&otter.Options[rowKey, *rowChunk]{
		MaximumWeight: uint64(size), //nolint:gosec // not negative
		Weigher: func(_ rowKey, c *rowChunk) uint32 {
			return uint32(rowChunkCost + c.octets.Load()) //nolint:gosec // a chunk's
		},
		// Evicting takes microseconds, and needs no goroutine.
		Executor: func(fn func()) { fn() },
	})}
}

// bytes is the memory that is used, about.
func (c *rowCache) bytes() int64 { return int64(c.chunks.WeightedSize()) } //nolint:gosec // bounded

// add keeps rows of a chunk. One that is kept already stays if it has as much.
func (c *rowCache) add(key rowKey, uids []uint32, rows []*keptRow) {
	c.chunks.Compute(key, func(chunk *rowChunk, _ bool) (*rowChunk, otter.ComputeOp) {
		if chunk == nil {
			chunk = new(rowChunk)
		}
		for i, row := range rows {
			at := &chunk.rows[uids[i]%metadata.ChunkSlots]
			was := at.Load()
			if was != nil && (was.summary != nil || row.summary == nil) {
				continue
			}
			at.Store(row)
			chunk.octets.Add(row.cost() - was.cost())
		}
		return chunk, otter.WriteOp
	})
}

// forgetRow forgets what is kept of a message.
func (b *box) forgetRow(uid uint32) {
	b.store.kept.chunks.ComputeIfPresent(b.rowKey(metadata.ChunkOf(uid)), func(chunk *rowChunk) (*rowChunk, otter.ComputeOp) {
		was := chunk.rows[uid%metadata.ChunkSlots].Swap(nil)
		chunk.octets.Add(-was.cost())
		return chunk, otter.WriteOp
	})
}

// cost is the memory that a row takes; nil takes none.
func (r *keptRow) cost() int64 {
	if r == nil {
		return 0
	}
	return keptRowCost + int64(cap(r.extent)+cap(r.summary))
}

// keepRow copies a row, without its summary if that is not wanted. A summary that cannot be read
// stays as it is: who asks for it will find out.
func keepRow(row *metadata.Message, columns metadata.Columns) *keptRow {
	r := &keptRow{
		internal: row.InternalDate.UnixMicro(), saved: row.SaveDate.UnixMicro(),
		size: row.Size, email: row.EmailID, thread: row.ThreadID,
		object: row.Object, extent: slices.Clone(row.Extent),
	}
	if columns&metadata.ColSummary == 0 {
		return r
	}
	var err error
	if r.summary, err = message.Decompress(row.Summary); err != nil {
		r.summary = append([]byte{}, row.Summary...) // not nil
	}
	return r
}

// message sets m to the row.
func (r *keptRow) message(m *metadata.Message, uid uint32) *metadata.Message {
	m.UID = uid
	m.InternalDate, m.SaveDate = time.UnixMicro(r.internal), time.UnixMicro(r.saved)
	m.Size, m.EmailID, m.ThreadID = r.size, r.email, r.thread
	m.Object, m.Extent, m.Summary = r.object, r.extent, r.summary
	return m
}

// Rows gives visit the rows of the messages with the given UIDs, which rise, with the columns that
// are asked for or more. Expunged messages come too, as long as the collector has not taken their
// rows or the node remembers them. What the node remembers is not read again. With keep it
// remembers what is read, all but the summary of which is then read in any case; who looks at everything
// once does without.
//
// The message that visit gets is valid until it returns; with keep its slices stay good, and must
// not be changed. An error of visit ends the reading and comes back. visit must not wait for
// clients or for other servers: a connection to PostgreSQL may be held.
func (m *Mailbox) Rows(ctx context.Context, uids []uint32, columns metadata.Columns, keep bool, visit func(*metadata.Message) error) error {
	return m.box.rows(ctx, uids, columns, keep, visit)
}

func (b *box) rows(ctx context.Context, uids []uint32, columns metadata.Columns, keep bool, visit func(*metadata.Message) error) error {
	r := rowReading{box: b, uids: uids, columns: columns, keep: keep, visit: visit}
	lacks := r.look()
	b.store.metrics.rowsKept.Add(float64(len(uids) - len(lacks)))
	if len(lacks) == 0 {
		return r.upTo(len(uids))
	}
	b.store.metrics.rowsRead.Add(float64(len(lacks)))
	if keep {
		columns |= smallColumns
		defer r.remember()
	}
	err := b.store.db.Messages(ctx, b.ref.Account, b.ref.Mailbox, metadata.Ranges(lacks, rowGap), columns, r.take)
	if err != nil {
		return fmt.Errorf("read %d messages of mailbox %d: %w", len(lacks), b.ref.Mailbox, err)
	}
	return r.upTo(len(uids))
}

// rowReading is rows that are read.
type rowReading struct {
	box     *box
	uids    []uint32
	columns metadata.Columns
	keep    bool
	visit   func(*metadata.Message) error

	known []*keptRow // by index in uids; nil: not known, or not there
	fresh []int      // the indexes of those that were read now, to be kept
	next  int        // the first that was not visited
	given metadata.Message
}

// look finds what the node remembers, and returns the UIDs of what it does not.
func (r *rowReading) look() (lacks []uint32) {
	r.known = make([]*keptRow, len(r.uids))
	var chunk *rowChunk
	no := int32(-1)
	for i, uid := range r.uids {
		if metadata.ChunkOf(uid) != no {
			no = metadata.ChunkOf(uid)
			chunk, _ = r.box.store.kept.chunks.GetIfPresent(r.box.rowKey(no))
		}
		if chunk != nil {
			row := chunk.rows[uid%metadata.ChunkSlots].Load()
			if row != nil && (row.summary != nil || r.columns&metadata.ColSummary == 0) {
				r.known[i] = row
				continue
			}
		}
		lacks = append(lacks, uid)
	}
	return lacks
}

// upTo visits what is known before the i-th.
func (r *rowReading) upTo(i int) error {
	for ; r.next < i; r.next++ {
		if row := r.known[r.next]; row != nil {
			if err := r.visit(row.message(&r.given, r.uids[r.next])); err != nil {
				r.next++
				return err
			}
		}
	}
	return nil
}

// take takes a row that was read.
func (r *rowReading) take(row *metadata.Message) error {
	i := r.next
	for i < len(r.uids) && r.uids[i] < row.UID {
		i++
	}
	if err := r.upTo(i); err != nil {
		return err
	}
	if i == len(r.uids) || r.uids[i] != row.UID || r.known[i] != nil {
		return nil
	}
	if !r.keep {
		r.next++
		return r.visit(row)
	}
	r.known[i], r.fresh = keepRow(row, r.columns), append(r.fresh, i)
	return r.upTo(i + 1)
}

// remember keeps what was read, chunk by chunk.
func (r *rowReading) remember() {
	var uids []uint32
	var rows []*keptRow
	for _, i := range r.fresh {
		if r.known[i].cost() <= rowMost {
			uids, rows = append(uids, r.uids[i]), append(rows, r.known[i])
		}
	}
	for from := 0; from < len(uids); {
		to := from + 1
		for to < len(uids) && metadata.ChunkOf(uids[to]) == metadata.ChunkOf(uids[from]) {
			to++
		}
		r.box.store.kept.add(r.box.rowKey(metadata.ChunkOf(uids[from])), uids[from:to], rows[from:to])
		from = to
	}
}
