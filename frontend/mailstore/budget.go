package mailstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"starling/metadata"
)

// What a message on its way in holds in memory: buffers and the parser, and of its
// bytes as many as the codec keeps before it begins a file.
const (
	uploadLeast = 64 << 10
	uploadBytes = 1280 << 10
)

const (
	// budgetWait is how long somebody waits for memory that others have.
	budgetWait = 2 * time.Second
	// budgetShare is the part of a budget, one in so many, that one account can have:
	// who sends or reads slowly must not keep others from it.
	budgetShare = 8
	// rowsShare is the part of Config.ReadMemory, one in so many, that is for rows. It is
	// apart from that for bodies because who answers has both: who waits for the latter
	// keeps nobody from the former.
	rowsShare = 3
)

// memoryShare is the part, in per cent, of what the process may use; fallback if that
// is not known.
func memoryShare(percent, fallback int64) int64 {
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		return limit / 100 * percent
	}
	return fallback
}

// budget is memory that all sessions of a node share for one purpose. Who finds
// none left waits a little and is then asked to come back, rather than have the node
// run out of memory. Of those who wait accounts have their turns one after the other, and of an
// account who came first: one that waits for much is not passed by those who want less, nor an account
// by another of which many wait.
type budget struct {
	what    string // that waits for memory
	most    int64
	share   int64 // most of it that one account can have
	wait    time.Duration
	refused prometheus.Counter
	// room, if not nil, has somebody give back about n bytes that nobody needs now,
	// and says whether somebody did. If of is not 0 they are wanted of that account.
	room func(of metadata.AccountID, n int64) bool
	// passes lets those who want less pass who waits: memory that is held for long, as that of mailboxes, would
	// otherwise be kept from all in vain.
	passes bool

	mu      sync.Mutex
	used    int64
	holders map[metadata.AccountID]*holder
	// turns are accounts of which somebody waits for what others have. If there are any, the first
	// cannot have it yet; those that wait for what they have themselves are not here.
	turns []*holder
}

// holder is an account that has memory, or of which somebody waits for some.
type holder struct {
	id     metadata.AccountID
	used   int64
	claims []*claim // who came first is first
	queued bool     // it is one of turns
}

// claim is somebody who waits for n bytes.
type claim struct {
	n       int64
	granted bool          // guarded by budget.mu
	wake    chan struct{} // told that it was, or that there may be something that nobody needs
}

// noShare is the share of a budget of which an account may have all.
const noShare = math.MaxInt64 / 2

func newBudget(what string, most, share int64, refused prometheus.Counter) *budget {
	return &budget{
		what: what, most: most, share: share, wait: budgetWait, refused: refused,
		holders: make(map[metadata.AccountID]*holder),
	}
}

// uploadCost is what a message of size octets may hold; 0: the size is not known.
func uploadCost(size int64) int64 {
	if size <= 0 {
		return uploadLeast + uploadBytes
	}
	return uploadLeast + min(size, uploadBytes)
}

// take reserves n bytes for an account; give returns them. metadata.ErrUnavailable
// says that there was no room in time.
func (f *budget) take(ctx context.Context, id metadata.AccountID, n int64) error {
	c := f.claim(id, n)
	if c == nil {
		return nil
	}
	timer := time.NewTimer(f.wait)
	defer timer.Stop()
	for {
		for f.room != nil && !f.has(c) && f.room(f.holding(id, n), n) {
		}
		select {
		case <-c.wake:
			if f.has(c) {
				return nil
			}
		case <-timer.C:
			if f.withdraw(id, c) {
				return nil
			}
			f.refused.Inc()
			return fmt.Errorf("%s: no memory was left in time: %w", f.what, metadata.ErrUnavailable)
		case <-ctx.Done():
			if f.withdraw(id, c) {
				return nil
			}
			return ctx.Err()
		}
	}
}

