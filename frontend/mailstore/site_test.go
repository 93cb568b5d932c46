package mailstore_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"starling/blobstore"
	"starling/blobstore/memory"
	"starling/events"
	hub "starling/events/memory"
	"starling/frontend/mailstore"
	"starling/metadata"
	"starling/metadata/metadatatest"
)

// guard is an object store that fails the test when an object goes that a
// message names.
type guard struct {
	blobstore.Store
	t       *testing.T
	db      *metadata.DB
	aged    atomic.Bool // everything looks as if it were put long ago
	away    atomic.Bool // nothing can be deleted
	deleted atomic.Int64

	once func() // called before the first deletion
	do   sync.Once
}

func (g *guard) Delete(ctx context.Context, key blobstore.Key) error {
	id, _ := key.Account()
	object, _ := key.Object()
	for _, row := range rowsOf(g.t, g.db, metadata.AccountID(id)) {
		for _, m := range row {
			if m.Object == metadata.ObjectID(object) {
				g.t.Errorf("object %s is deleted, message %d names it", key, m.UID)
			}
		}
	}
	if g.once != nil {
		g.do.Do(g.once)
	}
	if g.away.Load() {
		return blobstore.ErrUnavailable
	}
	g.deleted.Add(1)
	return g.Store.Delete(ctx, key)
}

