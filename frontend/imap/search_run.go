package imap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"starling/blobstore"
	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
	mail "starling/frontend/message"
	"starling/metadata"
)

const (
	// searchPiece is how many messages' rows are read at a time.
	searchPiece = 1000
	// searchBytes is how many bytes of summaries are held after which a piece ends early.
	searchBytes = 4 << 20
	// searchSigns is how often the client hears that a search goes on.
	searchSigns = 10 * time.Second
	// searchLook is how often it is looked whether the client is still there.
	searchLook = 400 * time.Millisecond
	// searchReaders is how many messages a search reads at the same time.
	searchReaders = 8
	// maxSearchedHeader is how much of a header HEADER looks into, in bytes.
	maxSearchedHeader = 1 << 20
	// cheapColumns are small and stand in the row itself.
	cheapColumns = metadata.ColDates | metadata.ColSize | metadata.ColIDs
)

// search finds the messages of a view that a plan fits. It asks what is at hand
// first, and reads more only of the messages that this leaves undecided: slots, then
// small columns and digests, which the node remembers, then summaries, then the messages themselves.
type search struct {
	*searchPlan
	s     *session
	heard time.Time  // when the client last heard of the search
	found []uint32   // UIDs
	open  []uint32   // UIDs, rising, of messages that are not decided yet
	short sync.Mutex // held by the reader that waits for memory
}

// run returns the UIDs of what matches, rising. Ghosts are left out unless asked for.
func (r *search) run(ctx context.Context, ghosts bool) ([]uint32, error) {
	var c candidate // of every message in turn: they are many
	n := 0
	for m := range r.view.messages(r.scope) {
		if n++; n%searchPiece == 0 && ctx.Err() != nil {
			return nil, fmt.Errorf("search flags: %w", ctx.Err())
		}
		if m.ghost && !ghosts {
			continue
		}
		c.message = m
		r.take(m.uid, r.root.eval(&c))
	}
	if cheap := r.root.needs & cheapColumns; cheap != 0 {
		if err := r.recall(ctx, cheap); err != nil {
			return nil, err
		}
	}
	if r.digest {
		if err := r.recall(ctx, r.root.needs&cheapColumns|metadata.ColSummary); err != nil {
			return nil, err
		}
	}
	if r.root.needs&^cheapColumns != 0 {
		if err := r.readSummaries(ctx, r.root.needs); err != nil {
			return nil, err
		}
	}
	slices.Sort(r.found)
	return r.found, nil
}

// take notes the verdict on a message.
func (r *search) take(uid uint32, v verdict) {
	switch v {
	case yes:
		r.found = append(r.found, uid)
	case unknown:
		r.open = append(r.open, uid)
	}
}

func (r *search) candidate(row *metadata.Message) candidate {
	slot, isGhost, _ := r.view.slot(row.UID)
	return candidate{message: message{uid: row.UID, slot: slot, ghost: isGhost}, row: row}
}

// recall decides by what the node remembers of the messages' rows, or reads and remembers
// now. A message whose row is collected matches nothing.
func (r *search) recall(ctx context.Context, columns metadata.Columns) error {
	open := r.open
	r.open = make([]uint32, 0, len(open)/4)
	var c candidate
	err := r.view.mailbox.Recall(ctx, open, columns, func(m *mailstore.Recalled) error {
		c.uid, c.row, c.digest = m.Row.UID, &m.Row, m.Digest
		c.slot, c.ghost, _ = r.view.slot(c.uid)
		r.take(c.uid, r.root.eval(&c))
		return nil
	})
	if err != nil {
		return fmt.Errorf("search %d messages: %w", len(open), err)
	}
	return nil
}

// readSummaries decides by the summaries, and by the messages where they leave open.
func (r *search) readSummaries(ctx context.Context, columns metadata.Columns) error {
	open := r.open
	r.open = nil
	var summary mail.Summary
	account, held := r.s.account, int64(searchPiece*rowCost)
	if err := account.ReserveRows(ctx, held); err != nil {
		return fmt.Errorf("search summaries: %w", err)
	}
	defer func() { account.AdjustRows(-held) }()
	for len(open) > 0 {
		rows, rest, err := r.batch(ctx, open, columns)
		if err != nil {
			return err
		}
		if more := sizeOf(rows) - held; more > 0 {
			account.AdjustRows(more)
			held += more
		}
		deep := rows[:0]
		for i := range rows {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("search summaries: %w", err)
			}
			if !r.summaries {
				deep = append(deep, rows[i])
				continue
			}
			c := r.candidate(&rows[i])
			if !r.unpack(&c, &summary) {
				continue
			}
			v := r.root.eval(&c)
			r.take(c.uid, v)
			if v == unknown {
				deep = append(deep, rows[i])
			}
		}
		r.open = r.open[:0] // they are in deep
		if err := r.readMessages(ctx, deep); err != nil {
			return err
		}
		open = rest
	}
	return nil
}

