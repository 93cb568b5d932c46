package mailstore

import (
	"context"
	"time"

	"starling/events"
	"starling/metadata"
)

// Status is what a node's Store does now, for people to look at. Figures over time
// are in the metrics.
type Status struct {
	Accounts  int        `json:"accounts"`  // with sessions
	Sessions  int        `json:"sessions"`  // logged in, and deliveries under way
	Mailboxes int        `json:"mailboxes"` // held in memory
	Open      int        `json:"open"`      // of them, opened by sessions
	Snapshots Memory     `json:"snapshots"` // of mailboxes held
	Inflight  Memory     `json:"inflight"`  // of messages on their way in
	Reads     Memory     `json:"reads"`     // of bodies read to answer with
	Rows      Memory     `json:"rows"`      // of rows read to answer with
	Deaf      bool       `json:"deaf"`      // hints of other nodes are known not to arrive: the sweep runs more often
	Sweep     LastRun    `json:"sweep"`     // over all that is held
	Collector CollectRun `json:"collector"` // on this node
}

// Memory is a budget, in bytes.
type Memory struct {
	Used int64 `json:"used"`
	Most int64 `json:"most"`
}

// LastRun is the last run of something; At is the zero time if it never ran.
type LastRun struct {
	At      time.Time `json:"at,omitzero"` // of its end
	Seconds float64   `json:"seconds"`     // that it took
	Error   string    `json:"error,omitempty"`
}

// CollectRun is the last run of the collector, and what it did.
type CollectRun struct {
	LastRun
	Report CollectReport `json:"report"`
}

func lastRun(began time.Time, err error) LastRun {
	now := time.Now()
	r := LastRun{At: now, Seconds: now.Sub(began).Seconds()}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// Status is the Store as it is now. It asks no other server.
func (s *Store) Status() Status {
	v := Status{
		Snapshots: s.snapshots.status(), Inflight: s.inflight.status(), Reads: s.reads.status(), Rows: s.rows.status(), Deaf: s.watch.isDeaf(),
	}
	s.runs.Lock()
	v.Sweep, v.Collector = s.lastSweep, s.lastCollect
	s.runs.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.accounts {
		if len(r.sessions) > 0 {
			v.Accounts++
		}
		v.Sessions += len(r.sessions)
		v.Mailboxes += len(r.boxes)
		for _, b := range r.boxes {
			b.mu.Lock()
			if len(b.sessions) > 0 {
				v.Open++
			}
			b.mu.Unlock()
		}
	}
	return v
}

func (f *budget) status() Memory { return Memory{Used: f.inUse(), Most: f.most} }

// SetTrace has the protocol of an account's sessions logged until then, on all
// nodes; with the zero time, no longer. name is the account's, or an alias;
// metadata.ErrNotFound says that there is none.
func (s *Store) SetTrace(ctx context.Context, name string, until time.Time) error {
	if !canBeAsked(name) {
		return metadata.ErrNotFound
	}
	row, err := s.db.Recipient(ctx, name)
	if err != nil {
		return err
	}
	now, err := s.db.SetTrace(ctx, row.ID, until)
	if err != nil {
		return err
	}
	s.noticed(row.ID, now)
	s.publish(s.cause(ctx).stamp(events.Event{Account: int64(row.ID), Kind: events.Auth, ModSeq: now.AuthVersion}))
	return nil
}

// TraceUntil is until when the session's protocol is to be logged; the zero time:
// not at all. It asks nobody, and may change at any time.
func (a *Account) TraceUntil() time.Time {
	if at := a.traced.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

func (a *Account) setTraced(until time.Time) {
	at := int64(0)
	if !until.IsZero() {
		at = until.UnixNano()
	}
	a.traced.Store(at)
}

// noticed has the sessions of an account take in what PostgreSQL says of it: they
// end if it was suspended, deleted, or has another password than the one they
// logged in with.
func (s *Store) noticed(id metadata.AccountID, now metadata.AccountPulse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.accounts[id]
	if r == nil {
		return
	}
	for a := range r.sessions {
		a.setTraced(now.TraceUntil)
		if now.State != metadata.Active || now.AuthVersion != a.row.AuthVersion {
			a.ended()
		}
	}
}
