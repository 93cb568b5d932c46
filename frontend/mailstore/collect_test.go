package mailstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
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

// actor is a session that does this and that with two mailboxes.
type actor struct {
	*site
	store *mailstore.Store
	acc   *mailstore.Account
	boxes [2]*mailstore.Mailbox
	rnd   *rand.Rand
	did   *deeds
}

// deeds count what was done.
type deeds struct{ appended, expunged, moved, copied, undeleted, read atomic.Int64 }

var boxNames = [2]string{"INBOX", "Archive"}

// TestCollectRace: sessions on two nodes append, store, expunge, copy, move,
// undelete and read, while the collectors of both run all the time and keep
// nothing. No object goes that a message names; in the end all that is named is
// there, and nothing else.
func TestCollectRace(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{Messages: 1 << 40})
	end := time.Now().Add(4 * time.Second)
	var did deeds
	var working, collecting sync.WaitGroup
	stop := make(chan struct{})
	var stores []*mailstore.Store
	for n := range 2 {
		store := s.store()
		stores = append(stores, store)
		for i := range 3 {
			a := &actor{site: s, store: store, rnd: rand.New(rand.NewPCG(1, uint64(10*n+i))), did: &did}
			for i, name := range boxNames {
				a.acc, a.boxes[i] = s.open(store, name, func() {})
			}
			working.Go(func() {
				for time.Now().Before(end) && !t.Failed() {
					if err := a.step(context.WithoutCancel(t.Context())); err != nil {
						t.Error(err)
					}
				}
			})
		}
		collecting.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				report, err := store.Collect(context.WithoutCancel(t.Context()), 0)
				if err != nil {
					t.Error(err)
					return
				}
				if report.Failed > 0 {
					t.Errorf("collected %+v", report)
				}
			}
		})
	}
	working.Wait()
	close(stop)
	collecting.Wait()
	if t.Failed() {
		return
	}
	racing := s.blobs.deleted.Load()
	s.settle(stores[0])
	t.Logf("appended %d, expunged %d, copied %d, moved %d, undeleted %d, read %d; %d objects deleted meanwhile",
		did.appended.Load(), did.expunged.Load(), did.copied.Load(), did.moved.Load(), did.undeleted.Load(), did.read.Load(), racing)
	for what, n := range map[string]int64{
		"expunges": did.expunged.Load(), "copies": did.copied.Load(), "moves": did.moved.Load(),
		"undeletes": did.undeleted.Load(), "deletes": racing,
	} {
		if n < 5 {
			t.Errorf("%d %s are no race", n, what)
		}
	}
}

func (a *actor) step(ctx context.Context) error {
	from := a.rnd.IntN(2)
	box, name, other := a.boxes[from], boxNames[from], boxNames[1-from]
	view := box.Snapshot()
	if a.rnd.IntN(3) == 0 {
		var err error
		if view, err = box.Refresh(ctx); err != nil {
			return err
		}
	}
	keyword := fmt.Sprintf("k%d", a.rnd.IntN(8))
	kind := a.rnd.IntN(14)
	if view.Len() == 0 || kind < 4 {
		flags := mailstore.FlagSet{}
		if kind == 0 {
			flags.Keywords = []string{keyword}
		}
		_, err := deliver(ctx, a.acc, name, letter+strings.Repeat("x", a.rnd.IntN(200)), flags)
		a.did.appended.Add(1)
		return err
	}
	first := view.UID(a.rnd.IntN(view.Len()))
	last := first + uint32(a.rnd.IntN(3))
	args := mailstore.CopyArgs{View: view, UIDs: uids(first, last), Dest: other}
	switch kind {
	case 4, 5:
		return a.setFlags(ctx, box, view, uids(first, last), mailstore.FlagMode(1+a.rnd.IntN(2)), mailstore.FlagSet{System: metadata.Seen, Keywords: []string{keyword}})
	case 6, 7:
		if err := a.setFlags(ctx, box, view, uids(first, last), mailstore.AddFlags, mailstore.FlagSet{System: metadata.Deleted}); err != nil {
			return err
		}
		_, err := box.Expunge(ctx, box.Snapshot(), uids(first, last))
		a.did.expunged.Add(1)
		return err
	case 8:
		done, err := box.Copy(ctx, args)
		a.did.copied.Add(int64(len(done.Source)))
		return err
	case 9:
		args.Dest = name
		done, err := box.Copy(ctx, args)
		a.did.copied.Add(int64(len(done.Source)))
		return err
	case 10, 11:
		done, err := box.Move(ctx, args)
		a.did.moved.Add(int64(len(done.Source)))
		return err
	case 12:
		done, err := box.Undelete(ctx, uids(1, 1<<32-1))
		a.did.undeleted.Add(int64(len(done.Source)))
		return err
	default:
		return a.read(ctx, box, first)
	}
}

