package mailstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"starling/blobstore"
	"starling/metadata"
	"starling/metadata/metadatatest"
)

// aged is a store whose objects are an hour old.
type aged struct{ blobstore.Store }

func (a aged) List(ctx context.Context, prefix, after string) iter.Seq2[blobstore.Info, error] {
	return func(yield func(blobstore.Info, error) bool) {
		for info, err := range a.Store.List(ctx, prefix, after) {
			info.Modified = info.Modified.Add(-time.Hour)
			if !yield(info, err) {
				return
			}
		}
	}
}

// older makes all mailboxes older than the objects, as they are in life.
func (c *cluster) older() {
	metadatatest.Exec(c.t, c.dsn, "update mailbox set uidvalidity = uidvalidity - 7200")
}

// lose puts an empty database in the place of the cluster's.
func (c *cluster) lose() {
	c.t.Helper()
	c.dsn = metadatatest.DSN(c.t)
	c.db = c.connect()
	if _, err := c.db.CreateTenant(c.t.Context(), "acme"); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.db.CreateDomain(c.t.Context(), "acme", "example.org"); err != nil {
		c.t.Fatal(err)
	}
}

// note keeps the database as it is now; recall restores it to that, as from a backup, and
// raises the epoch.
func (c *cluster) note() {
	metadatatest.Exec(c.t, c.dsn, `
create schema noted;
do $$ declare t text; begin
  for t in select tablename from pg_tables where schemaname = 'public' loop
    execute format('create table noted.%I as table public.%I', t, t);
  end loop;
end $$`)
}

func (c *cluster) recall() {
	metadatatest.Exec(c.t, c.dsn, `
set session_replication_role = replica;
do $$ declare t text; begin
  for t in select tablename from pg_tables where schemaname = 'noted' loop
    execute format('delete from public.%I', t);
    execute format('insert into public.%I select * from noted.%I', t, t);
  end loop;
end $$;
update cluster set generation = generation + 1`)
}

