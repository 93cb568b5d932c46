package mailstore_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"starling/blobstore"
	"starling/frontend/mailstore"
	"starling/metadata"
	"starling/metadata/metadatatest"
)

// checked is what a check found, without what says more of it.
func (s *site) checked(store *mailstore.Store, opts mailstore.CheckOptions) (mailstore.CheckReport, []mailstore.Finding) {
	s.t.Helper()
	var found []mailstore.Finding
	opts.Found = func(f mailstore.Finding) { found = append(found, f) }
	report, err := store.Check(context.WithoutCancel(s.t.Context()), s.account, opts)
	if err != nil {
		s.t.Fatal(err)
	}
	slices.SortFunc(found, func(a, b mailstore.Finding) int {
		return cmp.Or(cmp.Compare(a.Damage, b.Damage), cmp.Compare(a.Mailbox, b.Mailbox), cmp.Compare(a.UID, b.UID),
			cmp.Compare(fmt.Sprint(a.Mended), fmt.Sprint(b.Mended)))
	})
	return report, found
}

// exec runs SQL in which $account is the account, and $box the mailbox, if it has one.
func (s *site) exec(sql string, box ...metadata.MailboxID) {
	s.t.Helper()
	sql = strings.ReplaceAll(sql, "$account", strconv.FormatInt(int64(s.account.ID), 10))
	for _, id := range box {
		sql = strings.ReplaceAll(sql, "$box", strconv.FormatInt(int64(id), 10))
	}
	metadatatest.Exec(s.t, s.dsn, sql)
}

// used fills an account with messages in all states: 40 in INBOX, of which some are
// expunged, moved and copied to Archive, and a deleted mailbox.
func (s *site) used(store *mailstore.Store) (inbox, archive *mailstore.Mailbox) {
	s.t.Helper()
	ctx := s.t.Context()
	a, inbox := s.open(store, "INBOX", func() {})
	_, archive = s.open(store, "Archive", func() {})
	for i := range 40 {
		if _, err := deliver(ctx, a, "INBOX", letter+strings.Repeat("x", 50*i), mailstore.FlagSet{System: metadata.Flags(i%2) * metadata.Seen}); err != nil {
			s.t.Fatal(err)
		}
	}
	if _, err := deliver(ctx, a, "INBOX", letter+strings.Repeat("0123456789abcdef", 100_000), mailstore.FlagSet{}); err != nil { // several frames
		s.t.Fatal(err)
	}
	if _, err := a.Create(ctx, "Old", nil); err != nil {
		s.t.Fatal(err)
	}
	s.deliver(a, "Old", mailstore.FlagSet{})
	if _, err := a.Delete(ctx, "Old"); err != nil {
		s.t.Fatal(err)
	}
	view := s.expunge(inbox, 1, 3)
	if _, err := inbox.Copy(ctx, mailstore.CopyArgs{View: view, UIDs: uids(5, 6), Dest: "Archive"}); err != nil {
		s.t.Fatal(err)
	}
	if _, err := inbox.Move(ctx, mailstore.CopyArgs{View: inbox.Snapshot(), UIDs: uids(7, 8), Dest: "Archive"}); err != nil {
		s.t.Fatal(err)
	}
	if _, err := archive.Refresh(ctx); err != nil {
		s.t.Fatal(err)
	}
	return inbox, archive
}

// patient keeps what is expunged, as nodes do.
func patient(c *mailstore.Config) { c.Retention, c.BackupWindow = time.Hour, time.Hour }

func TestCheckFindsNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{Messages: 1000})
	store := s.store(patient)
	s.used(store)
	if _, err := s.blobs.Put(t.Context(), blobstore.NewKey(int64(s.account.ID)), strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	want := mailstore.CheckReport{Mailboxes: 2, Messages: 46, Objects: 43, Young: 1, Found: map[mailstore.Damage]int64{}}
	same := func(got mailstore.CheckReport) bool { return fmt.Sprint(got) == fmt.Sprint(want) }
	last := 0.0
	got, found := s.checked(store, mailstore.CheckOptions{Progress: func(part float64) {
		if part < last || part > 1 {
			t.Errorf("progress goes from %v to %v", last, part)
		}
		last = part
	}})
	if len(found) > 0 || !same(got) || last < 0.5 {
		t.Errorf("found %+v; %+v, want %+v; the progress ended at %v", found, got, want, last)
	}
	s.blobs.aged.Store(true)
	want.Orphans, want.Young = 1, 0
	if got, found := s.checked(store, mailstore.CheckOptions{Repair: true}); len(found) > 0 || !same(got) {
		t.Errorf("with an orphan: found %+v; %+v, want %+v", found, got, want)
	}
	want.Scrubbed = 42
	got, found = s.checked(store, mailstore.CheckOptions{Scrub: true, ScrubRate: 1 << 40})
	want.Octets = got.Octets
	if len(found) > 0 || !same(got) || got.Octets < 42*100 {
		t.Errorf("scrubbing: found %+v; %+v, want %+v", found, got, want)
	}
	// The collector's doomed objects are no damage either.
	s.exec("insert into doomed (account_id, object) select account_id, object from blob_share where account_id = $account and refs < 0")
	if _, err := store.Collect(t.Context(), s.account.ID); err != nil {
		t.Fatal(err)
	}
	want.Doomed, want.Scrubbed, want.Octets = 1, 0, 0
	if got, found := s.checked(store, mailstore.CheckOptions{}); len(found) > 0 || !same(got) {
		t.Errorf("after the collector: found %+v; %+v, want %+v", found, got, want)
	}
}