func (a *actor) setFlags(ctx context.Context, box *mailstore.Mailbox, view *mailstore.Snapshot, which []metadata.UIDRange, mode mailstore.FlagMode, flags mailstore.FlagSet) error {
	_, err := box.Store(ctx, mailstore.StoreFlags{View: view, UIDs: which, Mode: mode, Flags: flags})
	return err
}

// read reads a message to its end, which may fail only if it is expunged.
func (a *actor) read(ctx context.Context, box *mailstore.Mailbox, uid uint32) error {
	found := false
	var failed error
	err := box.Messages(ctx, uids(uid, uid), metadata.ColBlob|metadata.ColSize, func(m *metadata.Message) error {
		found = true
		body, err := box.Body(m)
		if err != nil {
			return err
		}
		defer body.Close()
		_, failed = io.Copy(io.Discard, io.NewSectionReader(body.At(ctx), 0, m.Size))
		return nil
	})
	if err != nil || found && failed == nil {
		a.did.read.Add(1)
		return err
	}
	now, err := box.Refresh(ctx)
	if err != nil {
		return err
	}
	if now.Slot(uid).Live() {
		return fmt.Errorf("message %d of mailbox %d: row found: %v, reading: %w", uid, box.ID(), found, failed)
	}
	return nil
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

// Both nodes know of the collector's commit, the one that made it at once.
func TestCollectTellsNodes(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{})
	near, far := s.store(), s.store()
	news := make(chan struct{}, 1)
	a, box := s.open(near, "INBOX", func() {})
	_, other := s.open(far, "INBOX", func() {
		select {
		case news <- struct{}{}:
		default:
		}
	})
	for range 3 {
		s.deliver(a, "INBOX", mailstore.FlagSet{Keywords: []string{"once"}})
	}
	before := s.expunge(box, 1, 3)
	report := s.collect(near, 0)
	if report.Mailboxes != 1 || report.Messages != 3 || report.Objects != 3 {
		t.Errorf("collected %+v", report)
	}
	after := box.Snapshot().Mailbox()
	if after.ModSeq != before.Mailbox().ModSeq+1 {
		t.Errorf("the node that collected is at %+v, was at %+v", after.Version, before.Mailbox().Version)
	}
	for timeout := time.After(20 * time.Second); other.Snapshot().Mailbox().Version != after.Version; {
		select {
		case <-news:
		case <-timeout:
			t.Fatalf("the other node is at %+v, want %+v", other.Snapshot().Mailbox().Version, after.Version)
		}
	}
	if got := s.collect(far, 0); got != (mailstore.CollectReport{}) {
		t.Errorf("collected %+v of nothing", got)
	}
}

