package mailstore

import (
	"context"
	"fmt"
	"math"
	"runtime/debug"
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
// run out of memory.
type budget struct {
	what    string // that waits for memory
	most    int64
	share   int64 // most of it that one account can have
	wait    time.Duration
	refused prometheus.Counter
	// room, if not nil, has somebody give back about n bytes that nobody needs now,
	// and says whether somebody did.
	room func(n int64) bool

	mu      sync.Mutex
	used    int64
	account map[metadata.AccountID]int64
	awaited bool
	freed   chan struct{} // closed, and made anew, when some is given back that is awaited
}

func newBudget(what string, most, share int64, refused prometheus.Counter) *budget {
	return &budget{
		what: what, most: most, share: share, wait: budgetWait, refused: refused,
		account: make(map[metadata.AccountID]int64), freed: make(chan struct{}),
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
	freed, ok := f.try(id, n)
	if ok {
		return nil
	}
	timer := time.NewTimer(f.wait)
	defer timer.Stop()
	for {
		if f.room == nil || !f.room(n) {
			select {
			case <-freed:
			case <-timer.C:
				f.refused.Inc()
				return fmt.Errorf("%s: no memory was left in time: %w", f.what, metadata.ErrUnavailable)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if freed, ok = f.try(id, n); ok {
			return nil
		}
	}
}

// try reserves if it can at once; otherwise freed is closed when it is worth another
// try. One of an account is let in whatever its share, and one alone whatever its size.
func (f *budget) try(id metadata.AccountID, n int64) (freed <-chan struct{}, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	own := f.account[id]
	if f.used > 0 && f.used+n > f.most || own > 0 && own+n > f.share {
		f.awaited = true
		return f.freed, false
	}
	f.used += n
	f.account[id] = own + n
	return nil, true
}

func (f *budget) give(id metadata.AccountID, n int64) { f.adjust(id, -n) }

// adjust notes that what an account has grew by n, or shrank, without asking.
func (f *budget) adjust(id metadata.AccountID, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.used += n
	if f.account[id] += n; f.account[id] == 0 {
		delete(f.account, id)
	}
	if n < 0 {
		f.ring()
	}
}

// mayHaveRoom has those who wait look again.
func (f *budget) mayHaveRoom() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ring()
}

// ring wakes those who wait; mu is held.
func (f *budget) ring() {
	if f.awaited {
		f.awaited = false
		close(f.freed)
		f.freed = make(chan struct{})
	}
}

// OnShortage has do called when somebody begins to wait for memory for a message that comes
// in, or for what is read to answer with, which others have. It must not block, and may be
// called from several goroutines, and often. There can be several.
func (s *Store) OnShortage(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onShortage = append(s.onShortage, do)
}

// shortage is budget.room of what clients hold: who can have them give it back is told, and
// it comes later.
func (s *Store) shortage(int64) bool {
	s.mu.Lock()
	all := s.onShortage
	s.mu.Unlock()
	for _, do := range all {
		do()
	}
	return false
}

func (f *budget) inUse() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.used
}

// ReserveRead reserves n octets of memory for what a session reads to answer with,
// and waits a little for others to be done with theirs; release, called once, gives
// them back. metadata.ErrUnavailable says that there was no room in time. Who has some
// reserved already and could do without more asks TryReserveRead.
func (a *Account) ReserveRead(ctx context.Context, n int64) (release func(), err error) {
	if err := a.store.reads.take(ctx, a.row.ID, n); err != nil {
		return nil, err
	}
	return func() { a.store.reads.give(a.row.ID, n) }, nil
}

// TryReserveRead is ReserveRead without waiting.
func (a *Account) TryReserveRead(n int64) (release func(), ok bool) {
	if _, ok := a.store.reads.try(a.row.ID, n); !ok {
		return nil, false
	}
	return func() { a.store.reads.give(a.row.ID, n) }, true
}

// ReserveRows reserves n octets of memory for rows of messages that a session reads to
// answer with, and waits a little for others to be done with theirs. AdjustRows gives them
// back. metadata.ErrUnavailable says that there was no room in time.
func (a *Account) ReserveRows(ctx context.Context, n int64) error {
	return a.store.rows.take(ctx, a.row.ID, n)
}

// TryReserveRows is ReserveRows without waiting.
func (a *Account) TryReserveRows(n int64) bool {
	_, ok := a.store.rows.try(a.row.ID, n)
	return ok
}

// AdjustRows notes that what was reserved for rows has become n octets more, or fewer.
func (a *Account) AdjustRows(n int64) { a.store.rows.adjust(a.row.ID, n) }