// change changes the object of a message behind everybody's back; nil deletes it.
func (s *site) change(box *mailstore.Mailbox, uid uint32, do func(object []byte) []byte) string {
	s.t.Helper()
	key := blobstore.Object(rowsOf(s.t, s.db, s.account.ID)[box.ID()][uid].Object).Key(int64(s.account.ID))
	object, _ := key.Object()
	r, err := s.blobs.Get(s.t.Context(), key, 0, -1)
	if err != nil {
		s.t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		s.t.Fatal(err)
	}
	if b = do(b); b == nil {
		err = s.blobs.Store.Delete(s.t.Context(), key)
	} else {
		_, err = s.blobs.Put(s.t.Context(), key, bytes.NewReader(b), int64(len(b)))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return object.String()
}

// wrong compares what was found, but for the words.
func (s *site) wrong(what string, found, want []mailstore.Finding) {
	s.t.Helper()
	for i := range found {
		found[i].Detail = ""
	}
	if !slices.Equal(found, want) {
		s.t.Errorf("%s: found\n%+v, want\n%+v", what, found, want)
	}
}

func TestCheckFindsLostAndDamagedObjects(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{})
	store := s.store(patient)
	inbox, _ := s.used(store)
	gone := func([]byte) []byte { return nil }
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte {
			if at < 0 {
				at += len(b)
			}
			b[at] ^= 4
			return b
		}
	}
	expunged := s.change(inbox, 2, gone)
	shared := s.change(inbox, 5, gone)
	short := s.change(inbox, 20, func(b []byte) []byte { return b[:len(b)-1] })
	want := []mailstore.Finding{
		{Damage: mailstore.MissingObject, Mailbox: "Archive", UID: 1, Object: shared},
		{Damage: mailstore.MissingObject, Mailbox: "INBOX", UID: 2, Object: expunged, Expunged: true},
		{Damage: mailstore.MissingObject, Mailbox: "INBOX", UID: 5, Object: shared},
		{Damage: mailstore.ShortObject, Mailbox: "INBOX", UID: 20, Object: short},
	}
	report, found := s.checked(store, mailstore.CheckOptions{Repair: true})
	s.wrong("lost", found, want)
	if report.Left != 4 || report.Mended != 0 || report.Found[mailstore.MissingObject] != 3 || report.Objects != 40 {
		t.Errorf("the report is %+v", report)
	}

	body := s.change(inbox, 21, flip(-2))
	header := s.change(inbox, 22, flip(12))
	large := s.change(inbox, 41, flip(-2))
	moved := s.change(inbox, 7, flip(-2))
	_, found = s.checked(store, mailstore.CheckOptions{})
	s.wrong("what only reading finds", found, want)
	want = slices.Insert(want, 0,
		mailstore.Finding{Damage: mailstore.CorruptHeader, Mailbox: "INBOX", UID: 22, Object: header},
		mailstore.Finding{Damage: mailstore.CorruptObject, Mailbox: "Archive", UID: 3, Object: moved},
		mailstore.Finding{Damage: mailstore.CorruptObject, Mailbox: "INBOX", UID: 7, Object: moved, Expunged: true},
		mailstore.Finding{Damage: mailstore.CorruptObject, Mailbox: "INBOX", UID: 21, Object: body},
		mailstore.Finding{Damage: mailstore.CorruptObject, Mailbox: "INBOX", UID: 41, Object: large},
	)
	_, found = s.checked(store, mailstore.CheckOptions{Scrub: true, ScrubRate: 1 << 40})
	s.wrong("scrubbed", found, want)

	// A large account is gone through in parts, with the same outcome.
	s.exec("update mailbox set messages = messages + (5 << 20) where account_id = $account and name = 'INBOX'")
	report, found = s.checked(store, mailstore.CheckOptions{Scrub: true, ScrubRate: 1 << 40, RowRate: 1 << 40})
	want = slices.Insert(want, 5, mailstore.Finding{Damage: mailstore.WrongCounters, Mailbox: "INBOX"})
	s.wrong("in parts", found, want)
	if report.Messages != 46 || report.Objects != 40 {
		t.Errorf("in parts the report is %+v", report)
	}
}

// laggard is an object store whose listings leave out some of what is there.
type laggard struct {
	*guard
	left atomic.Int64
}