// What cannot be deleted stays doomed, and goes when it can.
func TestCollectWithoutStore(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{})
	store := s.store(func(c *mailstore.Config) { c.Log = zap.NewNop() })
	a, box := s.open(store, "INBOX", func() {})
	for range 20 {
		s.deliver(a, "INBOX", mailstore.FlagSet{})
	}
	s.expunge(box, 1, 20)
	s.blobs.away.Store(true)
	if got, want := s.collect(store, 0), (mailstore.CollectReport{Mailboxes: 1, Messages: 20, Failed: 1}); got != want {
		t.Errorf("collected %+v, want %+v", got, want)
	}
	s.blobs.away.Store(false)
	if got, want := s.collect(store, 0), (mailstore.CollectReport{Objects: 20}); got != want {
		t.Errorf("collected %+v, want %+v", got, want)
	}
	s.sound()
}

func TestUndelete(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{Messages: 4})
	store := s.store()
	a, box := s.open(store, "INBOX", func() {})
	ctx := t.Context()
	for range 4 {
		s.deliver(a, "INBOX", mailstore.FlagSet{System: metadata.Flagged, Keywords: []string{"$Work"}})
	}
	rows := rowsOf(t, s.db, s.account.ID)[box.ID()]
	view := s.expunge(box, 1, 2)
	if _, err := box.Move(ctx, mailstore.CopyArgs{View: view, UIDs: uids(3, 3), Dest: "Archive"}); err != nil {
		t.Fatal(err)
	}

	done, err := box.Undelete(ctx, uids(2, 4)) // 3 is moved away, 4 is there
	if err != nil {
		t.Fatal(err)
	}
	if len(done.Source) != 1 || done.Source[0] != 2 || done.First != 5 || done.After != box.Snapshot() {
		t.Errorf("undeleted %+v", done)
	}
	got, slot := rowsOf(t, s.db, s.account.ID)[box.ID()][5], done.After.Slot(5)
	want := rows[2]
	if got.EmailID != want.EmailID || !got.InternalDate.Equal(want.InternalDate) || got.Object != want.Object || got.Size != want.Size {
		t.Errorf("undeleted %+v, it was %+v", got, want)
	}
	if slot.Flags != metadata.Flagged|done.After.KeywordBit("$work") {
		t.Errorf("its flags are %x", slot.Flags)
	}
	if old := done.After.Slot(2); old.Live() || old.ModSeq != view.Slot(2).ModSeq {
		t.Errorf("the expunged slot is %+v, was %+v", old, view.Slot(2))
	}
	if again, err := box.Undelete(ctx, uids(2, 3)); err != nil || len(again.Source) > 0 || again.After.Mailbox().Version != done.After.Mailbox().Version {
		t.Errorf("undeleted again %+v, %v", again, err)
	}

	// The quota is full by now: nothing comes back, and nothing changes.
	s.deliver(a, "Archive", mailstore.FlagSet{})
	if _, err := box.Undelete(ctx, uids(1, 1)); !errors.Is(err, metadata.ErrOverQuota) {
		t.Errorf("undelete over quota: %v", err)
	}
	s.expunge(box, 4, 4)
	report := s.collect(store, 0)
	if report.Messages != 4 || report.Objects != 2 {
		t.Errorf("collected %+v", report)
	}
	if gone, err := box.Undelete(ctx, uids(1, 4)); err != nil || len(gone.Source) > 0 {
		t.Errorf("undeleted what was collected: %+v, %v", gone, err)
	}
	s.sound()
}

func TestCollectDeletedMailbox(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{})
	store, patient := s.store(), s.store(func(c *mailstore.Config) { c.Retention, c.BackupWindow = time.Hour, time.Hour })
	a, _ := s.open(store, "INBOX", func() {})
	_, archive := s.open(store, "Archive", func() {})
	for range 3 {
		s.deliver(a, "Archive", mailstore.FlagSet{})
	}
	view, err := archive.Refresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Copy(t.Context(), mailstore.CopyArgs{View: view, UIDs: uids(1, 1), Dest: "INBOX"}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Delete(t.Context(), "Archive"); err != nil {
		t.Fatal(err)
	}
	if got := s.collect(patient, 0); got != (mailstore.CollectReport{}) {
		t.Errorf("collected before its time: %+v", got)
	}
	if got, want := s.collect(store, 0), (mailstore.CollectReport{Dropped: 1, Messages: 3, Chunks: 1, Objects: 2}); got != want {
		t.Errorf("collected %+v, want %+v", got, want)
	}
	s.sound()
}

