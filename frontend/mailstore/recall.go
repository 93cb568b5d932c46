package mailstore

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"starling/frontend/message"
	"starling/metadata"
)

// Recalled is what searches ask of a message most. It is valid until the call that it is given to returns.
type Recalled struct {
	// Row has of the message's row the UID, and the columns that were asked for but for the summary.
	Row metadata.Message
	// Digest is that of the summary, if that was asked for; nil if the summary cannot be read.
	Digest message.Digest
}

// recallColumns are those of a message's row that are kept beside the digest.
const recallColumns = metadata.ColDates | metadata.ColSize | metadata.ColIDs

const (
	// recallChunks is how many chunks' messages are read at a time.
	recallChunks = 8
	// recallReaders is how many such reads go on at a time.
	recallReaders = 2
	// recallSmall is how many messages are asked for one after the other: fewer than that, and
	// two readers are not worth their while.
	recallSmall = 256
)

// recall keeps what was read of messages for searches, of all accounts within one
// budget: a client that searches once does so again, with one more letter. Nothing in it
// ever has to be taken back, because a message never changes and its UID is never given to another.
type recall struct {
	chunks *otter.Cache[recallKey, *recalled]
}

// recallKey names one kind of what is kept of a chunk's messages.
type recallKey struct {
	rowKey
	digests bool // else rows
}

// recalled is what is known of the messages of a chunk. It is immutable.
type recalled struct {
	has     [metadata.ChunkSlots]bool
	rows    []recalledRow               // by slot, as long as is needed
	ends    [metadata.ChunkSlots]uint32 // of digests: the end of each slot's
	digests []byte
}

// recalledRow is the columns of recallColumns.
type recalledRow struct {
	internal, saved int64 // microseconds, as PostgreSQL has them
	size            int64
	email, thread   int64
}

// What a recalled takes beside its rows and digests, about, and each row.
const (
	recalledCost    = 1024
	recalledRowCost = 40
)

func newRecall(size int64) *recall {
	return &recall{chunks: otter.Must(&otter.Options[recallKey, *recalled]{
		MaximumWeight: uint64(size), //nolint:gosec // not negative
		Weigher: func(_ recallKey, r *recalled) uint32 {
			return uint32(recalledCost + len(r.rows)*recalledRowCost + len(r.digests)) //nolint:gosec // a chunk's
		},
		// Evicting takes microseconds, and needs no goroutine.
		Executor: func(fn func()) { fn() },
	})}
}

// bytes is the memory that is used, about.
func (r *recall) bytes() int64 { return int64(r.chunks.WeightedSize()) } //nolint:gosec // bounded

// digest is the digest of a slot; nil where the summary could not be read.
func (r *recalled) digest(slot int) message.Digest {
	start := uint32(0)
	if slot > 0 {
		start = r.ends[slot-1]
	}
	if start == r.ends[slot] {
		return nil
	}
	return message.Digest(r.digests[start:r.ends[slot]])
}

// with is r, which may be nil, and what more has.
func (r *recalled) with(more *recalled) *recalled {
	if r == nil {
		return more
	}
	to := &recalled{rows: slices.Clone(r.rows)}
	if n := len(more.rows) - len(to.rows); n > 0 {
		to.rows = append(to.rows, make([]recalledRow, n)...)
	}
	to.digests = make([]byte, 0, len(r.digests)+len(more.digests))
	for slot := range to.has {
		switch {
		case more.has[slot]:
			to.has[slot] = true
			if slot < len(more.rows) {
				to.rows[slot] = more.rows[slot]
			}
			to.digests = append(to.digests, more.digest(slot)...)
		case r.has[slot]:
			to.has[slot] = true
			to.digests = append(to.digests, r.digest(slot)...)
		}
		to.ends[slot] = uint32(len(to.digests)) //nolint:gosec // a chunk's
	}
	return to
}

// Recall gives visit what searches ask of the messages with the given UIDs, which rise; a
// message whose row is collected is passed over. columns are some of ColDates, ColSize
// and ColIDs; ColSummary stands for the digest. What the node remembers is not read again.
func (m *Mailbox) Recall(ctx context.Context, uids []uint32, columns metadata.Columns, visit func(*Recalled) error) error {
	for len(uids) > 0 {
		var pieces []*recallPiece
		for range recallReaders {
			n := pieceOf(uids)
			if n == 0 {
				break
			}
			pieces = append(pieces, &recallPiece{box: m.box, uids: uids[:n]})
			uids = uids[n:]
		}
		if err := readPieces(ctx, pieces, columns); err != nil {
			return fmt.Errorf("recall messages of mailbox %d: %w", m.box.ref.Mailbox, err)
		}
		for _, p := range pieces {
			if err := p.visit(columns, visit); err != nil {
				return err
			}
		}
	}
	return nil
}

// pieceOf is how many of uids lie in the first few chunks.
func pieceOf(uids []uint32) int {
	chunks, last := 0, int32(-1)
	for i, uid := range uids {
		if no := metadata.ChunkOf(uid); no != last {
			if chunks++; chunks > recallChunks {
				return i
			}
			last = no
		}
	}
	return len(uids)
}

