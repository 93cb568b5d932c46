package mailstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"starling/blobstore"
	"starling/blobstore/codec"
	"starling/events"
	"starling/metadata"
)

// Config is what a Store is made of. DB, Blobs, Bus and Log must be given;
// what else is zero has the default named beside it.
type Config struct {
	DB    *metadata.DB
	Blobs blobstore.Store
	Bus   events.Bus
	Log   *zap.Logger

	TempDir    string // where large messages wait for their PUT; "": the system's
	MaxMessage int64  // octets of the largest message taken in; 64 MiB
	Inflight   int64  // octets of memory for messages on their way in; 12 % of GOMEMLIMIT, or 512 MiB

	SnapshotMemory int64 // octets of memory for the mailboxes that are held; 40 % of GOMEMLIMIT, or 2 GiB
	ReadMemory     int64 // octets of memory for rows and bodies that are read to answer with; 12 % of GOMEMLIMIT, or 512 MiB
	RowMemory      int64 // octets of memory for rows that were read to answer with, to read them no more; 8 % of GOMEMLIMIT, or 256 MiB
	SearchMemory   int64 // octets of memory for what searches asked of messages, to ask no more; 5 % of GOMEMLIMIT, or 128 MiB
	ChangeMemory   int64 // octets of memory for changes of many messages; 8 % of GOMEMLIMIT, or 256 MiB

	ReadTimeout  time.Duration // for loading a mailbox; 15 s
	PutTimeout   time.Duration // for storing a message's object; 2 min
	Linger       time.Duration // how long a mailbox that nobody has open stays in memory; 1 min
	Sweep        time.Duration // how often open mailboxes are compared with PostgreSQL; 30 s
	SweepDeaf    time.Duration // the same while the bus is down; 2 s
	ListDelay    time.Duration // after which a changed list of mailboxes is written to Blobs too; 3 min
	OrphanGrace  time.Duration // age from which an object that no row names is an orphan; 72 h
	Retention    time.Duration // how long expunged mail can be brought back; 14 days, negative: not at all
	BackupWindow time.Duration // delay between the rows' deletion and the object's; 7 days, negative: none
	Relist       time.Duration // between two listings that find nothing of a deleted account; 1 h, negative: none
	DeleteRate   int           // objects that the collector deletes in a second; 200
	Collect      time.Duration // how often the collector looks for work; 10 min, negative: never

	Metrics prometheus.Registerer // where the figures are registered; nil: nowhere
	Traces  trace.TracerProvider  // nil: no traces
}

func (c *Config) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if c.MaxMessage == 0 {
		c.MaxMessage = 64 << 20
	}
	share := func(n *int64, percent, fallback int64) {
		if *n <= 0 {
			*n = memoryShare(percent, fallback)
		}
	}
	share(&c.Inflight, 12, 512<<20)
	share(&c.SnapshotMemory, 40, 2<<30)
	share(&c.ReadMemory, 12, 512<<20)
	share(&c.RowMemory, 8, 256<<20)
	share(&c.SearchMemory, 5, 128<<20)
	share(&c.ChangeMemory, 8, 256<<20)
	def(&c.ReadTimeout, 15*time.Second)
	def(&c.PutTimeout, 2*time.Minute)
	def(&c.Linger, time.Minute)
	def(&c.Sweep, 30*time.Second)
	def(&c.SweepDeaf, 2*time.Second)
	def(&c.ListDelay, 3*time.Minute)
	def(&c.OrphanGrace, 72*time.Hour)
	def(&c.Retention, 14*24*time.Hour)
	def(&c.BackupWindow, 7*24*time.Hour)
	def(&c.Relist, time.Hour)
	c.Retention, c.BackupWindow, c.Relist = max(c.Retention, 0), max(c.BackupWindow, 0), max(c.Relist, 0)
	if c.DeleteRate <= 0 {
		c.DeleteRate = 200
	}
	def(&c.Collect, 10*time.Minute)
}

