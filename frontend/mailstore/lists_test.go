package mailstore

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"starling/blobstore"
	"starling/metadata"
)

// stored is the account's list as it is in the object store; nil if there is none.
func (c *cluster) stored() *storedList {
	c.t.Helper()
	key, err := blobstore.NameKey(int64(c.account.ID), "mailboxes")
	if err != nil {
		c.t.Fatal(err)
	}
	body, err := c.blobs.Store.Get(c.t.Context(), key, 0, -1)
	if errors.Is(err, blobstore.ErrNotFound) {
		return nil
	}
	if err != nil {
		c.t.Fatal(err)
	}
	defer body.Close()
	list := new(storedList)
	if err := json.NewDecoder(body).Decode(list); err != nil {
		c.t.Fatal(err)
	}
	return list
}

// names are the mailboxes of the stored list.
func (l *storedList) names() []string {
	var names []string
	for _, m := range l.Mailboxes {
		names = append(names, m.Name)
	}
	return names
}

// The list is written once for what changes within the delay, from the first change on.
func TestListIsWritten(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still()
	write := func(after time.Duration) { x.writeLists(t.Context(), x.db, time.Now().Add(after)) }
	if _, err := x.Create(t.Context(), "Drafts", []string{`\Drafts`}); err != nil {
		t.Fatal(err)
	}
	write(x.cfg.ListDelay - time.Minute)
	if got := c.stored(); got != nil {
		t.Fatalf("written at once: %+v", got)
	}
	rename(t, x, "Archive", "Old")
	if err := x.Subscribe(t.Context(), "Old"); err != nil {
		t.Fatal(err)
	}
	puts := c.blobs.puts.Load()
	write(x.cfg.ListDelay)
	write(x.cfg.ListDelay)
	if n := c.blobs.puts.Load() - puts; n != 1 {
		t.Errorf("written %d times", n)
	}
	list, err := x.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := &storedList{Version: 1, Account: "a@example.org", ListSeq: list.ListSeq, Subscriptions: list.Subscriptions}
	for _, m := range list.Mailboxes {
		want.Mailboxes = append(want.Mailboxes, storedMailbox{ID: int64(m.ID), Name: m.Name, UIDValidity: m.UIDValidity, SpecialUse: m.SpecialUse})
	}
	for i := range want.Mailboxes { // nothing and an empty list are the same
		if len(want.Mailboxes[i].SpecialUse) == 0 {
			want.Mailboxes[i].SpecialUse = nil
		}
	}
	if got := c.stored(); !reflect.DeepEqual(got, want) || !reflect.DeepEqual(got.names(), []string{"Drafts", Inbox, "Old"}) {
		t.Errorf("stored is %+v\nwant      %+v", got, want)
	}
}

// The first message of an account has its list written, so that it is known from the bucket alone whose mail
// it is; later ones have not.
func TestListIsWrittenWithTheFirstMail(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still()
	later := time.Now().Add(x.cfg.ListDelay + time.Minute)
	if ids := x.lists.take(later); len(ids) > 0 {
		t.Errorf("before there was any mail: %v", ids)
	}
	c.append(x, "Archive", mail("1"))
	x.writeLists(t.Context(), x.db, later)
	if got := c.stored(); got == nil || got.Account != "a@example.org" {
		t.Errorf("stored is %+v", got)
	}
	c.append(x, "Archive", mail("2"))
	if ids := x.lists.take(later); len(ids) > 0 {
		t.Errorf("after the second: %v", ids)
	}
}

// A scan writes the list only if it is not there as it is, so that a versioned bucket does not fill
// with copies.
func TestListIsNotWrittenAgain(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still()
	scan := func() (puts int64) {
		t.Helper()
		before := c.blobs.puts.Load()
		if report, err := x.Collect(t.Context(), c.account.ID); err != nil || report.Scanned != 1 {
			t.Fatalf("collected %+v, %v", report, err)
		}
		return c.blobs.puts.Load() - before
	}
	if n := scan(); n != 1 || len(c.stored().names()) != 2 {
		t.Errorf("the first scan put %d objects; stored is %+v", n, c.stored())
	}
	if n := scan(); n != 0 {
		t.Errorf("the second put %d", n)
	}
	x.lists.note(c.account.ID, time.Now())
	x.writeLists(t.Context(), x.db, time.Now())
	if n := scan(); n != 0 {
		t.Errorf("after a change that was none it put %d", n)
	}
	rename(t, x, "Archive", "archive") // as long as before
	if n := scan(); n != 1 || len(c.stored().names()) != 2 || c.stored().names()[1] != "archive" {
		t.Errorf("after a change it put %d; stored is %+v", n, c.stored())
	}
	key, err := blobstore.NameKey(int64(c.account.ID), listName)
	if err != nil {
		t.Fatal(err)
	}
	for _, garbage := range []string{"", strings.Repeat("x", 1<<20)} {
		if _, err := c.blobs.Store.Put(t.Context(), key, strings.NewReader(garbage), int64(len(garbage))); err != nil {
			t.Fatal(err)
		}
		if n := scan(); n != 1 || len(c.stored().names()) != 2 {
			t.Errorf("over garbage of %d octets it put %d; stored is %+v", len(garbage), n, c.stored())
		}
	}
}

// While the store is away the list waits, and a list of an account that is gone is not written.
func TestListWaits(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still()
	create(t, x, "New")
	later := func(n int) time.Time {
		at := time.Now()
		for range n {
			at = at.Add(x.cfg.ListDelay + time.Minute)
		}
		return at
	}
	c.blobs.set(func() { c.blobs.failed = blobstore.ErrUnavailable })
	x.writeLists(t.Context(), x.db, later(1))
	c.blobs.set(func() { c.blobs.failed = nil })
	x.writeLists(t.Context(), x.db, later(1))
	if got := c.stored(); got != nil {
		t.Errorf("tried again at once: %+v", got)
	}
	x.lists.note(4711, time.Now())
	x.writeLists(t.Context(), x.db, later(2))
	if got := c.stored(); got == nil || len(got.Mailboxes) != 3 {
		t.Errorf("stored is %+v", got)
	}
	if got := x.lists.take(later(9)); len(got) != 0 {
		t.Errorf("%v still wait", got)
	}
}

// A node that stops writes what waits, and the collector what no node wrote.
func TestListIsWrittenInTheEnd(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.node()
	create(t, x, "New")
	x.stop()
	if got := c.stored(); got == nil || len(got.Mailboxes) != 3 {
		t.Errorf("stored is %+v", got)
	}
	remove(t, c.still(), "New")
	if _, err := c.still().Collect(context.WithoutCancel(t.Context()), c.account.ID); err != nil {
		t.Fatal(err)
	}
	if got := c.stored(); got == nil || len(got.Mailboxes) != 2 {
		t.Errorf("stored is %+v", got)
	}
}
