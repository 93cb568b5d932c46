package mailstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"starling/events"
	"starling/metadata"
)

// CollectReport is what a run of the collector did.
type CollectReport struct {
	Mailboxes  int   `json:"mailboxes"`  // in which expunged messages were collected
	Dropped    int   `json:"dropped"`    // deleted mailboxes that were removed
	Messages   int64 `json:"messages"`   // rows deleted
	Chunks     int   `json:"chunks"`     // of 128 UIDs each, that held nothing any more
	Keywords   int   `json:"keywords"`   // that no message has any more
	Deliveries int64 `json:"deliveries"` // forgotten, so that they could be made again
	Threads    int64 `json:"threads"`    // message ids forgotten whose threads have no message any more
	Scanned    int   `json:"scanned"`    // accounts of which all objects were compared with the messages
	Orphans    int64 `json:"orphans"`    // objects found that no message names
	Uploads    int64 `json:"uploads"`    // that were begun and never finished, ended
	Objects    int64 `json:"objects"`    // deleted from the store
	Named      int64 `json:"named"`      // objects due to be deleted that a message still names; they come again later
	Accounts   int   `json:"accounts"`   // removed for good
	Emptied    int   `json:"emptied"`    // accounts being deleted that are empty so far, or nearly
	Failed     int   `json:"failed"`     // mailboxes and accounts that something went wrong with; the log says what
	// Unaccepted says that nothing was collected (any more), because the database is of
	// another epoch than the one that was accepted.
	Unaccepted bool `json:"unaccepted"`
}

const (
	// collectPage is how much work is listed at a time.
	collectPage = 1000
	// collectLease is how long a claim lasts. It is made again before every part of
	// the work, and what two nodes do at the same time does no harm.
	collectLease = 5 * time.Minute
	// collectFailures is how much in a row may fail until the run is given up:
	// something is away then, and the next run is soon enough.
	collectFailures = 10
	// deliveryAge is how long a delivery that is tried again is known.
	deliveryAge = 7 * 24 * time.Hour
)

// collectLoop runs the collector from time to time, on no two nodes at the same time.
func (s *Store) collectLoop(ctx context.Context) {
	interval := func() time.Duration { return s.cfg.Collect/2 + rand.N(s.cfg.Collect) } //nolint:gosec // jitter
	every(ctx, interval, func() {
		report, err := s.Collect(ctx, 0)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			s.log.Warn("collector ended early", zap.Error(err))
		case report != (CollectReport{}):
			s.log.Info("collected", zap.Any("report", report))
		}
		if report.Unaccepted {
			s.log.Warn("the database is of an epoch that nobody accepted: nothing is collected; see starling epoch --help")
		}
	})
}

