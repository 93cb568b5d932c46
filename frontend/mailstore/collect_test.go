package mailstore_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"starling/blobstore"
	"starling/frontend/mailstore"
	"starling/metadata"
)

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

// A hold ends what is under way: of the objects of a deleted account, which take long to delete, most are left.
func TestHoldDuringCollect(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{})
	store := s.store(func(c *mailstore.Config) { c.OrphanGrace = 1 })
	const objects = 2500
	for range objects {
		if _, err := s.blobs.Put(t.Context(), blobstore.NewKey(int64(s.account.ID)), strings.NewReader("x"), 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.db.DeleteAccount(t.Context(), s.account.Name); err != nil {
		t.Fatal(err)
	}
	s.blobs.once = func() {
		if err := s.db.SetHold(t.Context(), s.account.Name, "a lawsuit"); err != nil {
			t.Error(err)
		}
	}
	if got := s.collect(store, s.account.ID); got.Failed != 0 || got.Objects == 0 || got.Accounts != 0 {
		t.Errorf("collected %+v", got)
	}
	if left := len(s.blobs.keys(s.account.ID)); left < objects-1000 {
		t.Errorf("%d of %d objects are left", left, objects)
	}
}
