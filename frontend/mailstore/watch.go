package mailstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"starling/events"
	"starling/metadata"
)

// sweepBatch is how many mailboxes one query of the sweep asks about.
const sweepBatch = 1000

// follow acts on the hints of other nodes until ctx is done.
func (s *Store) follow(ctx context.Context) error {
	for {
		news, err := s.sub.Next(ctx)
		if err != nil {
			return unlessStopped(ctx, err)
		}
		s.deaf.Store(!news.Connected)
		for _, e := range news.Events {
			s.heard(e)
		}
		if len(news.Suspect) > 0 {
			shards := slices.Clone(news.Suspect)
			s.work.Go(func() { s.sweepShards(shards) })
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

func (s *Store) heard(e events.Event) {
	account := metadata.AccountID(e.Account)
	switch e.Kind {
	case events.Changed:
		b := s.lookup(metadata.BoxRef{Account: account, Mailbox: metadata.MailboxID(e.Mailbox)})
		if b == nil {
			return
		}
		if cur := b.current.Load(); cur != nil && cur.row.Epoch == e.Epoch && cur.row.ModSeq >= e.ModSeq && e.ModSeq > 0 {
			return
		}
		s.catchUp(b)
	case events.Auth:
		s.work.Go(func() { s.proveLogins([]metadata.AccountID{account}) })
	case events.List:
		// Names are looked up when they are used; nothing is held of the list.
	}
}

// catchUp reads b's changes in the background. If that fails, the sweep comes back to it.
func (s *Store) catchUp(b *box) {
	s.work.Go(func() {
		err := b.refresh(context.Background())
		if err != nil && !errors.Is(err, metadata.ErrNoMailbox) {
			s.log.Warn("mailbox not brought up to date", zap.Int64("account", int64(b.ref.Account)),
				zap.Int64("mailbox", int64(b.ref.Mailbox)), zap.Error(err))
		}
	})
}

func (s *Store) sweepLoop(ctx context.Context) {
	interval := func() time.Duration {
		if s.deaf.Load() {
			return s.cfg.SweepDeaf
		}
		return s.cfg.Sweep
	}
	every(ctx, interval, func() { s.sweep(func(metadata.AccountID) bool { return true }) })
}

func (s *Store) sweepShards(shards []events.Shard) {
	s.sweep(func(id metadata.AccountID) bool { return slices.Contains(shards, events.ShardOf(int64(id))) })
}

// sweep compares what the node holds of the accounts for which want is true
// with PostgreSQL, and reads what changed: it finds what no hint told of.
func (s *Store) sweep(want func(metadata.AccountID) bool) {
	for batch := range slices.Chunk(s.held(want), sweepBatch) {
		if err := s.compare(batch); err != nil {
			s.log.Warn("sweep", zap.Error(err))
			return
		}
	}
	s.proveLogins(s.loggedIn(want))
}

func (s *Store) compare(boxes []*box) error {
	refs := make([]metadata.BoxRef, len(boxes))
	for i, b := range boxes {
		refs[i] = b.ref
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.ReadTimeout)
	defer cancel()
	pulses, err := s.db.Pulses(ctx, refs)
	if err != nil {
		return fmt.Errorf("compare %d mailboxes: %w", len(boxes), err)
	}
	for _, p := range pulses {
		b := s.lookup(p.BoxRef)
		if b == nil {
			continue
		}
		if cur := b.current.Load(); p.Dropped || cur == nil || cur.row.Version != p.Version {
			s.catchUp(b)
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

// proveLogins ends the sessions of accounts that were suspended, deleted, or
// have another password than the one the session logged in with.
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
			s.endSessions(id, now[id])
		}
	}
}

func (s *Store) endSessions(id metadata.AccountID, now metadata.AccountPulse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.accounts[id]
	if r == nil {
		return
	}
	for a := range r.sessions {
		if now.State != metadata.Active || now.AuthVersion != a.row.AuthVersion {
			a.ended()
		}
	}
}