// Store is a node's way to the mail of all accounts. It holds nothing that
// another node could not take over at any moment.
type Store struct {
	cfg     Config
	db      *metadata.DB
	blobs   blobstore.Store
	log     *zap.Logger
	codec   *codec.Codec
	metrics *metrics
	tracer  trace.Tracer // nil: no traces
	sub     events.Subscription
	watch   watch
	lists   lists
	proofs  *gather[*reading]
	names   *gather[*byName]
	work    sync.WaitGroup

	inflight  *budget // messages on their way in
	reads     *budget // bodies that are read to answer with
	rows      *budget // rows of messages that are
	changes   *budget // changes of many messages
	snapshots *budget // mailboxes that are held
	kept      *rowCache
	recall    *recall

	mu         sync.Mutex
	onShortage []func(of metadata.AccountID) // only ever grows
	accounts   map[metadata.AccountID]*resident
	boxes      atomic.Int64 // of all accounts; changed under mu
	idle       atomic.Int64 // of those, with no holders

	runs        sync.Mutex
	lastSweep   LastRun
	lastCollect CollectRun
}

// resident is an account of which a node holds something.
type resident struct {
	boxes    map[metadata.MailboxID]*box
	sessions map[*Account]struct{}
}

// New returns a Store. Run has to run while it is used.
func New(ctx context.Context, cfg Config) (*Store, error) {
	cfg.setDefaults()
	m := newMetrics(cfg.Metrics)
	coder, err := codec.New(codec.Options{Dir: cfg.TempDir, Corrupt: m.corrupt.Inc})
	if err != nil {
		return nil, fmt.Errorf("prepare compression: %w", err)
	}
	sub, err := cfg.Bus.Subscribe(ctx)
	if err != nil {
		return nil, fmt.Errorf("subscribe to changes: %w", err)
	}
	rows := cfg.ReadMemory / rowsShare
	s := &Store{
		cfg: cfg, db: cfg.DB, blobs: cfg.Blobs, log: cfg.Log, codec: coder, metrics: m, sub: sub, watch: newWatch(),
		inflight:  newBudget("take in a message beside others", cfg.Inflight, cfg.Inflight/budgetShare, m.refusedMessage),
		reads:     newBudget("read beside others", cfg.ReadMemory-rows, (cfg.ReadMemory-rows)/budgetShare, m.refusedRead),
		rows:      newBudget("read messages beside others", rows, rows/budgetShare, m.refusedRows),
		changes:   newBudget("change many messages beside others", cfg.ChangeMemory, cfg.ChangeMemory/budgetShare, m.refusedChange),
		snapshots: newBudget("load a mailbox beside others", cfg.SnapshotMemory, noShare, m.refusedSnapshot),
		kept:      newRowCache(cfg.RowMemory),
		recall:    newRecall(cfg.SearchMemory),
		accounts:  make(map[metadata.AccountID]*resident),
	}
	s.proofs, s.names = newGather(&s.work, s.prove), newGather(&s.work, s.find)
	s.lists.due = make(map[metadata.AccountID]time.Time)
	s.snapshots.room, s.snapshots.passes = s.makeRoom, true
	s.changes.wait = changeWait
	s.inflight.room, s.reads.room, s.rows.room = s.shortage, s.shortage, s.shortage
	if cfg.Traces != nil {
		s.tracer = cfg.Traces.Tracer("starling/frontend/mailstore")
	}
	s.register(cfg.Metrics)
	return s, nil
}

// MaxMessage is the size in octets of the largest message that is taken in
// (RFC 7889).
func (s *Store) MaxMessage() int64 { return s.cfg.MaxMessage }

// Run follows the changes of other nodes, sweeps, and collects, until ctx is
// done; then it waits for what is under way.
func (s *Store) Run(ctx context.Context) error {
	s.work.Go(func() { <-ctx.Done(); close(s.watch.stopped) })
	s.work.Go(func() { s.sweepLoop(ctx) })
	s.work.Go(func() { s.evictLoop(ctx) })
	s.work.Go(func() { s.listsLoop(ctx) })
	if s.cfg.Collect > 0 {
		s.work.Go(func() { s.collectLoop(ctx) })
	}
	err := s.follow(ctx)
	if cerr := s.sub.Close(); err == nil {
		err = cerr
	}
	s.work.Wait()
	return err
}

// residentOf is the account's entry, made if it is not there; mu is held.
func (s *Store) residentOf(id metadata.AccountID) *resident {
	r := s.accounts[id]
	if r == nil {
		r = &resident{boxes: make(map[metadata.MailboxID]*box), sessions: make(map[*Account]struct{})}
		s.accounts[id] = r
		s.sub.Follow(int64(id))
	}
	return r
}

// leave forgets the account if nothing of it is held; mu is held.
func (s *Store) leave(id metadata.AccountID) {
	if r := s.accounts[id]; r != nil && len(r.boxes) == 0 && len(r.sessions) == 0 {
		delete(s.accounts, id)
		s.sub.Unfollow(int64(id))
	}
}

