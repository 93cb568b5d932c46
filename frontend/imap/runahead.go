package imap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"starling/blobstore"
	"starling/frontend/mailstore"
	mail "starling/frontend/message"
	"starling/metadata"
)

// The bodies of the messages that are answered next are fetched while the one
// before them is written, so that the time to reach them is waited for once and
// not for each. What is held of them is bounded.
const (
	aheadObjects = 8         // messages that are made ready at the same time
	aheadBytes   = 2 << 20   // octets of memory of those together; one alone may take more
	aheadWhole   = 384 << 10 // octets of a message up to which the first read fetches all of it
	aheadPart    = 64 << 10  // octets of a part of a larger message that are fetched ahead
)

// body is a message's bytes, as codec.Body has them.
type body interface {
	Size() int64
	ReadRange(ctx context.Context, w io.Writer, off, n int64) error
	Holds(most int64, ahead bool) int64
	ReadAhead(on bool)
	Close()
}

// fetched is a message made ready to be answered.
type fetched struct {
	*fetchRow
	summary mail.Summary
	pieces  []piece // of the items of the same index
	body    body    // nil if no piece needs it
	early   bool    // what is answered first of it is fetched ahead
	ready   chan struct{}
	cost    int64              // memory that body takes, and what is made of it
	account *mailstore.Account // of which as much is reserved; nil: nothing is
	err     error              // the message cannot be answered; valid once ready is closed
}

// fetchedPool keeps the memory of summaries.
var fetchedPool = sync.Pool{New: func() any { return new(fetched) }}

// runAhead makes the messages of a batch ready in their order.
type runAhead struct {
	f        *fetch
	ring     [aheadObjects]*fetched
	begun    int   // how many messages of the batch were taken up
	answered int   // how many of those are done with
	bytes    int64 // cost of those that are not
	fetching sync.WaitGroup
}

// fill takes up as many messages as may be.
func (a *runAhead) fill(ctx context.Context) {
	rows := a.f.rows
	most := 1
	if a.f.bytes {
		most = aheadObjects
	}
	for a.begun < len(rows) && a.begun-a.answered < most && (a.begun == a.answered || a.bytes < aheadBytes) {
		m := a.f.prepare(&rows[a.begun])
		if !a.reserve(ctx, m) {
			m.giveBack()
			return
		}
		a.ring[a.begun%aheadObjects] = m
		a.begun++
		a.bytes += m.cost
		switch {
		case !m.early || m.err != nil:
		case len(rows) == 1: // nothing could be done meanwhile
			m.err = a.f.readFirst(ctx, m)
		default:
			m.ready = make(chan struct{})
			a.fetching.Go(func() {
				defer close(m.ready)
				m.err = a.f.readFirst(ctx, m)
			})
		}
	}
}

// readFirst has a message's body hold what is read of it first.
func (f *fetch) readFirst(ctx context.Context, m *fetched) error {
	p := m.first()
	return f.s.guard("read ahead", func() error {
		return m.body.ReadRange(ctx, io.Discard, p.off, min(p.n, aheadPart))
	})
}

// reserve takes the memory that a message's body may take from what all sessions
// have together. It reports false for a message that is not answered next and for which
// there is none: what is held already must be answered first.
func (a *runAhead) reserve(ctx context.Context, m *fetched) bool {
	if m.body == nil || m.account != nil {
		return true
	}
	account := a.f.s.account
	if a.begun == a.answered {
		if err := account.ReserveRead(ctx, m.cost); err != nil {
			m.err = fmt.Errorf("read message: %w", err)
			return true
		}
	} else if !account.TryReserveRead(m.cost) {
		return false
	}
	m.account = account
	return true
}

// next is the next message, ready; nil after the last. done gives it back.
func (a *runAhead) next(ctx context.Context) *fetched {
	a.fill(ctx)
	if a.answered == a.begun {
		return nil
	}
	m := a.ring[a.answered%aheadObjects]
	m.wait()
	return m
}

// head are the messages that were taken up and not yet answered, ready.
func (a *runAhead) head() []*fetched {
	head := make([]*fetched, 0, aheadObjects)
	for i := a.answered; i < a.begun; i++ {
		m := a.ring[i%aheadObjects]
		m.wait()
		head = append(head, m)
	}
	return head
}

func (m *fetched) wait() {
	if m.ready != nil {
		<-m.ready
	}
}

func (a *runAhead) done(m *fetched) {
	a.answered++
	a.bytes -= m.cost
	if !a.f.keep(m) {
		m.giveBack()
	}
}

