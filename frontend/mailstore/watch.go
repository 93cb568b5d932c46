package mailstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"starling/events"
	"starling/metadata"
)

// sweepBatch is how many mailboxes one query of the sweep asks about.
const sweepBatch = 1000

// maxCatchUps is how many mailboxes are read at a time because of hints and
// sweeps: the other connections are for commands.
const maxCatchUps = 4

// watch is what a node knows of changes that it may have missed.
type watch struct {
	due     chan struct{} // a token: the sweep has something to do before its time
	reading chan struct{} // a token for each mailbox that is read in the background
	stopped chan struct{} // closed when nothing is to be begun any more

	mu      sync.Mutex
	deaf    bool                      // the bus is known to be down
	all     bool                      // everything may have changed
	suspect map[events.Shard]struct{} // what of it may have changed
}

func newWatch() watch {
	return watch{
		due: make(chan struct{}, 1), reading: make(chan struct{}, maxCatchUps),
		stopped: make(chan struct{}), suspect: make(map[events.Shard]struct{}),
	}
}

// note takes in what the bus says of itself.
func (w *watch) note(connected bool, suspect []events.Shard) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !connected && !w.deaf {
		w.all = true // and from now on more often
	}
	w.deaf = !connected
	for _, shard := range suspect {
		w.suspect[shard] = struct{}{}
	}
	if !w.all && len(w.suspect) == 0 {
		return
	}
	select {
	case w.due <- struct{}{}:
	default:
	}
}

// take is what is to be compared now, and forgets it.
func (w *watch) take() (all bool, suspect map[events.Shard]struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all, suspect = w.all, w.suspect
	w.all, w.suspect = false, make(map[events.Shard]struct{})
	return all, suspect
}

func (w *watch) isDeaf() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.deaf
}

// follow acts on the hints of other nodes until ctx is done.
func (s *Store) follow(ctx context.Context) error {
	for {
		news, err := s.sub.Next(ctx)
		if err != nil {
			s.watch.note(false, nil)
			return unlessStopped(ctx, err)
		}
		s.watch.note(news.Connected, news.Suspect)
		var logins []metadata.AccountID
		for _, e := range news.Events {
			switch e.Kind {
			case events.Changed:
				s.heard(e)
			case events.Auth:
				logins = append(logins, metadata.AccountID(e.Account))
			case events.List:
				// Names are looked up when they are used; nothing is held of the list.
			}
		}
		if logins != nil {
			s.work.Go(func() { s.proveLogins(logins) })
		}
	}
}

// unlessStopped is the error with which following ended, nil if it was to end.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() == nil && !errors.Is(err, events.ErrClosed) {
		return fmt.Errorf("follow changes: %w", err)
	}
	return nil
}

// heard follows up a hint about a mailbox.
func (s *Store) heard(e events.Event) {
	b := s.lookup(metadata.BoxRef{Account: metadata.AccountID(e.Account), Mailbox: metadata.MailboxID(e.Mailbox)})
	if b == nil {
		return
	}
	if cur := b.current.Load(); cur != nil && cur.row.Epoch == e.Epoch && cur.row.ModSeq >= e.ModSeq && e.ModSeq > 0 {
		return
	}
	if e.At != 0 {
		s.metrics.hintLatency.Observe(causeOf(e).since().Seconds())
	}
	b.told(e)
	s.catchUp(b, forHint)
}

// catchUp reads b's changes in the background, unless that is about to be done.
// If it fails, the sweep comes back to it.
func (s *Store) catchUp(b *box, why reason) {
	if b.awaited.Swap(true) {
		return
	}
	s.work.Go(func() {
		select {
		case s.watch.reading <- struct{}{}:
		case <-s.watch.stopped:
			return
		}
		defer func() { <-s.watch.reading }()
		b.awaited.Store(false) // what is heard from here on may come too late for this read
		err := b.refreshFor(context.Background(), why)
		if err != nil && !errors.Is(err, metadata.ErrNoMailbox) {
			s.log.Warn("mailbox not brought up to date", zap.Int64("account", int64(b.ref.Account)),
				zap.Int64("mailbox", int64(b.ref.Mailbox)), zap.Error(err))
		}
	})
}

// sweepLoop compares all that the node holds at intervals, and at once what the
// bus finds suspect.
func (s *Store) sweepLoop(ctx context.Context) {
	interval := func() time.Duration {
		if s.watch.isDeaf() {
			return s.cfg.SweepDeaf
		}
		return s.cfg.Sweep
	}
	timer := time.NewTimer(interval())
	defer timer.Stop()
	for {
		all := true
		var suspect map[events.Shard]struct{}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.watch.due:
			all, suspect = s.watch.take()
		}
		if !all {
			_ = s.sweep(ctx, forSuspicion, func(id metadata.AccountID) bool { // which it logged
				_, is := suspect[events.ShardOf(int64(id))]
				return is
			})
			continue
		}
		began := time.Now()
		err := s.sweep(ctx, forSweep, func(metadata.AccountID) bool { return true })
		s.swept(began, err)
		timer.Reset(interval())
	}
}

// sweep compares what the node holds of the accounts for which want is true
// with PostgreSQL, and reads what changed: it finds what no hint told of.
func (s *Store) sweep(ctx context.Context, why reason, want func(metadata.AccountID) bool) error {
	for batch := range slices.Chunk(s.held(want), sweepBatch) {
		if err := s.compare(ctx, why, batch); err != nil {
			if ctx.Err() == nil {
				s.log.Warn("sweep", zap.Error(err))
			}
			return err
		}
	}
	s.proveLogins(s.loggedIn(want))
	return nil
}

// swept notes a sweep over all that is held.
func (s *Store) swept(began time.Time, err error) {
	run := lastRun(began, err)
	if err == nil {
		s.metrics.sweepDuration.Observe(run.Seconds)
		s.metrics.lastSweep.Set(seconds(run.At))
	}
	s.runs.Lock()
	defer s.runs.Unlock()
	s.lastSweep = run
}

func (s *Store) compare(ctx context.Context, why reason, boxes []*box) error {
	refs := make([]metadata.BoxRef, len(boxes))
	for i, b := range boxes {
		refs[i] = b.ref
	}
	asking, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	pulses, err := s.db.Pulses(asking, refs)
	if err != nil {
		return fmt.Errorf("compare %d mailboxes: %w", len(boxes), err)
	}
	for _, p := range pulses {
		b := s.lookup(p.BoxRef)
		if b == nil {
			continue
		}
		if cur := b.current.Load(); p.Dropped && !b.isGone() || !p.Dropped && (cur == nil || cur.row.Version != p.Version) {
			s.catchUp(b, why)
		}
	}
	return nil
}

func (s *Store) loggedIn(want func(metadata.AccountID) bool) []metadata.AccountID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []metadata.AccountID
	for id, r := range s.accounts {
		if len(r.sessions) > 0 && want(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// proveLogins has the sessions of accounts notice what became of those.
func (s *Store) proveLogins(ids []metadata.AccountID) {
	for batch := range slices.Chunk(ids, sweepBatch) {
		ctx, cancel := context.WithTimeout(context.Background(), s.cfg.ReadTimeout)
		pulses, err := s.db.AccountPulses(ctx, batch)
		cancel()
		if err != nil {
			s.log.Warn("logins not compared", zap.Error(err))
			return
		}
		now := make(map[metadata.AccountID]metadata.AccountPulse, len(pulses))
		for _, p := range pulses {
			now[p.Account] = p
		}
		for _, id := range batch {
			s.noticed(id, now[id])
		}
	}
}