// Orphans are old objects without a message, and only while the database is
// known to be whole.
func TestCollectOrphans(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{})
	store := s.store()
	a, _ := s.open(store, "INBOX", func() {})
	s.deliver(a, "INBOX", mailstore.FlagSet{})
	named, err := blobstore.NameKey(int64(s.account.ID), "mailboxes")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []blobstore.Key{blobstore.NewKey(int64(s.account.ID)), blobstore.NewKey(int64(s.account.ID)), named} {
		if _, err := s.blobs.Put(t.Context(), key, strings.NewReader("x"), 1); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := s.collect(store, s.account.ID), (mailstore.CollectReport{Scanned: 1}); got != want {
		t.Errorf("collected young objects: %+v", got)
	}
	s.blobs.aged.Store(true)
	if _, err := s.db.BumpEpoch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := s.collect(store, s.account.ID), (mailstore.CollectReport{Unaccepted: true}); got != want {
		t.Errorf("collected in an epoch that nobody accepted: %+v", got)
	}
	if _, err := s.db.AcceptEpoch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.collect(store, 0); got != (mailstore.CollectReport{}) {
		t.Errorf("looked through an account that is not due: %+v", got)
	}
	if got, want := s.collect(store, s.account.ID), (mailstore.CollectReport{Scanned: 1, Orphans: 2, Objects: 2}); got != want {
		t.Errorf("collected %+v, want %+v", got, want)
	}
	if got := s.blobs.keys(s.account.ID); len(got) != 2 { // the message's, and the one that has a name
		t.Errorf("left are %v", got)
	}
}

func TestCollectDeletedAccount(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{})
	store := s.store()
	a, box := s.open(store, "INBOX", func() {})
	for range 3 {
		s.deliver(a, "INBOX", mailstore.FlagSet{})
	}
	s.expunge(box, 2, 2)
	if err := s.db.DeleteAccount(t.Context(), s.account.Name); err != nil {
		t.Fatal(err)
	}
	if got := s.collect(store, 0); got != (mailstore.CollectReport{}) {
		t.Errorf("collected while commits may be under way: %+v", got)
	}
	soon := s.store(func(c *mailstore.Config) { c.OrphanGrace = time.Nanosecond })
	for i, want := range []mailstore.CollectReport{
		{Messages: 3, Objects: 3, Emptied: 1}, // and again, because something was found
		{Emptied: 1},
		{Accounts: 1},
		{},
	} {
		if got := s.collect(soon, 0); got != want {
			t.Errorf("run %d: collected %+v, want %+v", i, got, want)
		}
	}
	if got := s.blobs.keys(s.account.ID); len(got) != 0 {
		t.Errorf("left are %v", got)
	}
	if _, err := s.db.Recipient(t.Context(), s.account.Name); !errors.Is(err, metadata.ErrNotFound) {
		t.Errorf("the account is there: %v", err)
	}
}

// A node collects by itself.
func TestCollectInBackground(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{})
	a, box := s.open(s.store(), "INBOX", func() {})
	s.deliver(a, "INBOX", mailstore.FlagSet{})
	view := s.expunge(box, 1, 1)
	changed := make(chan struct{}, 1)
	_, other := s.open(s.store(func(c *mailstore.Config) { c.Collect = 10 * time.Millisecond }), "INBOX", func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	for timeout := time.After(20 * time.Second); other.Snapshot().Mailbox().ModSeq <= view.Mailbox().ModSeq; {
		select {
		case <-changed:
		case <-timeout:
			t.Fatal("nothing was collected")
		}
	}
}