// Collect does all of the collector's work that is due: it deletes what was
// expunged longer ago than Config.Retention, deleted mailboxes likewise, objects
// that nobody has named for Config.BackupWindow, and what is left of deleted
// accounts. With an account that is not 0 only that one's, and its objects are
// compared with its messages now, not when it is its turn. Any number of nodes
// may do it at the same time. What fails is logged and counted, and the rest goes
// on; the error is for what ends the run.
//
// After a failover or a restore nothing is collected until somebody has said that all is
// well with the database (metadata.DB.AcceptEpoch): what it says is due, or named by no
// message, may be the last copy of mail that it has forgotten.
func (s *Store) Collect(ctx context.Context, account metadata.AccountID) (report CollectReport, err error) {
	defer func(began time.Time) {
		s.metrics.collect(&report, err)
		s.runs.Lock()
		defer s.runs.Unlock()
		s.lastCollect = CollectRun{LastRun: lastRun(began, err), Report: report}
	}(time.Now())
	c := &collector{store: s, db: s.db.Background(), account: account, owner: randomID()}
	for _, gauge := range s.metrics.backlog {
		gauge.Set(0)
	}
	for _, step := range []struct {
		what string
		run  func(context.Context) error
	}{
		{"collect expunged messages", c.expunged},
		{"collect deleted mailboxes", c.dropped},
		{"forget deliveries", c.deliveries},
		{"look for orphans", c.orphans},
		{"delete objects", c.doomed},
		{"delete accounts", c.accounts},
	} {
		err := c.accepted(ctx)
		if err == nil {
			err = step.run(ctx)
		}
		if errors.Is(err, errUnaccepted) {
			c.report.Unaccepted = true
			return c.report, nil
		}
		if err != nil {
			return c.report, fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return c.report, nil
}

// collector is a run of the collector.
type collector struct {
	store   *Store
	db      *metadata.DB
	account metadata.AccountID // 0: all
	owner   int64              // of the leases
	pace    pace
	failing int // how much failed since something succeeded
	report  CollectReport
}

// errUnaccepted ends a run: the epoch is not accepted (any more).
var errUnaccepted = errors.New("epoch is not accepted")

// accepted asks whether there may be collected. It is asked again before each piece of
// work, because a failover may come at any time, and the run would go on.
func (c *collector) accepted(ctx context.Context) error {
	ok, err := c.db.EpochAccepted(ctx)
	if err == nil && !ok {
		err = errUnaccepted
	}
	return err
}

// claimed does work that nobody else does. It counts what fails, unless that
// is the end of the run.
func (c *collector) claimed(ctx context.Context, t task, ref metadata.BoxRef, work func() error) error {
	mine, err := c.db.Claim(ctx, ref, c.owner, collectLease)
	if err != nil || !mine {
		return err
	}
	if err = c.accepted(ctx); err == nil {
		err = work()
	}
	switch {
	case errors.Is(err, errUnaccepted):
	case err == nil:
		c.failing = 0
		c.store.metrics.backlog[t].Dec()
	case ctx.Err() != nil:
		err = ctx.Err()
	case errors.Is(err, metadata.ErrHeld), errors.Is(err, metadata.ErrNoMailbox), errors.Is(err, metadata.ErrConflict):
		c.store.metrics.backlog[t].Dec()
		err = nil // it is somebody else's, or nobody's, by now
	default:
		c.report.Failed++
		c.store.log.Warn("collector", accountField(ref.Account), zap.Int64("mailbox", int64(ref.Mailbox)), zap.Error(err))
		if c.failing++; c.failing < collectFailures {
			err = nil
		}
	}
	// What is not released ends by itself.
	if rerr := c.db.Release(context.WithoutCancel(ctx), ref, c.owner); err == nil {
		err = rerr
	}
	return err
}

// accountField is the account as in the prefix of its objects, and as starling account show takes it: its name may be gone.
func accountField(id metadata.AccountID) zap.Field {
	return zap.String("account", fmt.Sprintf("%016x", int64(id)))
}

// renew makes the claim on an account last longer. Whether it does is not
// important enough to stop for; that the epoch is another one by now is, or that the
// account is on hold: to delete all its objects can take hours.
func (c *collector) renew(ctx context.Context, account metadata.AccountID) error {
	if _, err := c.db.Claim(ctx, metadata.BoxRef{Account: account}, c.owner, collectLease); err != nil {
		return err
	}
	if err := c.accepted(ctx); err != nil {
		return err
	}
	h, err := c.db.Hold(ctx, account)
	if h.Held || errors.Is(err, metadata.ErrNotFound) { // another node has removed it
		return metadata.ErrHeld
	}
	return err
}

type listDue func(ctx context.Context, account metadata.AccountID, retention time.Duration, after *metadata.Due, limit int) ([]metadata.Due, error)

// eachDue works on all mailboxes that list lists.
func (c *collector) eachDue(ctx context.Context, t task, list listDue, work func(metadata.Due) error) error {
	var last *metadata.Due
	for {
		page, err := list(ctx, c.account, c.store.cfg.Retention, last, collectPage)
		if err != nil {
			return err
		}
		c.store.metrics.backlog[t].Add(float64(len(page)))
		for _, due := range page {
			if err := c.claimed(ctx, t, due.BoxRef, func() error { return work(due) }); err != nil {
				return err
			}
		}
		if len(page) < collectPage {
			return nil
		}
		last = &page[len(page)-1]
	}
}

func (c *collector) expunged(ctx context.Context) error {
	return c.eachDue(ctx, taskExpunged, c.db.DueExpunged, func(due metadata.Due) error {
		done, err := c.db.Collect(ctx, due.BoxRef, due.Through)
		c.count(done)
		if done.Version != (metadata.Version{}) {
			c.report.Mailboxes++
			err = errors.Join(err, c.store.collected(ctx, due.BoxRef, done.Version))
		}
		return err
	})
}

func (c *collector) dropped(ctx context.Context) error {
	return c.eachDue(ctx, taskDropped, c.db.DueDropped, func(due metadata.Due) error {
		done, err := c.db.CollectDropped(ctx, due.BoxRef)
		c.count(done)
		if err == nil {
			c.report.Dropped++
		}
		return err
	})
}

func (c *collector) count(done metadata.Collected) {
	c.report.Messages += int64(done.Messages)
	c.report.Chunks += done.Chunks
	c.report.Keywords += done.Keywords
}

// collected brings what this node holds of the mailbox to the new version, and
// tells the others.
func (s *Store) collected(ctx context.Context, ref metadata.BoxRef, v metadata.Version) error {
	s.publish(s.cause(ctx).stamp(events.Event{
		Account: int64(ref.Account), Mailbox: int64(ref.Mailbox), Kind: events.Changed,
		ModSeq: v.ModSeq, Epoch: v.Epoch,
	}))
	if b := s.lookup(ref); b != nil {
		return b.refresh(ctx)
	}
	return nil
}

func (c *collector) deliveries(ctx context.Context) error {
	for after := metadata.AccountID(0); ; {
		n, last, err := c.db.ForgetDeliveries(ctx, c.account, after, deliveryAge)
		c.report.Deliveries += n
		if err != nil || last == 0 {
			return err
		}
		after = last
	}
}