// hold returns the mailbox's box, loaded; release gives it back. fresh says
// that it was loaded by this call. row is the mailbox's as it was read just now.
func (s *Store) hold(ctx context.Context, ref metadata.BoxRef, row *metadata.Mailbox) (b *box, fresh bool, err error) {
	s.mu.Lock()
	r := s.residentOf(ref.Account)
	b = r.boxes[ref.Mailbox]
	if b == nil {
		b = newBox(s, ref, row)
		r.boxes[ref.Mailbox] = b
		s.boxes.Add(1)
		s.idle.Add(1)
	}
	b.retain()
	s.mu.Unlock()
	if b.current.Load() != nil {
		return b, false, nil
	}
	if err := b.refresh(ctx); err != nil {
		b.release()
		return nil, false, err
	}
	return b, true, nil
}

func (b *box) retain() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.holders == 0 {
		b.store.idle.Add(-1)
	}
	b.holders++
}

// named is a held box of the account that was last seen under name; nil if
// there is none. It is retained.
func (s *Store) named(account metadata.AccountID, name string) *box {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.accounts[account]
	if r == nil {
		return nil
	}
	for _, b := range r.boxes {
		if cur := b.current.Load(); cur != nil && cur.row.Name == name && !b.isGone() {
			b.retain()
			return b
		}
	}
	return nil
}

// lookup is the box of ref if the node holds it.
func (s *Store) lookup(ref metadata.BoxRef) *box {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.accounts[ref.Account]; r != nil {
		return r.boxes[ref.Mailbox]
	}
	return nil
}

// held are the boxes that the node holds of accounts for which want is true.
func (s *Store) held(want func(metadata.AccountID) bool) []*box {
	s.mu.Lock()
	defer s.mu.Unlock()
	var boxes []*box
	for id, r := range s.accounts {
		if want(id) {
			for _, b := range r.boxes {
				boxes = append(boxes, b)
			}
		}
	}
	return boxes
}

func (s *Store) evictLoop(ctx context.Context) {
	every(ctx, func() time.Duration { return s.cfg.Linger / 4 }, func() { s.evict(time.Now().Add(-s.cfg.Linger)) })
}

// evict lets go of boxes that nobody has had open since before.
func (s *Store) evict(before time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, r := range s.accounts {
		for key, b := range r.boxes {
			if since, unused := b.unused(); unused && since.Before(before) {
				s.drop(r, key, b)
			}
		}
		s.leave(id)
	}
}

// makeRoom lets go of boxes that nobody has open, those first that were so for the
// longest time, until about n bytes are free. It says whether there were any. It looks at
// all boxes, so it goes on to a sixteenth of what all may have.
func (s *Store) makeRoom(_ metadata.AccountID, n int64) bool {
	if s.idle.Load() == 0 { // as when many wait because all are open
		return false
	}
	n = max(n, s.snapshots.most/16)
	type candidate struct {
		box  *box
		idle time.Time
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var unused []candidate
	for _, r := range s.accounts {
		for _, b := range r.boxes {
			if idle, ok := b.unused(); ok {
				unused = append(unused, candidate{b, idle})
			}
		}
	}
	slices.SortFunc(unused, func(x, y candidate) int { return x.idle.Compare(y.idle) })
	freed := int64(0)
	for _, c := range unused {
		if freed >= n {
			break
		}
		ref := c.box.ref
		freed += s.drop(s.accounts[ref.Account], ref.Mailbox, c.box)
		s.leave(ref.Account)
	}
	return freed > 0
}

// drop lets go of a box that is not used, and returns the memory it had; mu is held.
func (s *Store) drop(r *resident, id metadata.MailboxID, b *box) int64 {
	delete(r.boxes, id)
	s.boxes.Add(-1)
	s.idle.Add(-1)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropped = true
	had := b.charged
	b.charge()
	return had
}

// every runs do at intervals until ctx is done.
func every(ctx context.Context, interval func() time.Duration, do func()) {
	timer := time.NewTimer(interval())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			do()
			timer.Reset(interval())
		}
	}
}

// publish tells the other nodes. A hint that is not sent is found out about by
// the sweep.
func (s *Store) publish(hints ...events.Event) {
	if err := s.cfg.Bus.Publish(hints...); err != nil && !errors.Is(err, events.ErrClosed) {
		s.log.Debug("hint not published", zap.Error(err))
	}
}