// try reserves if it can at once, and nobody waits for what it would take.
func (f *budget) try(id metadata.AccountID, n int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.holder(id)
	waits := !f.passes && (len(f.turns) > 0 || len(h.claims) > 0)
	if waits || !f.within(h, n) || !f.fits(n) {
		f.forget(h)
		return false
	}
	f.grant(h, n)
	return true
}

// claim reserves if it can at once, and returns nil; else who waits.
func (f *budget) claim(id metadata.AccountID, n int64) *claim {
	if f.try(id, n) {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &claim{n: n, wake: make(chan struct{}, 1)}
	h := f.holder(id)
	h.claims = append(h.claims, c)
	f.queue(h)
	f.serve()
	return c
}

// holding is the account that has what n bytes for an account are wanted of: itself, where they are beyond its
// share; else 0, which is all.
func (f *budget) holding(id metadata.AccountID, n int64) metadata.AccountID {
	f.mu.Lock()
	defer f.mu.Unlock()
	if h := f.holders[id]; h != nil && !f.within(h, n) {
		return id
	}
	return 0
}

// has says whether c was granted.
func (f *budget) has(c *claim) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return c.granted
}

// withdraw ends the wait of c. It reports whether c was granted meanwhile.
func (f *budget) withdraw(id metadata.AccountID, c *claim) (granted bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.granted {
		return true
	}
	h := f.holders[id]
	i := slices.Index(h.claims, c)
	h.claims = slices.Delete(h.claims, i, i+1)
	f.queue(h) // whoever comes next may want less
	f.serve()
	f.forget(h)
	return false
}

func (f *budget) give(id metadata.AccountID, n int64) { f.adjust(id, -n) }

// adjust notes that what an account has grew by n, or shrank, without asking.
func (f *budget) adjust(id metadata.AccountID, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.holder(id)
	f.grant(h, n)
	if n < 0 {
		f.queue(h)
		f.serve()
	}
	f.forget(h)
}

// mayHaveRoom has who waits look for what nobody needs.
func (f *budget) mayHaveRoom() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.serve()
}

// What follows is called with mu held.

func (f *budget) holder(id metadata.AccountID) *holder {
	h := f.holders[id]
	if h == nil {
		h = &holder{id: id}
		f.holders[id] = h
	}
	return h
}

// forget takes an account from the list that has nothing and waits for nothing.
func (f *budget) forget(h *holder) {
	if h.used == 0 && len(h.claims) == 0 && !h.queued {
		delete(f.holders, h.id)
	}
}

// fits reports whether n bytes are left. One alone is let in whatever its size.
func (f *budget) fits(n int64) bool { return f.used <= 0 || f.used+n <= f.most }

// within reports whether an account may have n bytes more. One of an account is let in whatever its share.
func (f *budget) within(h *holder, n int64) bool { return h.used <= 0 || h.used+n <= f.share }

func (f *budget) grant(h *holder, n int64) {
	f.used += n
	h.used += n
}

// queue gives an account a turn if somebody waits for it.
func (f *budget) queue(h *holder) {
	if len(h.claims) > 0 && !h.queued {
		h.queued = true
		f.turns = append(f.turns, h)
	}
}

// serve grants what can be, in turns. An account that has its share has its next turn when it gives
// something back.
func (f *budget) serve() {
	for at := 0; at < len(f.turns); {
		h := f.turns[at]
		may := len(h.claims) > 0 && f.within(h, h.claims[0].n)
		if may && !f.fits(h.claims[0].n) {
			if at == 0 {
				h.claims[0].ring()
			}
			if !f.passes {
				return
			}
			at++
			continue
		}
		f.turns, h.queued = slices.Delete(f.turns, at, at+1), false
		if may {
			c := h.claims[0]
			h.claims = h.claims[1:]
			f.grant(h, c.n)
			c.granted = true
			c.ring()
			f.queue(h)
		}
		f.forget(h)
	}
}

