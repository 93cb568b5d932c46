package mailstore

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"starling/blobstore"
	"starling/metadata"
	"starling/metadata/metadatatest"
)

// A mailbox that was deleted comes back for all nodes; sessions that had it open on any
// of them hear that theirs is gone, and the others find it, with another UIDVALIDITY.
func TestRestoreMailbox(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := newCluster(t, metadata.Quota{})
	x, y, deaf := c.node(), c.node(), c.still()
	for _, subject := range []string{"1", "2", "3"} {
		c.append(x, "Archive", mail(subject), "flagged", "$Work")
	}
	mine, theirs, unheard := c.enter(x, "Archive"), c.enter(y, "Archive"), c.enter(deaf, "Archive")
	mine.store(one(2), AddFlags, "deleted")
	mine.expunge(2)
	before := mine.Snapshot().row
	if _, err := x.Delete(ctx, "Archive"); err != nil {
		t.Fatal(err)
	}
	theirs.await("the deletion", theirs.Gone)
	list, err := y.DeletedMailboxes(ctx)
	if err != nil || len(list) != 1 || list[0].ID != before.ID || list[0].Messages != 2 {
		t.Fatalf("deleted are %+v, %v", list, err)
	}
	row, lost, err := y.RestoreMailbox(ctx, before.ID, "Archive")
	if err != nil || lost != 0 || row.UIDValidity <= before.UIDValidity {
		t.Fatalf("restored %+v, %d lost, %v", row, lost, err)
	}
	if !mine.Gone() || !theirs.Gone() {
		t.Error("who had it open goes on")
	}
	_, err = unheard.Refresh(ctx) // this node did not hear of its deletion
	wantError(t, err, metadata.ErrNoMailbox)
	if !unheard.Gone() {
		t.Error("who did not hear of the deletion goes on")
	}
	want := c.check("Archive")
	for _, n := range []*node{x, y, deaf} {
		again := c.enter(n, "Archive")
		same(t, again.Snapshot(), want)
		if again.Gone() || again.Snapshot().row.UIDValidity != row.UIDValidity || again.Snapshot().Slot(3).Flags&metadata.Flagged == 0 {
			t.Errorf("it is %+v", again.Snapshot().row)
		}
		_, err = mine.Refresh(ctx) // is and stays gone
		wantError(t, err, metadata.ErrNoMailbox)
		again.store(one(3), AddFlags, "seen")
		want = c.check("Archive")
		same(t, again.Snapshot(), want)
	}
	// What was expunged in it before can come back too.
	last := c.enter(x, "Archive")
	found, collected, err := last.Expunged(ctx, all(last.Snapshot()))
	if err != nil || collected != 0 || len(found) != 1 || found[0].UID != 2 {
		t.Errorf("expunged are %+v, %d collected, %v", found, collected, err)
	}
}