func (l *laggard) List(ctx context.Context, prefix, after string) iter.Seq2[blobstore.Info, error] {
	return func(yield func(blobstore.Info, error) bool) {
		i := 0
		for info, err := range l.guard.List(ctx, prefix, after) {
			if i++; i%5 == 0 {
				l.left.Add(1)
				continue
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// What a listing leaves out is looked for before it is called missing.
func TestCheckLooksAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{})
	slow := &laggard{guard: s.blobs}
	store := s.store(patient, func(c *mailstore.Config) { c.Blobs = slow })
	s.used(store)
	if _, found := s.checked(store, mailstore.CheckOptions{Scrub: true, ScrubRate: 1 << 40}); len(found) > 0 || slow.left.Load() == 0 {
		t.Errorf("%d objects were not listed; found %+v", slow.left.Load(), found)
	}
}

// counting is an object store that counts what is asked of it.
type counting struct {
	blobstore.Store
	gets, lists atomic.Int64
}

func (c *counting) Get(ctx context.Context, key blobstore.Key, offset, length int64) (io.ReadCloser, error) {
	c.gets.Add(1)
	return c.Store.Get(ctx, key, offset, length)
}

func (c *counting) List(ctx context.Context, prefix, after string) iter.Seq2[blobstore.Info, error] {
	c.lists.Add(1)
	return c.Store.List(ctx, prefix, after)
}

// What a check costs does not grow with the messages, but for pages of them and what a
// scrub reads: one request for an object, two for a large one.
func TestCheckCosts(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{Messages: 1000})
	blobs := &counting{Store: s.blobs}
	var db *metadata.DB
	store := s.store(patient, func(c *mailstore.Config) { c.Blobs = blobs; db = c.DB })
	s.used(store)
	for _, test := range []struct {
		scrub       bool
		gets, trips int64
	}{{false, 0, 14}, {true, 42, 17}} {
		gets, lists, trips := blobs.gets.Load(), blobs.lists.Load(), db.Stats().RoundTrips
		if _, found := s.checked(store, mailstore.CheckOptions{Scrub: test.scrub, ScrubRate: 1 << 40}); len(found) > 0 {
			t.Errorf("found %+v", found)
		}
		if n := blobs.gets.Load() - gets; n != test.gets {
			t.Errorf("scrub %v: %d GETs, want %d", test.scrub, n, test.gets)
		}
		if n := blobs.lists.Load() - lists; n != 1 {
			t.Errorf("scrub %v: %d LISTs, want 1", test.scrub, n)
		}
		// The account, its list, two mailboxes of three, the quota, the owners, the clock, the
		// rows; what reads whole accounts takes four. A scrub reads the summaries of each of three mailboxes too.
		if n := db.Stats().RoundTrips - trips; n > test.trips {
			t.Errorf("scrub %v: %d round trips to PostgreSQL", test.scrub, n)
		}
	}
}

// TestCheckRace: sessions on two nodes work, the collectors of both keep nothing, and
// checks on both find nothing all the while.
func TestCheckRace(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{Messages: 1 << 40})
	var did deeds
	var checks [2]atomic.Int64 // of each node
	var suspects atomic.Int64
	// It goes on until enough of everything has met: how long that takes is the machine's affair.
	deadline := time.Now().Add(3 * time.Minute)
	racing := func() bool {
		enough := checks[0].Load() >= 4 && checks[1].Load() >= 4 && did.moved.Load() >= 10 && s.blobs.deleted.Load() >= 5
		return !enough && !t.Failed() && time.Now().Before(deadline)
	}
	var working sync.WaitGroup
	ctx := context.WithoutCancel(t.Context())
	for n := range 2 {
		store := s.store()
		for i := range 2 {
			a := &actor{site: s, store: store, rnd: rand.New(rand.NewPCG(2, uint64(10*n+i))), did: &did}
			for i, name := range boxNames {
				a.acc, a.boxes[i] = s.open(store, name, func() {})
			}
			working.Go(func() {
				for racing() {
					if err := a.step(ctx); err != nil {
						t.Error(err)
					}
				}
			})
		}
		working.Go(func() {
			for racing() {
				if _, err := store.Collect(ctx, 0); err != nil {
					t.Error(err)
				}
			}
		})
		working.Go(func() {
			for racing() {
				report, err := store.Check(ctx, s.account, mailstore.CheckOptions{
					Scrub: n == 0, Repair: n == 1, RowRate: 1 << 40, ScrubRate: 1 << 40,
					Found: func(f mailstore.Finding) { t.Errorf("found %+v", f) },
				})
				if err != nil {
					t.Error(err)
				}
				checks[n].Add(1)
				suspects.Add(report.Messages)
			}
		})
	}
	working.Wait()
	t.Logf("%d and %d checks of %d rows; appended %d, expunged %d, copied %d, moved %d; %d objects deleted meanwhile", checks[0].Load(), checks[1].Load(), suspects.Load(),
		did.appended.Load(), did.expunged.Load(), did.copied.Load(), did.moved.Load(), s.blobs.deleted.Load())
	if !t.Failed() && time.Now().After(deadline) {
		t.Error("this is no race")
	}
}