func (c *claim) ring() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// OnShortage has do called when somebody begins to wait for memory for a message that comes
// in, or for what is read to answer with, which others have: if of is not 0 that account itself, which has
// its share. It must not block, and may be called from several goroutines, and often. There can be several.
func (s *Store) OnShortage(do func(of metadata.AccountID)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onShortage = append(s.onShortage, do)
}

// shortage is budget.room of what clients hold: who can have them give it back is told, and
// it comes later.
func (s *Store) shortage(of metadata.AccountID, _ int64) bool {
	s.mu.Lock()
	all := s.onShortage
	s.mu.Unlock()
	for _, do := range all {
		do(of)
	}
	return false
}

// waited reports whether somebody waits for what an account gives back: it itself, or others.
func (f *budget) waited(id metadata.AccountID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.holders[id]
	return len(f.turns) > 0 || h != nil && len(h.claims) > 0
}

func (f *budget) inUse() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.used
}

// What a change holds of memory until it is committed, for each message: of a copy what PostgreSQL is sent for its row too.
const (
	copyBytes   = 512
	changeBytes = 160
)

const (
	// changeLeast is up to how many messages a change need not ask.
	changeLeast = 1000
	// changeWait is how long one waits for others, which take seconds for 100,000 messages.
	changeWait = 10 * time.Second
	// mostCopied is how many times what there is for all changes one COPY or MOVE may take, if it is the only one.
	mostCopied = 4
)

// ErrTooMany says that a node has not the memory to copy so many messages at once (NO [LIMIT]).
var ErrTooMany = errors.New("too many messages at once")

// reserveChange reserves the memory for a change of n messages, each of which takes so many octets, and returns what gives
// it back. It waits for others to be done with theirs, and must not be called with the turn of a mailbox, nor for
// what holds some already.
func (a *Account) reserveChange(ctx context.Context, n int, each int64) (done func(), err error) {
	if n <= changeLeast {
		return func() {}, nil
	}
	octets := int64(n) * each
	if err := a.store.changes.take(ctx, a.row.ID, octets); err != nil {
		return nil, fmt.Errorf("change %d messages: %w", n, err)
	}
	return func() { a.store.changes.give(a.row.ID, octets) }, nil
}

// ReserveRead reserves n octets of memory for bodies that a session reads to answer with,
// and waits a little for others to be done with theirs. AdjustRead gives them back.
// metadata.ErrUnavailable says that there was no room in time. Who has some
// reserved already and could do without more asks TryReserveRead.
func (a *Account) ReserveRead(ctx context.Context, n int64) error {
	return a.store.reads.take(ctx, a.row.ID, n)
}

// TryReserveRead is ReserveRead without waiting. Who waits has precedence.
func (a *Account) TryReserveRead(n int64) bool {
	return a.store.reads.try(a.row.ID, n)
}

// ReadIsWaitedFor reports whether somebody waits for memory for bodies of which this account has some.
func (a *Account) ReadIsWaitedFor() bool { return a.store.reads.waited(a.row.ID) }

// AdjustRead notes that what was reserved for bodies has become n octets more, or fewer.
func (a *Account) AdjustRead(n int64) { a.store.reads.adjust(a.row.ID, n) }

// ReserveRows reserves n octets of memory for rows of messages that a session reads to
// answer with, and waits a little for others to be done with theirs. AdjustRows gives them
// back. metadata.ErrUnavailable says that there was no room in time.
func (a *Account) ReserveRows(ctx context.Context, n int64) error {
	return a.store.rows.take(ctx, a.row.ID, n)
}

// TryReserveRows is ReserveRows without waiting. Who waits has precedence.
func (a *Account) TryReserveRows(n int64) bool {
	return a.store.rows.try(a.row.ID, n)
}

// AdjustRows notes that what was reserved for rows has become n octets more, or fewer.
func (a *Account) AdjustRows(n int64) { a.store.rows.adjust(a.row.ID, n) }