func TestExpunged(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := newCluster(t, metadata.Quota{})
	n := c.node(func(c *Config) { c.Retention = 2 * 24 * time.Hour })
	for _, subject := range []string{"1", "2", "3", "4", "5"} {
		c.append(n, Inbox, mail(subject))
	}
	mine := c.enter(n, Inbox)
	db := c.connect()
	today, err := db.Now(ctx)
	if err != nil {
		t.Fatal(err)
	}
	today = today.UTC().Truncate(24 * time.Hour)
	mine.store(all(mine.Snapshot()), AddFlags, "deleted")
	mine.expunge(1)
	metadatatest.Exec(t, c.dsn, `update expunged set day = day - 3`) // the first day past the retention
	mine.expunge(2)
	metadatatest.Exec(t, c.dsn, `update expunged set day = day - 2 where day >= current_date - 1`) // the last one within
	mine.expunge(3, 4)
	if _, err := mine.Undelete(ctx, one(4)); err != nil {
		t.Fatal(err)
	}
	days := func() map[uint32]int {
		found, _, err := mine.Expunged(ctx, all(mine.Snapshot()))
		if err != nil {
			t.Fatal(err)
		}
		of := map[uint32]int{}
		for _, e := range found {
			of[e.UID] = int(today.Sub(e.Day) / (24 * time.Hour))
			if e.Size != int64(len(mail("1"))) {
				t.Errorf("size of %+v", e)
			}
		}
		return of
	}
	if got := days(); len(got) != 3 || got[1] != 3 || got[2] != 2 || got[3] != 0 {
		t.Errorf("expunged %v days ago", got)
	}
	if _, err := n.Collect(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if got := days(); len(got) != 2 || got[2] != 2 || got[3] != 0 {
		t.Errorf("after the collector: expunged %v days ago", got)
	}
	if _, collected, err := mine.Expunged(ctx, one(1)); err != nil || collected != 1 {
		t.Errorf("%d are said to be collected, %v", collected, err)
	}
}

// Nothing is collected until somebody has said that the database is as it should be.
func TestCollectUnaccepted(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := newCluster(t, metadata.Quota{})
	registry := prometheus.NewRegistry()
	n, soon := c.node(), c.still(func(c *Config) {
		c.Metrics = registry
		c.Retention, c.BackupWindow, c.OrphanGrace, c.Relist = -1, -1, time.Nanosecond, -1
	})
	c.append(n, Inbox, mail("1"))
	c.append(n, "Archive", mail("2"))
	mine := c.enter(n, Inbox)
	mine.store(one(1), AddFlags, "deleted")
	mine.expunge(1)
	if _, err := n.Delete(ctx, "Archive"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.db.BumpEpoch(ctx); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := soon.Collect(ctx, c.account.ID); err != nil || got != (CollectReport{Unaccepted: true}) {
			t.Errorf("collected %+v, %v", got, err)
		}
		if err := c.db.DeleteAccount(ctx, c.account.Name); err != nil { // nor of a deleted account
			break
		}
	}
	wantMetrics(t, registry, "collector_runs_total{unaccepted} 2", "collector_runs_total{ok} 0")
	if _, err := c.db.AcceptEpoch(ctx); err != nil {
		t.Fatal(err)
	}
	if got, err := soon.Collect(ctx, c.account.ID); err != nil || got.Messages != 2 || got.Objects < 2 || got.Unaccepted {
		t.Errorf("collected %+v, %v", got, err)
	}
}

// failingOver is what PostgreSQL does while an object is deleted.
type failingOver struct {
	blobstore.Store
	failOver func()
}

func (f *failingOver) Delete(ctx context.Context, key blobstore.Key) error {
	f.failOver()
	return f.Store.Delete(ctx, key)
}

// A run of the collector does not go on in another epoch than that in which it began.
func TestCollectFailover(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := newCluster(t, metadata.Quota{})
	n := c.node()
	soon := c.still(func(config *Config) {
		config.Retention, config.BackupWindow = -1, -1
		config.Blobs = &failingOver{c.blobs, func() {
			if _, err := c.db.BumpEpoch(ctx); err != nil {
				t.Error(err)
			}
		}}
	})
	others := n.Store.Account(metadatatest.Account(t, c.db, "b@example.org"), func() {})
	defer others.Close()
	for _, account := range []*Account{n.Account, others} {
		if _, err := upload(ctx, account, Incoming{Mailbox: Inbox, Flags: flagSet("deleted")}, mail("1"), nil); err != nil {
			t.Fatal(err)
		}
		box, err := account.Open(ctx, Inbox, func() {})
		if err != nil {
			t.Fatal(err)
		}
		defer box.Close()
		if _, err := box.Expunge(ctx, box.Snapshot(), one(1)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := soon.Collect(ctx, 0)
	if want := (CollectReport{Mailboxes: 2, Messages: 2, Objects: 1, Unaccepted: true}); err != nil || got != want {
		t.Errorf("collected %+v, %v; want %+v", got, err, want)
	}
}

// A node that heard neither that a mailbox was deleted nor that it was brought back under another name opens it by that.
func TestRestoredUnheard(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := newCluster(t, metadata.Quota{})
	x, deaf, alike := c.still(), c.still(), c.still()
	c.append(x, "Archive", mail("1"))
	theirs := c.enter(deaf, "Archive")
	c.enter(alike, "Archive")
	gone, err := x.Delete(ctx, "Archive")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := x.RestoreMailbox(ctx, gone.ID, "Back"); err != nil {
		t.Fatal(err)
	}
	same(t, c.enter(deaf, "Back").Snapshot(), c.check("Back"))
	if !theirs.Gone() {
		t.Error("who had the deleted one open goes on")
	}
	if got := c.append(alike, "Back", mail("2")); got.UID != 2 {
		t.Errorf("appended as %+v", got)
	}
}
