package mailstore

import (
	"context"
	"fmt"
	"math"
	"runtime/debug"
	"sync"
	"time"

	"starling/metadata"
)

// What a message on its way in holds in memory: buffers and the parser, and of its
// bytes as many as the codec keeps before it begins a file.
const (
	uploadLeast = 64 << 10
	uploadBytes = 1280 << 10
)

const (
	// inflightWait is how long a message waits for others to be done with.
	inflightWait = 2 * time.Second
	// inflightShare is the part of the budget, one in so many, that one account can have:
	// who sends slowly must not keep others from sending.
	inflightShare = 8
)

// defaultInflight is an eighth of what the process may use, if that is known.
func defaultInflight() int64 {
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		return limit / 8
	}
	return 512 << 20
}

// inflight is the memory that messages on their way in may hold together. Who finds
// none left waits a little and is then asked to come back, rather than have the node
// run out of memory.
type inflight struct {
	most int64

	mu      sync.Mutex
	used    int64
	account map[metadata.AccountID]int64
	freed   chan struct{} // closed, and made anew, when some is given back
}

func newInflight(most int64) *inflight {
	return &inflight{most: most, account: make(map[metadata.AccountID]int64), freed: make(chan struct{})}
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
func (f *inflight) take(ctx context.Context, id metadata.AccountID, n int64) error {
	timer := time.NewTimer(inflightWait)
	defer timer.Stop()
	for {
		freed, ok := f.try(id, n)
		if ok {
			return nil
		}
		select {
		case <-freed:
		case <-timer.C:
			return fmt.Errorf("take in a message beside others: no memory was left in time: %w", metadata.ErrUnavailable)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// try reserves if it can at once; otherwise freed is closed when it is worth another
// try. One message of an account is let in whatever its share.
func (f *inflight) try(id metadata.AccountID, n int64) (freed <-chan struct{}, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	own := f.account[id]
	if f.used > 0 && f.used+n > f.most || own > 0 && own+n > f.most/inflightShare {
		return f.freed, false
	}
	f.used += n
	f.account[id] = own + n
	return nil, true
}

func (f *inflight) give(id metadata.AccountID, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.used -= n
	if f.account[id] -= n; f.account[id] == 0 {
		delete(f.account, id)
	}
	close(f.freed)
	f.freed = make(chan struct{})
}
