package mailstore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.opentelemetry.io/otel/trace"

	"starling/metadata"
)

// gather has what many sessions ask PostgreSQL at the same time asked in one
// statement: what comes while statements are under way waits, and all that came
// meanwhile goes into the next. There is no timer, and what is asked alone is
// asked at once. An answer is of a moment after the question came.
type gather[Q any] struct {
	work *sync.WaitGroup
	ask  func([]Q) // answers every one of them

	mu      sync.Mutex
	waiting []Q
	asking  int // statements under way
}

const (
	// maxGathers is how many statements of a gather are under way at a time: while one
	// is slow, what comes next need not wait for it.
	maxGathers = 2
	// maxGathered is how many questions go into one statement.
	maxGathered = 256
)

func newGather[Q any](work *sync.WaitGroup, ask func([]Q)) *gather[Q] {
	return &gather[Q]{work: work, ask: ask}
}

// add has q asked, and waits for nothing.
func (g *gather[Q]) add(q Q) {
	if g.wait(q) {
		g.work.Go(g.run)
	}
}

// do has q asked, by its caller unless enough statements are under way: so what is asked
// alone has no goroutine to wake. It may return before q is answered, or after others are.
func (g *gather[Q]) do(q Q) {
	if !g.wait(q) {
		return
	}
	if group := g.take(); group != nil {
		g.ask(group)
		g.mu.Lock()
		more := len(g.waiting) > 0
		if !more {
			g.asking--
		}
		g.mu.Unlock()
		if more {
			g.work.Go(g.run)
		}
	}
}

// wait has q wait. It says whether the caller has to see to it that what waits is asked.
func (g *gather[Q]) wait(q Q) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = append(g.waiting, q)
	if g.asking == maxGathers {
		return false
	}
	g.asking++
	return true
}

// run asks until nothing waits any more.
func (g *gather[Q]) run() {
	for group := g.take(); group != nil; group = g.take() {
		g.ask(group)
	}
}

// take is what the next statement asks; nil if nothing waits, and then there is none.
func (g *gather[Q]) take() []Q {
	g.mu.Lock()
	defer g.mu.Unlock()
	group := g.waiting
	if len(group) == 0 {
		g.asking--
		return nil
	}
	g.waiting = nil
	if len(group) > maxGathered {
		group, g.waiting = group[:maxGathered:maxGathered], group[maxGathered:]
	}
	return group
}

// prove answers those who want to know whether what the node holds of their mailboxes is
// all that there is. It mostly is, which versions show; what changed is then read on its own.
func (s *Store) prove(group []*reading) {
	group = filter(group, (*reading).beginProof)
	if len(group) == 0 {
		return
	}
	s.metrics.readSize.Observe(float64(len(group)))
	pulses, err := s.pulses(group)
	for i, r := range group {
		switch {
		case err != nil:
			r.finish(err)
		case r.base.is(&pulses[i]):
			s.metrics.held.Inc()
			s.metrics.catchUps[r.why].Inc()
			r.box.mu.Lock()
			r.box.taken(pulses[i].Epoch, pulses[i].Recent)
			r.box.mu.Unlock()
			r.finish(nil)
		case len(group) == 1:
			r.read()
		default:
			s.work.Go(r.read)
		}
	}
}

func (s *Store) pulses(group []*reading) (pulses []metadata.Pulse, err error) {
	defer recovered(&err)
	ctx, span := s.groupSpan("mailstore compare", "starling.mailboxes", len(group), func(i int) trace.SpanContext { return group[i].span })
	defer func() { end(span, err) }()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	refs := make([]metadata.BoxRef, len(group))
	for i, r := range group {
		refs[i] = r.box.ref
	}
	if pulses, err = s.db.Pulses(ctx, refs); err != nil {
		return nil, fmt.Errorf("compare %d mailboxes: %w", len(refs), err)
	}
	return pulses, nil
}

// is says that a mailbox is as s has it, but for the mark of \Recent, which only rises: see taken.
func (s *Snapshot) is(p *metadata.Pulse) bool {
	return !p.Dropped && s.row.Version == p.Version && s.row.UIDValidity == p.UIDValidity && s.row.ListSeq == p.ListSeq
}

// byName is a question for the row of a mailbox by its name.
type byName struct {
	ref  metadata.NameRef
	span trace.SpanContext
	done chan struct{}
	row  metadata.Mailbox
	err  error
}

// mailbox reads the row of the mailbox name; metadata.ErrNoMailbox if there is none.
func (s *Store) mailbox(ctx context.Context, account metadata.AccountID, name string) (metadata.Mailbox, error) {
	n := &byName{ref: metadata.NameRef{Account: account, Name: name}, span: s.spanOf(ctx), done: make(chan struct{})}
	s.names.do(n)
	select {
	case <-n.done:
		return n.row, n.err
	case <-ctx.Done():
		return metadata.Mailbox{}, ctx.Err()
	}
}

// find answers those who ask for mailboxes by name.
func (s *Store) find(group []*byName) {
	s.metrics.readSize.Observe(float64(len(group)))
	err := s.findRows(group)
	for _, n := range group {
		switch {
		case err != nil:
			n.err = err
		case n.row.ID == 0:
			n.err = fmt.Errorf("mailbox %q: %w", n.ref.Name, metadata.ErrNoMailbox)
		}
		close(n.done)
	}
}

func (s *Store) findRows(group []*byName) (err error) {
	defer recovered(&err)
	ctx, span := s.groupSpan("mailstore find", "starling.mailboxes", len(group), func(i int) trace.SpanContext { return group[i].span })
	defer func() { end(span, err) }()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	if len(group) == 1 {
		n := group[0]
		n.row, err = s.db.MailboxByName(ctx, n.ref.Account, n.ref.Name)
		if errors.Is(err, metadata.ErrNoMailbox) {
			n.row, err = metadata.Mailbox{}, nil
		}
		return err
	}
	refs := make([]metadata.NameRef, len(group))
	for i, n := range group {
		refs[i] = n.ref
	}
	return s.db.MailboxesByName(ctx, refs, func(i int, m *metadata.Mailbox) { group[i].row = *m })
}

// filter keeps what keep says of group.
func filter[T any](group []T, keep func(T) bool) []T {
	kept := group[:0]
	for _, x := range group {
		if keep(x) {
			kept = append(kept, x)
		}
	}
	return kept
}