// batch reads rows for the first UIDs of open, and returns those that are left. The
// rows are the caller's: how long they are looked at must not depend on how long a
// connection to PostgreSQL may be held.
func (r *search) batch(ctx context.Context, open []uint32, columns metadata.Columns) (rows []metadata.Message, rest []uint32, err error) {
	piece := open[:min(len(open), searchPiece)]
	size := 0
	err = r.view.mailbox.Rows(ctx, piece, columns, false, func(row *metadata.Message) error {
		kept := *row
		kept.Extent, kept.Summary = slices.Clone(row.Extent), slices.Clone(row.Summary)
		rows = append(rows, kept)
		if size += len(row.Extent) + len(row.Summary); size >= searchBytes {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		next, _ := slices.BinarySearch(open, rows[len(rows)-1].UID+1)
		return rows, open[next:], nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("search %d messages: %w", len(piece), err)
	}
	return rows, open[len(piece):], nil
}

// sizeOf is the memory of rows.
func sizeOf(rows []metadata.Message) (octets int64) {
	for i := range rows {
		octets += rowSize + int64(len(rows[i].Extent)+len(rows[i].Summary))
	}
	return octets
}

// unpack reads of the summary of c what is asked for into summary.
func (r *search) unpack(c *candidate, summary *mail.Summary) bool {
	read := summary.UnmarshalParts
	if r.summaries {
		read = summary.Unmarshal
	}
	if err := read(c.row.Summary); err != nil {
		r.leaveOut(c, err)
		return false
	}
	c.summary = summary
	return true
}

// readMessages decides by the messages themselves, several at a time.
func (r *search) readMessages(ctx context.Context, rows []metadata.Message) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := r.signOfLife(); err != nil {
		return fmt.Errorf("search messages: %w", err)
	}
	verdicts := make([]verdict, len(rows))
	var next atomic.Int64
	var readers sync.WaitGroup
	for range min(searchReaders, len(rows)) {
		readers.Go(func() {
			var summary mail.Summary
			for i := next.Add(1) - 1; i < int64(len(rows)) && ctx.Err() == nil; i = next.Add(1) - 1 {
				err := r.s.guard("search a message", func() (err error) {
					verdicts[i], err = r.look(ctx, &rows[i], &summary)
					return err
				})
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	r.await(&readers, cancel)
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("search messages: %w", err)
	}
	for i := range rows {
		if verdicts[i] == yes {
			r.found = append(r.found, rows[i].UID)
		}
	}
	return nil
}

// await waits for the readers, and cancels what they do when the client is gone.
func (r *search) await(readers *sync.WaitGroup, cancel context.CancelCauseFunc) {
	done := make(chan struct{})
	go func() {
		readers.Wait()
		close(done)
	}()
	look := time.NewTicker(searchLook)
	defer look.Stop()
	for {
		select {
		case <-done:
			return
		case <-look.C:
			if err := r.signOfLife(); err != nil {
				cancel(err)
			}
		}
	}
}

// signOfLife tells the client of a search that reads for long that it goes on, and
// so finds out when the client is gone and the rest need not be read. A client that sends nothing
// more may be gone, or only have no more to ask: it hears more often, since only an answer that
// nobody takes tells them apart.
func (r *search) signOfLife() error {
	if time.Since(r.heard) < min(r.s.server.signs, searchLook) {
		return nil
	}
	if time.Since(r.heard) < r.s.server.signs && !r.s.sendsNoMore() {
		return nil
	}
	r.heard = time.Now()
	r.s.enc.Status("", imapwire.OK, "", "Still searching")
	return r.s.enc.Flush()
}

// look reads a message. One that is damaged matches nothing, and does not keep
// others from being found.
func (r *search) look(ctx context.Context, row *metadata.Message, summary *mail.Summary) (verdict, error) {
	c := r.candidate(row)
	if !r.unpack(&c, summary) {
		return no, nil
	}
	v, err := r.evalMessage(ctx, &c)
	if errors.Is(err, blobstore.ErrCorrupt) || errors.Is(err, blobstore.ErrNotFound) {
		r.leaveOut(&c, err)
		return no, nil
	}
	return v, err
}

func (r *search) leaveOut(c *candidate, err error) {
	r.view.mailbox.Forget(c.uid)
	r.s.log().Error("message left out of a search",
		zap.Int64("mailbox", int64(r.view.mailbox.ID())), zap.Uint32("uid", c.uid), zap.Error(err))
}

func (r *search) evalMessage(ctx context.Context, c *candidate) (verdict, error) {
	body, err := r.view.mailbox.Body(c.row)
	if err != nil {
		return no, err
	}
	defer body.Close()
	n := body.Holds(searchedPiece, true)
	if err := r.reserve(ctx, n); err != nil {
		return no, fmt.Errorf("read message: %w", err)
	}
	defer r.s.account.AdjustRead(-n)
	return r.evalBytes(body.At(ctx), c)
}

// searchedPiece is how many octets of a message are looked at together, about.
const searchedPiece = 64 << 10

// reserve takes the memory for a message that is read. Where there is none left one reader waits for it.
func (r *search) reserve(ctx context.Context, n int64) error {
	if r.s.account.TryReserveRead(n) {
		return nil
	}
	r.short.Lock()
	defer r.short.Unlock()
	return r.s.account.ReserveRead(ctx, n)
}

// evalBytes decides by the bytes of a message: first by its header, then by all of it.
func (p *searchPlan) evalBytes(bytes io.ReaderAt, c *candidate) (verdict, error) {
	var err error
	if p.fields > 0 {
		if c.header, err = readHeader(bytes, c.summary); err != nil {
			return no, err
		}
		if v := p.root.eval(c); v != unknown {
			return v, nil
		}
	}
	if len(p.body) > 0 {
		if c.inBody, err = mail.SearchText(bytes, c.summary, p.body, false); err != nil {
			return no, err
		}
	}
	if len(p.text) > 0 {
		if c.inText, err = mail.SearchText(bytes, c.summary, p.text, true); err != nil {
			return no, err
		}
	}
	c.read = true
	return p.root.eval(c), nil
}

// readHeader reads the message's header, or its beginning where it is longer than any
// that is meant to be read.
func readHeader(bytes io.ReaderAt, summary *mail.Summary) ([]byte, error) {
	top := &summary.Parts[0]
	header := make([]byte, min(top.BodyStart-top.HeaderStart, maxSearchedHeader))
	n, err := bytes.ReadAt(header, top.HeaderStart)
	if n == len(header) {
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	return header, nil
}