// readPieces has everything at hand that the pieces need.
func readPieces(ctx context.Context, pieces []*recallPiece, columns metadata.Columns) error {
	missing := 0
	for _, p := range pieces {
		p.look(columns)
		missing += len(p.lacks[0]) + len(p.lacks[1])
	}
	if missing < recallSmall {
		for _, p := range pieces {
			if err := p.read(ctx); err != nil {
				return err
			}
		}
		return nil
	}
	errs := make([]error, len(pieces))
	var readers sync.WaitGroup
	for i, p := range pieces {
		readers.Go(func() {
			defer recovered(&errs[i])
			errs[i] = p.read(ctx)
		})
	}
	readers.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// recallPiece is some messages of few chunks.
type recallPiece struct {
	box   *box
	uids  []uint32
	known [2]map[int32]*recalled // rows, digests
	lacks [2][]uint32            // UIDs of what is not known
}

// The kinds of what is kept, as indexes.
const (
	recallRows = iota
	recallDigests
)

// look finds out what the node remembers of what columns ask for.
func (p *recallPiece) look(columns metadata.Columns) {
	for kind, wanted := range [2]bool{recallRows: columns&recallColumns != 0, recallDigests: columns&metadata.ColSummary != 0} {
		if !wanted {
			continue
		}
		p.known[kind] = make(map[int32]*recalled, recallChunks)
		no, r := int32(-1), (*recalled)(nil)
		for _, uid := range p.uids {
			if metadata.ChunkOf(uid) != no {
				no = metadata.ChunkOf(uid)
				r, _ = p.box.store.recall.chunks.GetIfPresent(p.key(no, kind))
				p.known[kind][no] = r
			}
			if r == nil || !r.has[uid%metadata.ChunkSlots] {
				p.lacks[kind] = append(p.lacks[kind], uid)
			}
		}
	}
}

func (p *recallPiece) key(chunk int32, kind int) recallKey {
	return recallKey{rowKey: p.box.rowKey(chunk), digests: kind == recallDigests}
}

// read reads what is not known, and has the node remember it.
func (p *recallPiece) read(ctx context.Context) error {
	for kind, columns := range [2]metadata.Columns{recallRows: recallColumns, recallDigests: metadata.ColSummary} {
		if len(p.lacks[kind]) == 0 {
			continue
		}
		fill := recallFill{read: make(map[int32]*recalled, recallChunks)}
		err := p.box.rows(ctx, p.lacks[kind], columns, false, func(row *metadata.Message) error {
			fill.take(row, kind)
			return nil
		})
		if err != nil {
			return err
		}
		for no, more := range fill.read {
			more.close()
			all := p.known[kind][no].with(more)
			p.known[kind][no] = all
			p.box.store.recall.chunks.Compute(p.key(no, kind), func(old *recalled, _ bool) (*recalled, otter.ComputeOp) {
				return old.with(all), otter.WriteOp // others may have added to it
			})
		}
	}
	return nil
}

// recallFill gathers rows as they come, which is by rising UIDs.
type recallFill struct {
	read     map[int32]*recalled
	no       int32
	current  *recalled
	digester message.Digester
}

func (f *recallFill) take(row *metadata.Message, kind int) {
	if no := metadata.ChunkOf(row.UID); f.current == nil || no != f.no {
		f.no, f.current = no, &recalled{}
		f.read[no] = f.current
	}
	r, slot := f.current, int(row.UID%metadata.ChunkSlots)
	r.has[slot] = true
	if kind == recallRows {
		if slot >= len(r.rows) {
			r.rows = append(r.rows, make([]recalledRow, slot+1-len(r.rows))...)
		}
		r.rows[slot] = recalledRow{
			internal: row.InternalDate.UnixMicro(), saved: row.SaveDate.UnixMicro(),
			size: row.Size, email: row.EmailID, thread: row.ThreadID,
		}
		return
	}
	// What cannot be read has no digest: who then asks for the summary is told.
	r.digests, _ = f.digester.Append(r.digests, row.Summary)
	r.ends[slot] = uint32(len(r.digests)) //nolint:gosec // a chunk's
}

// close sets the ends of the slots that no row came for, and gives back what is spare.
func (r *recalled) close() {
	end := uint32(0)
	for slot := range r.ends {
		if !r.has[slot] {
			r.ends[slot] = end
		}
		end = r.ends[slot]
	}
	r.rows, r.digests = slices.Clone(r.rows), slices.Clone(r.digests)
}

// visit gives fn what is known of the piece's messages.
func (p *recallPiece) visit(columns metadata.Columns, fn func(*Recalled) error) error {
	var given Recalled
	no, known := int32(-1), [2]*recalled{}
	for _, uid := range p.uids {
		if metadata.ChunkOf(uid) != no {
			no = metadata.ChunkOf(uid)
			known = [2]*recalled{p.known[recallRows][no], p.known[recallDigests][no]}
		}
		slot := int(uid % metadata.ChunkSlots)
		given.Row.UID = uid
		if columns&recallColumns != 0 {
			r := known[recallRows]
			if r == nil || !r.has[slot] {
				continue
			}
			row := &r.rows[slot]
			given.Row.InternalDate, given.Row.SaveDate = time.UnixMicro(row.internal), time.UnixMicro(row.saved)
			given.Row.Size, given.Row.EmailID, given.Row.ThreadID = row.size, row.email, row.thread
		}
		if columns&metadata.ColSummary != 0 {
			r := known[recallDigests]
			if r == nil || !r.has[slot] {
				continue
			}
			given.Digest = r.digest(slot)
		}
		if err := fn(&given); err != nil {
			return err
		}
	}
	return nil
}
