package s3

import (
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A GET whose answer takes longer than nearly all others is sent once more, and the answer that comes first is taken: a
// server is made of many machines and disks, of which one is always slow. When all of it is slow, few are sent twice.
const (
	hedgeQuantile = 95 // percent of the answers that came sooner than a GET is sent again
	hedgeFloor    = 50 * time.Millisecond
	hedgeShare    = 0.05 // of all GETs
	hedgeBurst    = 10   // GETs that may be sent again one after another
	hedgeSamples  = 256  // answers that are looked at
	hedgeEvery    = 64   // answers after which the delay is found anew; before that many none is sent twice
)

// hedger knows how long answers take, and whether one more request may be sent.
type hedger struct {
	mu      sync.Mutex
	samples [hedgeSamples]time.Duration
	seen    int
	after   time.Duration // 0: not known yet
	tokens  float64
}

// saw notes how long an answer took, at least.
func (h *hedger) saw(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.samples[h.seen%hedgeSamples] = d
	h.seen++
	h.tokens = min(h.tokens+hedgeShare, hedgeBurst)
	if h.seen%hedgeEvery == 0 {
		sorted := slices.Clone(h.samples[:min(h.seen, hedgeSamples)])
		slices.Sort(sorted)
		h.after = max(hedgeFloor, sorted[len(sorted)*hedgeQuantile/100])
	}
}

// delay is how long to wait for an answer; 0: for ever.
func (h *hedger) delay() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.after
}

// take says whether a request may be sent once more.
func (h *hedger) take() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tokens < 1 {
		return false
	}
	h.tokens--
	return true
}

// boundBody ends the context of its request when it is closed.
type boundBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b boundBody) Close() error {
	err := b.ReadCloser.Close()
	b.cancel()
	return err
}

// race is a GET that may be sent a second time.
type race struct {
	ask    func(context.Context) (answer, error)
	winner atomic.Int32 // 0 while there is none, then 1 or 2

	cancelFirst  context.CancelFunc
	cancelSecond context.CancelFunc
	answer       answer // the second's, if it has won
	done         chan struct{}
}

// hedged asks, and asks once more if the answer is late.
func (s *Store) hedged(ctx context.Context, ask func(context.Context) (answer, error)) (answer, error) {
	start, delay := time.Now(), s.hedger.delay()
	if delay == 0 {
		a, err := ask(ctx)
		if err == nil {
			s.hedger.saw(time.Since(start))
		}
		return a, err
	}
	r := &race{ask: ask, done: make(chan struct{})}
	firstCtx, cancelFirst := context.WithCancel(ctx)
	secondCtx, cancelSecond := context.WithCancel(ctx)
	r.cancelFirst, r.cancelSecond = cancelFirst, cancelSecond
	s.background.Add(1)
	timer := time.AfterFunc(delay, func() {
		defer s.background.Done()
		defer close(r.done)
		s.askAgain(secondCtx, r)
	})
	a, err := ask(firstCtx)
	alone := timer.Stop()
	if alone {
		s.background.Done()
	} else if err != nil && temporary(err) {
		<-r.done // it may have what the first has not
	}
	if r.winner.CompareAndSwap(0, 1) {
		cancelSecond()
		if err != nil {
			cancelFirst()
			return a, err
		}
		s.hedger.saw(time.Since(start))
		a.body = boundBody{a.body, cancelFirst}
		return a, nil
	}
	if err == nil {
		_ = a.body.Close() // a moment too late
	}
	<-r.done
	s.hedger.saw(time.Since(start))
	r.answer.body = boundBody{r.answer.body, cancelSecond}
	return r.answer, nil
}

// askAgain sends the second request, if it may. Its answer is taken if it is one, and the first.
func (s *Store) askAgain(ctx context.Context, r *race) {
	if r.winner.Load() != 0 || !s.hedger.take() {
		return
	}
	a, err := r.ask(ctx)
	if err == nil && r.winner.CompareAndSwap(0, 2) {
		r.answer = a
		s.metrics.hedgesWon.Inc()
		r.cancelFirst()
		return
	}
	if err == nil {
		_ = a.body.Close()
	}
	s.metrics.hedgesLost.Inc()
}