func (g *guard) List(ctx context.Context, prefix, after string) iter.Seq2[blobstore.Info, error] {
	return func(yield func(blobstore.Info, error) bool) {
		for info, err := range g.Store.List(ctx, prefix, after) {
			if g.aged.Load() {
				info.Modified = info.Modified.Add(-100 * time.Hour)
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// keys are the objects of an account.
func (g *guard) keys(account metadata.AccountID) map[metadata.ObjectID]bool {
	all := map[metadata.ObjectID]bool{}
	for info, err := range g.Store.List(g.t.Context(), blobstore.AccountPrefix(int64(account)), "") {
		if err != nil {
			g.t.Fatal(err)
		}
		object, _ := info.Key.Object()
		all[metadata.ObjectID(object)] = true
	}
	return all
}

// rowsOf are the rows of messages of all mailboxes of an account.
func rowsOf(t *testing.T, db *metadata.DB, account metadata.AccountID) map[metadata.MailboxID]map[uint32]metadata.Message {
	ctx := context.WithoutCancel(t.Context())
	all := map[metadata.MailboxID]map[uint32]metadata.Message{}
	list, err := db.List(ctx, account)
	if errors.Is(err, metadata.ErrNotFound) {
		return nil
	}
	if err != nil {
		t.Error(err)
		return nil
	}
	for _, box := range list.Mailboxes {
		rows := map[uint32]metadata.Message{}
		all[box.ID] = rows
		err := db.Messages(ctx, account, box.ID, []metadata.UIDRange{{First: 1, Last: 1<<32 - 1}},
			metadata.ColBlob|metadata.ColSize|metadata.ColIDs|metadata.ColDates, func(m *metadata.Message) error {
				kept := *m
				kept.Extent = nil
				rows[m.UID] = kept
				return nil
			})
		if err != nil {
			t.Error(err)
		}
	}
	return all
}

// site is a database, an object store and a bus, on which stores are made.
type site struct {
	t       *testing.T
	dsn     string
	db      *metadata.DB
	blobs   *guard
	bus     hub.Hub
	account metadata.Account
}

func newSite(t *testing.T, limits metadata.Quota) *site {
	t.Helper()
	s := &site{t: t, dsn: metadatatest.DSN(t)}
	s.db = s.connect()
	s.blobs = &guard{Store: memory.New(), t: t, db: s.db}
	s.account = metadatatest.Account(t, s.db, "a@example.org", func(n *metadata.NewAccount) {
		n.Limits, n.Mailboxes = limits, []metadata.NewMailbox{{Name: "Archive"}}
	})
	return s
}

func (s *site) connect() *metadata.DB {
	s.t.Helper()
	db, err := metadata.Open(s.t.Context(), metadata.Config{DSN: s.dsn, MaxConns: 10})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(db.Close)
	return db
}

// store makes a store that collects at once, but only when it is told to.
func (s *site) store(options ...func(*mailstore.Config)) *mailstore.Store {
	s.t.Helper()
	bus, err := s.bus.Open(events.Options{Heartbeat: 50 * time.Millisecond})
	if err != nil {
		s.t.Fatal(err)
	}
	cfg := mailstore.Config{
		DB: s.connect(), Blobs: s.blobs, Bus: bus, Log: zaptest.NewLogger(s.t, zaptest.Level(zap.WarnLevel)), TempDir: s.t.TempDir(),
		Collect: -1, Retention: -1, BackupWindow: -1, Relist: -1, DeleteRate: 1_000_000,
	}
	for _, option := range options {
		option(&cfg)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	store, err := mailstore.New(ctx, cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := store.Run(ctx); err != nil {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := bus.Close(); err != nil {
			s.t.Error(err)
		}
	})
	return store
}

func (s *site) open(store *mailstore.Store, name string, changed func()) (*mailstore.Account, *mailstore.Mailbox) {
	s.t.Helper()
	account := store.Account(s.account, func() {})
	s.t.Cleanup(account.Close)
	box, err := account.Open(s.t.Context(), name, changed)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(box.Close)
	return account, box
}

func deliver(ctx context.Context, a *mailstore.Account, mailbox, text string, flags mailstore.FlagSet) (uint32, error) {
	u, err := a.Upload(ctx, mailstore.Incoming{Mailbox: mailbox, Flags: flags}, int64(len(text)))
	if err != nil {
		return 0, err
	}
	defer u.Discard()
	if _, err := io.WriteString(u, text); err != nil {
		return 0, err
	}
	done, err := u.Append(ctx, nil)
	return done.UID, err
}

const letter = "From: a@example.org\r\nSubject: x\r\n\r\nhello\r\n"

func uids(first, last uint32) []metadata.UIDRange {
	return []metadata.UIDRange{{First: first, Last: last}}
}

// settle collects what is left, an orphan included, and checks everything.
func (s *site) settle(store *mailstore.Store) {
	s.t.Helper()
	ctx := s.t.Context()
	orphan := blobstore.NewKey(int64(s.account.ID))
	if _, err := s.blobs.Put(ctx, orphan, strings.NewReader("x"), 1); err != nil {
		s.t.Fatal(err)
	}
	s.blobs.aged.Store(true)
	report, err := store.Collect(ctx, s.account.ID)
	if err != nil {
		s.t.Fatal(err)
	}
	if report.Orphans == 0 || report.Scanned != 1 || report.Failed > 0 {
		s.t.Errorf("collected %+v", report)
	}
	// What was not looked at because a moved row still named it comes now.
	again, err := store.Collect(ctx, s.account.ID)
	if err != nil {
		s.t.Fatal(err)
	}
	if again.Messages != 0 || again.Objects != report.Named || again.Orphans != 0 || again.Named != 0 {
		s.t.Errorf("collected %+v, then %+v", report, again)
	}
	s.sound()
}

// sound checks the rows, counters and objects of the account, of which
// everything that was expunged has been collected.
func (s *site) sound() {
	s.t.Helper()
	ctx := s.t.Context()
	list, err := s.db.List(ctx, s.account.ID)
	if err != nil {
		s.t.Fatal(err)
	}
	rows := rowsOf(s.t, s.db, s.account.ID)
	keys, owners := s.blobs.keys(s.account.ID), map[metadata.ObjectID]bool{}
	delete(keys, metadata.ObjectID{}) // the list of mailboxes
	var used metadata.Quota
	for _, box := range list.Mailboxes {
		load, err := s.db.Load(ctx, s.account.ID, box.ID, metadata.Version{})
		if err != nil {
			s.t.Fatal(err)
		}
		var counted metadata.Counters
		var flags metadata.Flags
		live := 0
		for _, c := range load.Chunks {
			for i := range c.Len() {
				slot := c.Slot(i)
				flags |= slot.Flags
				if !slot.Live() {
					continue
				}
				live++
				uid := c.First() + uint32(i)
				m, ok := rows[box.ID][uid]
				if !ok {
					s.t.Errorf("%s: message %d has no row", box.Name, uid)
				}
				if !keys[m.Object] {
					s.t.Errorf("%s: message %d has no object", box.Name, uid)
				}
				owners[m.Object] = true
				counted = counted.Add(countersOf(slot, m.Size))
			}
		}
		if counted != load.Mailbox.Counters {
			s.t.Errorf("%s: counters are %+v, counted %+v", box.Name, load.Mailbox.Counters, counted)
		}
		if len(rows[box.ID]) != live {
			s.t.Errorf("%s: %d rows, %d messages", box.Name, len(rows[box.ID]), live)
		}
		for i, name := range load.Mailbox.Keywords {
			if used := flags&metadata.Keyword(i) != 0; used && name == "" {
				s.t.Errorf("%s: keyword %d has no name and is used", box.Name, i)
			}
		}
		used.Messages += counted.Messages
		used.Bytes += counted.Bytes
	}
	if len(keys) != len(owners) {
		s.t.Errorf("%d objects, messages name %d", len(keys), len(owners))
	}
	if got, err := s.db.Usage(ctx, s.account.ID); err != nil || got != used {
		s.t.Errorf("usage is %+v, counted %+v, %v", got, used, err)
	}
	if doomed, err := s.db.Doomed(ctx, s.account.ID, 0, metadata.ObjectID{}, 10); err != nil || len(doomed) > 0 {
		s.t.Errorf("doomed are still %x, %v", doomed, err)
	}
}

func countersOf(slot metadata.Slot, size int64) metadata.Counters {
	c := metadata.Counters{Messages: 1, Bytes: size}
	if slot.Flags&metadata.Seen == 0 {
		c.Unseen = 1
	}
	if slot.Flags&metadata.Deleted != 0 {
		c.Deleted, c.DeletedBytes = 1, size
	}
	return c
}

func (s *site) collect(store *mailstore.Store, account metadata.AccountID) mailstore.CollectReport {
	s.t.Helper()
	report, err := store.Collect(s.t.Context(), account)
	if err != nil {
		s.t.Fatal(err)
	}
	return report
}

func (s *site) deliver(a *mailstore.Account, mailbox string, flags mailstore.FlagSet) uint32 {
	s.t.Helper()
	uid, err := deliver(s.t.Context(), a, mailbox, letter, flags)
	if err != nil {
		s.t.Fatal(err)
	}
	return uid
}

func (s *site) expunge(box *mailstore.Mailbox, first, last uint32) *mailstore.Snapshot {
	s.t.Helper()
	view, err := box.Refresh(s.t.Context())
	if err == nil {
		_, err = box.Store(s.t.Context(), mailstore.StoreFlags{
			View: view, UIDs: uids(first, last), Mode: mailstore.AddFlags, Flags: mailstore.FlagSet{System: metadata.Deleted},
		})
	}
	if err == nil {
		view, err = box.Expunge(s.t.Context(), box.Snapshot(), uids(first, last))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return view
}