// close waits for what is under way, which the context has ended, and gives all back.
func (a *runAhead) close() {
	a.fetching.Wait()
	for ; a.answered < a.begun; a.answered++ {
		a.ring[a.answered%aheadObjects].giveBack()
	}
}

func (m *fetched) giveBack() {
	m.closeBody()
	*m = fetched{summary: m.summary, pieces: m.pieces[:0]}
	fetchedPool.Put(m)
}

// closeBody gives back what the body holds.
func (m *fetched) closeBody() {
	if m.body != nil {
		m.body.Close()
	}
	if m.account != nil {
		m.account.AdjustRead(-m.cost)
	}
}

// prepare makes a message ready but for the bytes of its body.
func (f *fetch) prepare(row *fetchRow) *fetched {
	m := f.takeKept(row)
	if m == nil {
		m = fetchedPool.Get().(*fetched)
	}
	resumed := m.body != nil
	m.fetchRow = row
	m.pieces, m.ready, m.early, m.err = m.pieces[:0], nil, false, nil
	if !row.found {
		return m
	}
	if f.needs&metadata.ColSummary != 0 {
		if err := m.readSummary(resumed, f.envelope); err != nil {
			m.err = fmt.Errorf("read summary: %w", err)
			return m
		}
	}
	if !f.bytes {
		return m
	}
	for i := range f.items {
		p := piece{}
		if locate := f.items[i].locate; locate != nil {
			p = locate(&f.items[i], m)
		}
		m.pieces = append(m.pieces, p)
	}
	p := m.first()
	if p == nil {
		return m
	}
	if resumed {
		f.goOn(m)
		return m
	}
	if m.body, m.err = f.open(&row.row); m.err != nil {
		return m
	}
	m.body.ReadAhead(false)
	m.cost = f.holds(m, false)
	m.early = m.body.Size() <= aheadWhole || p.n <= aheadPart
	return m
}

// holds is the memory that it takes to answer a message.
func (f *fetch) holds(m *fetched, ahead bool) int64 {
	var longest, made int64
	for i := range m.pieces {
		if p := &m.pieces[i]; p.reads() {
			longest, made = max(longest, p.n), max(made, f.items[i].holds(p))
		}
	}
	return m.body.Holds(longest, ahead) + made
}

// goOn sees to the memory for one more slice of a message that is read in slices: what comes
// next is read too, and kept, if there is memory for it.
func (f *fetch) goOn(m *fetched) {
	if m.account == nil {
		return
	}
	more := f.holds(m, true) - m.cost
	if more > 0 && !m.account.TryReserveRead(more) {
		m.body.ReadAhead(false)
		more = max(0, f.holds(m, false)-m.cost)
		m.account.AdjustRead(more)
		m.cost += more
		return
	}
	m.body.ReadAhead(true)
	m.cost += max(0, more)
}

// readSummary reads of the summary what is needed; parts says that it has the parts.
func (m *fetched) readSummary(parts, envelope bool) error {
	if !parts {
		if err := m.summary.UnmarshalParts(m.row.Summary); err != nil {
			return err
		}
	}
	if envelope {
		m.summary.ReadEnvelope()
	}
	return nil
}

// open opens the body of a message, which must have the size that its row says.
func (f *fetch) open(row *metadata.Message) (body, error) {
	b, err := f.s.view.mailbox.Body(row)
	if err != nil {
		return nil, fmt.Errorf("open body: %w: %w", blobstore.ErrCorrupt, err)
	}
	if b.Size() != row.Size {
		return nil, fmt.Errorf("body has %d octets, not %d: %w", b.Size(), row.Size, blobstore.ErrCorrupt)
	}
	return b, nil
}

// first is the first piece that is read of the body; nil if none is.
func (m *fetched) first() *piece {
	for i := range m.pieces {
		if p := &m.pieces[i]; p.reads() {
			return p
		}
	}
	return nil
}

// retries is how often in a row the rest of a literal is asked for again in vain.
// What was announced must be sent, or the connection ends.
const retries = 2

// copyRange has a body write to w, and when the store fails after some bytes, the rest.
func copyRange(ctx context.Context, b body, w *literalWriter, off, n int64) error {
	err := b.ReadRange(ctx, w, off, n)
	for left := retries; left > 0 && w.written > 0 && errors.Is(err, blobstore.ErrUnavailable) && ctx.Err() == nil; left-- {
		before := w.written
		err = b.ReadRange(ctx, w, off+before, n-before)
		if w.written > before {
			left = retries + 1
		}
	}
	return err
}
