package s3

import (
	"sync"
	"time"
)

// minIdle is how long nobody must have read from an answer before its connection is
// taken away: so long that a reader who only waits for his turn keeps it.
const minIdle = 100 * time.Millisecond

// answers are the answers of GETs that are being read. Readers can be as slow as the
// clients that they read for, and connections are bounded: where most are in the hands
// of readers, each request ends the answer that was left alone the longest. Its reader
// asks for the rest when he comes back.
type answers struct {
	most  int       // as many as may be open before one is ended
	began time.Time // whose clock no one sets

	mu   sync.Mutex
	open map[*reader]struct{}
}

func newAnswers(maxConns int) *answers {
	return &answers{most: max(1, maxConns*3/4), began: time.Now(), open: make(map[*reader]struct{})}
}

// clock is the time since the node began, which goes on whatever happens to the machine's clock.
func (a *answers) clock() time.Duration { return time.Since(a.began) }

func (a *answers) add(r *reader) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open[r] = struct{}{}
}

func (a *answers) remove(r *reader) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, r)
}

// relieve ends an answer if there are too many.
func (a *answers) relieve() {
	if r := a.idlest(); r != nil {
		r.suspend()
	}
}

// idlest is the reader that was idle the longest; nil if none has to give way.
func (a *answers) idlest() *reader {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.open) < a.most {
		return nil
	}
	var found *reader
	since := int64(a.clock() - minIdle)
	for r := range a.open {
		if used := r.used.Load(); used < since {
			found, since = r, used
		}
	}
	return found
}