// rebuilt runs a rebuild that must succeed.
func (c *cluster) rebuilt(n *node, opts RebuildOptions) RebuildReport {
	c.t.Helper()
	r, err := n.Rebuild(c.t.Context(), c.account, opts)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// mails are the live messages of the account, each as its mailbox, flags and bytes, sorted.
func (c *cluster) mails(n *node) []string {
	c.t.Helper()
	list, err := n.List(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	var mails []string
	for _, m := range list.Mailboxes {
		c.check(m.Name)
		cl := c.enter(n, m.Name)
		view := cl.Snapshot()
		err := cl.Messages(c.t.Context(), all(view), metadata.ColBlob|metadata.ColDates, func(row *metadata.Message) error {
			if !view.Slot(row.UID).Live() {
				return nil
			}
			body, err := cl.Body(row)
			if err != nil {
				return err
			}
			defer body.Close()
			var b bytes.Buffer
			if err := body.ReadRange(c.t.Context(), &b, 0, body.Size()); err != nil {
				return err
			}
			mails = append(mails, strings.Join([]string{m.Name, flagsOf(view, row.UID), row.InternalDate.UTC().Format(time.DateTime), b.String()}, "|"))
			return nil
		})
		if err != nil {
			c.t.Fatal(err)
		}
	}
	slices.Sort(mails)
	return mails
}

// put appends a message of that number, and returns what mails has to say of it.
func (c *cluster) put(n *node, mailbox string, number int, flags ...string) string {
	c.t.Helper()
	text := mail(fmt.Sprint("m", number)) + strings.Repeat("A line.\r\n", 7*number)
	in := Incoming{Mailbox: mailbox, Flags: flagSet(flags...), Date: time.Unix(1_700_000_000+int64(number), 0)}
	if _, err := upload(c.t.Context(), n.Account, in, text, nil); err != nil {
		c.t.Fatal(err)
	}
	return strings.Join([]string{mailbox, strings.Join(append(FlagSet{System: in.Flags.System}.names(), in.Flags.Keywords...), " "), in.Date.UTC().Format(time.DateTime), text}, "|")
}

func differ(t *testing.T, got, want []string) {
	t.Helper()
	slices.Sort(want)
	if slices.Equal(got, want) {
		return
	}
	count := make(map[string]int)
	for _, m := range want {
		count[m]++
	}
	for _, m := range got {
		count[m]--
	}
	maps.DeleteFunc(count, func(_ string, n int) bool { return n == 0 })
	t.Errorf("%d messages instead of %d; missing, or with a minus too much: %v", len(got), len(want), count)
}

// With nothing left but the bucket, each message comes back where it was delivered.
func TestRebuildLost(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{Bytes: 1 << 30})
	old := func(cfg *Config) { cfg.Blobs = aged{cfg.Blobs} }
	x, y := c.node(old), c.node(old)
	for name, use := range map[string][]string{"Work": nil, "Gone": nil, "Box": {`\Sent`}} {
		if _, err := x.Create(t.Context(), name, use); err != nil {
			t.Fatal(err)
		}
	}
	c.older()
	var want []string
	for i := range 60 {
		n := []*node{x, y}[i%2]
		switch i % 4 {
		case 0:
			want = append(want, c.put(n, "INBOX", i, "seen", "$Label"))
		case 1:
			want = append(want, c.put(n, "Archive", i))
		case 2:
			want = append(want, strings.Replace(c.put(n, "Work", i, "flagged"), "Work", "Projects", 1))
		default:
			want = append(want, c.put(n, "Gone", i))
		}
	}
	rename(t, x, "Work", "Projects")
	if _, err := x.Delete(t.Context(), "Gone"); err != nil {
		t.Fatal(err)
	}
	if err := x.Subscribe(t.Context(), "Projects"); err != nil {
		t.Fatal(err)
	}
	// None of this is in the objects.
	inbox := c.enter(x, "INBOX")
	inbox.store(one(2), AddFlags, "deleted")
	if _, err := inbox.Expunge(t.Context(), inbox.Snapshot(), nil); err != nil {
		t.Fatal(err)
	}
	for i, copied := range []func(context.Context, CopyArgs) (Copied, error){inbox.Copy, inbox.Move} {
		if _, err := copied(t.Context(), CopyArgs{View: inbox.refresh(), UIDs: one(uint32(3 + i)), Dest: "Archive"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.writeList(t.Context(), x.db, c.account.ID); err != nil {
		t.Fatal(err)
	}
	before, err := x.Mailbox(t.Context(), "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	x.stop()
	y.stop()

	c.lose()
	fresh := c.still(old)
	lost := c.account
	dry := c.rebuilt(fresh, RebuildOptions{DryRun: true, Age: time.Minute})
	if dry.Messages != 60 || dry.Mailboxes["Projects"] != 15 || dry.Mailboxes["Gone"] != 15 {
		t.Errorf("a dry run says %+v", dry)
	}
	if c.account, err = fresh.MakeAccount(t.Context(), lost.ID, lost.Name); err != nil || c.account.ID != lost.ID {
		t.Fatalf("account %+v, %v", c.account, err)
	}
	if _, err := fresh.MakeAccount(t.Context(), lost.ID, "b@example.org"); !errors.Is(err, metadata.ErrExists) {
		t.Errorf("the id a second time: %v", err)
	}
	metadatatest.Exec(t, c.dsn, fmt.Sprintf("insert into quota values (%d, 0, 0, 1000, 3)", c.account.ID))
	n := c.node(old)
	if got := c.rebuilt(n, RebuildOptions{Age: time.Minute}); got.Messages != 60 || got.Held || !slices.Equal(got.Created, []string{"Gone"}) {
		t.Errorf("a rebuild says %+v", got)
	}
	differ(t, c.mails(n), want)
	list, err := n.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"Gone", "INBOX", "Projects"}; !slices.Equal(list.Subscriptions, want) {
		t.Errorf("subscribed are %q, want %q", list.Subscriptions, want)
	}
	used := metadata.Quota{}
	for _, m := range list.Mailboxes {
		used.Bytes += m.Bytes
		used.Messages += m.Messages
		if m.Name == "Box" && !slices.Equal(m.SpecialUse, []string{`\Sent`}) {
			t.Errorf("special use %q", m.SpecialUse)
		}
		if m.UIDValidity <= before.UIDValidity {
			t.Errorf("%s has UIDVALIDITY %d, before it was up to %d", m.Name, m.UIDValidity, before.UIDValidity)
		}
	}
	if got, err := n.Usage(t.Context()); err != nil || got != used || used.Messages != 60 {
		t.Errorf("used is %+v, %v, want %+v", got, err, used)
	}
	again := c.rebuilt(n, RebuildOptions{})
	if again.Messages != 0 || again.Named != 60 || again.Held {
		t.Errorf("a second run says %+v", again)
	}
	inbox = c.enter(n, "INBOX")
	var dates []int64
	if err := inbox.Messages(t.Context(), all(inbox.Snapshot()), metadata.ColDates, func(m *metadata.Message) error {
		dates = append(dates, m.InternalDate.Unix())
		return nil
	}); err != nil || !slices.IsSorted(dates) {
		t.Errorf("the order is %v, %v", dates, err)
	}
	if r, err := n.Check(t.Context(), c.account, CheckOptions{Scrub: true}); err != nil || len(r.Found) > 0 || r.Scrubbed != 60 {
		t.Errorf("a check says %+v, %v", r, err)
	}
	if hold, err := c.db.Hold(t.Context(), c.account.ID); err != nil || hold.Held {
		t.Errorf("hold %+v, %v", hold, err)
	}
}

// After a restore to an older point what it forgot comes back, and what it knows stays.
func TestRebuildOlderPoint(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	old := func(cfg *Config) { cfg.Blobs = aged{cfg.Blobs} }
	c.older()
	x := c.node(old)
	var want []string
	for i := range 20 {
		want = append(want, c.put(x, "INBOX", i))
	}
	// Messages 1 and 2 are expunged before, of which 1 is collected.
	inbox := c.enter(x, "INBOX")
	for _, uid := range []uint32{1, 2} {
		inbox.store(one(uid), AddFlags, "deleted")
		if _, err := inbox.Expunge(t.Context(), inbox.Snapshot(), nil); err != nil {
			t.Fatal(err)
		}
		if uid == 1 {
			collector := c.still(old, func(cfg *Config) { cfg.Retention = -1 })
			if r, err := collector.Collect(t.Context(), c.account.ID); err != nil || r.Messages != 1 {
				t.Fatalf("collected %+v, %v", r, err)
			}
		}
	}
	inbox.refresh()
	want = want[2:]
	c.note()
	// All this is forgotten.
	if _, err := x.Create(t.Context(), "Lost", nil); err != nil {
		t.Fatal(err)
	}
	metadatatest.Exec(t, c.dsn, "update mailbox set uidvalidity = uidvalidity - 7200 where name = 'Lost'")
	for i := 20; i < 40; i++ {
		want = append(want, c.put(x, []string{"INBOX", "Lost"}[i%2], i, "seen"))
	}
	inbox.refresh()
	inbox.store(one(3), AddFlags, "deleted") // so it is live again
	if _, err := inbox.Expunge(t.Context(), inbox.Snapshot(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := inbox.Move(t.Context(), CopyArgs{View: inbox.refresh(), UIDs: one(4), Dest: "Archive"}); err != nil {
		t.Fatal(err)
	}
	x.stop()
	c.recall()

	y := c.node(old)
	// A mailbox gets the id that the lost one had.
	if _, err := y.Create(t.Context(), "Other", nil); err != nil {
		t.Fatal(err)
	}
	want = append(want, c.put(y, "Other", 40))
	// An object that was put twice for one message, because the first commit came too late.
	c.blobs.set(func() {
		first := true
		c.blobs.dated = func(at time.Time) time.Time {
			if first {
				at = at.Add(-200 * time.Hour)
			}
			first = false
			return at
		}
	})
	want = append(want, c.put(y, "INBOX", 41))
	c.blobs.set(func() { c.blobs.dated = nil })
	known := c.mails(y)

	if young := c.rebuilt(y, RebuildOptions{Age: 2 * time.Hour}); young.Young != 21 || young.Messages != 0 || !young.Held {
		t.Errorf("with objects too young a rebuild says %+v", young)
	}
	differ(t, c.mails(y), known)
	got := c.rebuilt(y, RebuildOptions{Age: time.Minute})
	if got.Messages != 20 || got.Again != 1 || got.Doomed != 1 || got.Held || !slices.Equal(got.Created, []string{"Lost"}) {
		t.Errorf("a rebuild says %+v", got)
	}
	differ(t, c.mails(y), want)
	if again := c.rebuilt(y, RebuildOptions{}); again.Messages != 0 || again.Again != 1 || again.Doomed != 1 {
		t.Errorf("a second run says %+v", again)
	}
	differ(t, c.mails(y), want)
}

// Damaged objects are told of, left alone, and kept from the collector; an operator's hold stays.
func TestRebuildDamaged(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.node()
	var want []string
	for i := range 10 {
		want = append(want, c.put(x, "INBOX", i))
	}
	metadatatest.Exec(t, c.dsn, "delete from message; delete from flags; update mailbox set messages = 0, unseen = 0, bytes = 0, modseq = modseq + 1, stamp = 1")
	var keys []blobstore.Key
	for info, err := range c.blobs.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	x.stop()
	y := c.node()
	for i, at := range []int{20, -3} { // in the header, and behind it
		whole := c.object(keys[i])
		whole[(at+len(whole))%len(whole)] ^= 4
		c.replace(keys[i], whole)
	}
	whole := c.object(keys[2])
	c.replace(keys[2], whole[:len(whole)-1])
	empty := metadata.NewAccount{Name: "b@example.org"}
	other, err := c.db.CreateAccount(t.Context(), empty)
	if err != nil {
		t.Fatal(err)
	}
	foreign := blobstore.NewKey(int64(other.ID)) // another's object
	c.replace(foreign, c.object(keys[3]))
	if r, err := y.Rebuild(t.Context(), other, RebuildOptions{}); err != nil || r.Damaged != 1 || r.Messages != 0 {
		t.Errorf("another's object: %+v, %v", r, err)
	}

	var found []Finding
	got := c.rebuilt(y, RebuildOptions{Found: func(f Finding) { found = append(found, f) }})
	if got.Messages != 7 || got.Damaged != 3 || len(found) != 3 || !got.Held {
		t.Errorf("a rebuild says %+v, %+v", got, found)
	}
	for _, f := range found {
		if f.Damage != CorruptObject || !slices.ContainsFunc(keys[:3], func(k blobstore.Key) bool { return strings.HasSuffix(string(k), "/"+f.Object) }) {
			t.Errorf("found %+v", f)
		}
	}
	mails := c.mails(y)
	if len(mails) != 7 || slices.ContainsFunc(mails, func(m string) bool { return !slices.Contains(want, m) }) {
		t.Errorf("%d messages are there", len(mails))
	}
	if hold, err := c.db.Hold(t.Context(), c.account.ID); err != nil || hold.Reason != rebuildHold {
		t.Errorf("hold %+v, %v", hold, err)
	}
	if err := c.db.SetHold(t.Context(), c.account.Name, "a lawyer's"); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys[:3] {
		if err := c.blobs.Delete(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.rebuilt(y, RebuildOptions{}); got.Held || got.Damaged != 0 {
		t.Errorf("a rebuild says %+v", got)
	}
	if hold, err := c.db.Hold(t.Context(), c.account.ID); err != nil || hold.Reason != "a lawyer's" {
		t.Errorf("hold %+v, %v", hold, err)
	}
}

// A hold that an operator sets while an account is rebuilt outlives the rebuild.
func TestHoldDuringRebuild(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.node()
	c.put(x, "INBOX", 1)
	x.stop()
	c.lose()
	var err error
	if c.account, err = c.still().MakeAccount(t.Context(), c.account.ID, c.account.Name); err != nil {
		t.Fatal(err)
	}
	got := c.rebuilt(c.node(), RebuildOptions{Progress: func(float64) {
		if err := c.db.SetHold(t.Context(), c.account.Name, "a lawyer's"); err != nil {
			t.Error(err)
		}
	}})
	if got.Messages != 1 || got.Held {
		t.Errorf("the rebuild says %+v", got)
	}
	if hold, err := c.db.Hold(t.Context(), c.account.ID); err != nil || hold.Reason != "a lawyer's" {
		t.Errorf("hold %+v, %v", hold, err)
	}
}

func (c *cluster) object(key blobstore.Key) []byte {
	c.t.Helper()
	r, err := c.blobs.Get(c.t.Context(), key, 0, -1)
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		c.t.Fatal(err)
	}
	return b
}

func (c *cluster) replace(key blobstore.Key, object []byte) {
	c.t.Helper()
	if _, err := c.blobs.Put(c.t.Context(), key, bytes.NewReader(object), int64(len(object))); err != nil {
		c.t.Fatal(err)
	}
}

// Broken off and begun anew, by two at once, and with mail coming in, nothing comes twice.
func TestRebuildInterrupted(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{Messages: 10_000})
	x := c.node()
	const count = 3*rebuildBatch + 50
	want := make([]string, count)
	var writers sync.WaitGroup
	for w := range 10 {
		writers.Go(func() {
			for i := w; i < count; i += 10 {
				want[i] = c.put(x, []string{"INBOX", "Archive"}[i%2], i%100)
			}
		})
	}
	writers.Wait()
	x.stop()
	c.lose()
	var err error
	if c.account, err = c.still().MakeAccount(t.Context(), c.account.ID, c.account.Name); err != nil {
		t.Fatal(err)
	}
	metadatatest.Exec(t, c.dsn, fmt.Sprintf("insert into quota values (%d, 0, 0, 0, 10000)", c.account.ID))
	y, z := c.node(), c.node()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	first, err := y.Rebuild(ctx, c.account, RebuildOptions{Progress: func(part float64) {
		if part > 0.6 { // headers are a fifth
			stop()
		}
	}})
	if !errors.Is(err, context.Canceled) || first.Messages == 0 || first.Messages == count || !first.Held {
		t.Fatalf("broken off it says %+v, %v", first, err)
	}
	if hold, err := c.db.Hold(t.Context(), c.account.ID); err != nil || hold.Reason != rebuildHold {
		t.Errorf("hold %+v, %v", hold, err)
	}
	if used, err := y.Usage(t.Context()); err != nil || used.Messages != first.Messages {
		t.Errorf("used %+v, %v; brought back %d", used, err, first.Messages)
	}
	var runs sync.WaitGroup
	var reports [2]RebuildReport
	for i, n := range []*node{y, z} {
		runs.Go(func() {
			var err error
			if reports[i], err = n.Rebuild(t.Context(), c.account, RebuildOptions{Age: 0}); err != nil {
				t.Error(err)
			}
		})
	}
	runs.Wait()
	if n := first.Messages + reports[0].Messages + reports[1].Messages; n != count {
		t.Errorf("%d messages came back, want %d: %+v", n, count, reports)
	}
	differ(t, c.mails(z), want)
	if got := c.put(z, "INBOX", 7); !slices.Contains(c.mails(y), got) {
		t.Error("a new message is not there")
	}
}

// The accounts in the store are listed, with their names and those that PostgreSQL knows.
func TestStoredAccounts(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.node()
	for i := range 3 {
		c.put(x, "INBOX", i)
	}
	second := metadatatest.Account(t, c.db, "b@example.org")
	b := x.Store.Account(second, func() {})
	defer b.Close()
	c.put(&node{Store: x.Store, Account: b}, "INBOX", 4)
	if err := x.writeList(t.Context(), x.db, c.account.ID); err != nil {
		t.Fatal(err)
	}
	metadatatest.Exec(t, c.dsn, "update account set name = 'c@example.org' where name = 'a@example.org'")
	got := make(map[metadata.AccountID]string)
	err := x.StoredAccounts(t.Context(), func(a StoredAccount) error {
		got[a.ID] = fmt.Sprintf("%s %s %v %d %t", a.Name, a.Account, a.Mailboxes, a.Objects, a.Octets > 0)
		return nil
	})
	want := map[metadata.AccountID]string{
		c.account.ID: "a@example.org c@example.org [Archive INBOX] 3 true",
		second.ID:    " b@example.org [INBOX] 1 true",
	}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("stored are %v, %v, want %v", got, err, want)
	}
}
