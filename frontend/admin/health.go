package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// ErrUnknown is what a Dependency's Ask returns when it could not find out: what was
// known of it before holds.
var ErrUnknown = errors.New("not known yet")

// Dependency is a server that a node needs, or something about one.
type Dependency struct {
	Name string

	// Required says that a node without it is not ready. Without another it is ready,
	// and says that it can do less.
	Required bool
	// Patience is how long a node that serves stays ready without a required
	// dependency: what all nodes miss for a moment must not take all of them away.
	Patience time.Duration

	// Ask says whether it is there: nil, ErrUnknown, or what is wrong. It is called
	// again when it has answered, and should give up when ctx is done.
	Ask func(ctx context.Context) error
	// Every is how often it is asked; 5 s.
	Every time.Duration
}

// Times of asking.
const (
	askEvery   = 5 * time.Second
	askAgain   = time.Second     // what is not there
	askTimeout = 4 * time.Second // for an answer
)

// State is what is known of a dependency.
type State struct {
	Name     string    `json:"name"`
	Up       bool      `json:"up"`
	Required bool      `json:"required"`
	Since    time.Time `json:"since"` // when this was found
	Error    string    `json:"error,omitempty"`
}

// Health is what is known of what a node needs, and whether the node is ready. It
// is safe for use by several goroutines.
type Health struct {
	log     *zap.Logger
	context context.Context // of all questions
	stop    context.CancelFunc
	asking  sync.WaitGroup

	mu       sync.Mutex
	serving  bool
	draining bool
	watched  []*watched
	changed  chan struct{} // closed when anything above or in watched changes
}

// watched is a dependency and what is known of it; Health.mu guards that.
type watched struct {
	Dependency
	err   error
	since time.Time
}

// NewHealth returns the health of a node that is not ready yet. Close ends it.
func NewHealth(log *zap.Logger) *Health {
	h := &Health{log: log, changed: make(chan struct{})}
	h.context, h.stop = context.WithCancel(context.Background())
	return h
}

// Watch asks for a dependency from now on. Until the first answer it is not there.
func (h *Health) Watch(d Dependency) {
	if d.Every == 0 {
		d.Every = askEvery
	}
	w := &watched{Dependency: d, err: ErrUnknown, since: time.Now()}
	h.mu.Lock()
	h.watched = append(h.watched, w)
	h.mu.Unlock()
	h.asking.Go(func() {
		for h.context.Err() == nil {
			up := h.ask(w)
			pause := w.Every
			if !up {
				pause = min(askAgain, w.Every)
			}
			select {
			case <-time.After(pause):
			case <-h.context.Done():
			}
		}
	})
}

// ask asks once, and says whether the dependency is there.
func (h *Health) ask(w *watched) bool {
	ctx, cancel := context.WithTimeout(h.context, askTimeout)
	defer cancel()
	err := w.Ask(ctx)
	if h.context.Err() != nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if errors.Is(err, ErrUnknown) {
		return w.err == nil
	}
	first := errors.Is(w.err, ErrUnknown)
	before := w.err
	w.err = err
	if !first && (before == nil) == (err == nil) {
		if err != nil && before.Error() != err.Error() {
			h.tell()
		}
		return err == nil
	}
	w.since = time.Now()
	h.tell()
	switch {
	case err != nil:
		h.log.Warn("dependency is not there", zap.String("dependency", w.Name), zap.Error(err))
	case !first:
		h.log.Info("dependency is there", zap.String("dependency", w.Name))
	}
	return err == nil
}

// tell wakes those who wait for a change; mu is held.
func (h *Health) tell() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// Await waits until a dependency is there, or ctx is done, whose error it returns.
func (h *Health) Await(ctx context.Context, name string) error {
	for {
		h.mu.Lock()
		i := slices.IndexFunc(h.watched, func(w *watched) bool { return w.Name == name })
		there := i >= 0 && h.watched[i].err == nil
		changed := h.changed
		h.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", name, ctx.Err())
		}
	}
}

// Serve says that the node takes connections.
func (h *Health) Serve() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.serving = true
	h.tell()
}

// Drain says that the node is being stopped.
func (h *Health) Drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = true
	h.tell()
}

// Close stops asking.
func (h *Health) Close() {
	h.stop()
	h.asking.Wait()
}

// Readiness is whether a node should get new connections.
type Readiness struct {
	Ready        bool     `json:"ready"`
	Draining     bool     `json:"draining"`
	Missing      []string `json:"missing,omitempty"`  // why it is not ready
	Degraded     []string `json:"degraded,omitempty"` // what it can do without
	Dependencies []State  `json:"dependencies"`
}

// Readiness says whether the node is ready now. It waits for nothing.
func (h *Health) Readiness() Readiness {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := Readiness{Draining: h.draining, Dependencies: []State{}}
	for _, w := range h.watched {
		s := State{Name: w.Name, Up: w.err == nil, Required: w.Required, Since: w.since}
		if w.err != nil {
			s.Error = w.err.Error()
			line := w.Name + ": " + s.Error
			if w.Required && (!h.serving || time.Since(w.since) >= w.Patience) {
				r.Missing = append(r.Missing, line)
			} else {
				r.Degraded = append(r.Degraded, line)
			}
		}
		r.Dependencies = append(r.Dependencies, s)
	}
	switch {
	case h.draining:
		r.Missing = append([]string{"draining"}, r.Missing...)
	case !h.serving && len(r.Missing) == 0:
		r.Missing = []string{"starting"}
	}
	r.Ready = len(r.Missing) == 0
	return r
}
