package mailstore

import (
	"bytes"
	"fmt"
	"testing"

	"starling/metadata"
)

// TestBudgets holds every operation to its number of round trips to PostgreSQL
// and of requests to the object store.
func TestBudgets(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	for i := range 10 {
		c.append(c.still(), Inbox, mail(fmt.Sprint(i)))
	}
	x, y := c.still(), c.still()
	ctx := t.Context()
	var mine, archive *client
	upload1 := func(mailbox string) func() {
		return func() { c.append(x, mailbox, mail("new")) }
	}
	transfer := func(move bool) func() {
		return func() {
			run := mine.Copy
			if move {
				run = mine.Move
			}
			if _, err := run(ctx, CopyArgs{View: mine.Snapshot(), UIDs: one(mine.Snapshot().UID(0)), Dest: "Archive", All: true}); err != nil {
				t.Fatal(err)
			}
		}
	}
	store := func(mode FlagMode, flag string) func() {
		return func() { mine.store(one(mine.Snapshot().Last()), mode, flag) }
	}
	expunge := func() {
		if _, err := mine.Expunge(ctx, mine.Snapshot(), nil); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := func(do func()) func() { // before the operation, unknown to x
		return func() { do() }
	}
	var row metadata.Message
	read := func() {
		b, err := mine.Body(&row)
		must(err)
		defer b.Close()
		must(b.ReadRange(ctx, new(bytes.Buffer), 0, b.Size()))
	}
	list := func() {
		must(mine.Rows(ctx, liveUIDs(mine.Snapshot()), smallColumns|metadata.ColSummary, true, func(*metadata.Message) error { return nil }))
	}
	for _, step := range []struct {
		what              string
		before            func()
		do                func()
		trips, puts, gets int64
	}{
		{what: "APPEND, mailbox not held", do: upload1(Inbox), trips: 3, puts: 1},
		{what: "APPEND, mailbox held", do: upload1(Inbox), trips: 1, puts: 1},
		{what: "SELECT, mailbox held", do: func() { mine = c.enter(x, Inbox) }, trips: 1},
		{what: "SELECT, mailbox not held", do: func() { archive = c.enter(x, "Archive") }, trips: 2},
		{what: "NOOP", do: func() { mine.refresh() }, trips: 1},
		{what: "LIST with STATUS of all", do: func() { _, err := x.List(ctx); must(err) }, trips: 1},
		{what: "STATUS", do: func() { _, err := x.Mailbox(ctx, "Archive"); must(err) }, trips: 1},
		{what: "GETQUOTA", do: func() { _, err := x.Usage(ctx); must(err) }, trips: 1},
		{what: "FETCH of rows", do: func() { row = mine.row(1) }, trips: 1},
		{what: "FETCH of a list", do: list, trips: 1},
		{what: "FETCH of a list again", do: list},
		{what: "FETCH of a body", do: read, gets: 1},
		{what: "STORE", do: store(AddFlags, "flagged"), trips: 1},
		{what: "STORE of a new keyword", do: store(AddFlags, "new"), trips: 1},
		{what: "STORE that changes nothing", do: store(AddFlags, "flagged"), trips: 1},
		{what: `STORE \Deleted, size known`, do: store(AddFlags, "deleted"), trips: 1},
		{what: "EXPUNGE, size known", do: expunge, trips: 1},
		{what: "EXPUNGE of nothing", do: expunge, trips: 1},
		{what: `STORE \Deleted, sizes not known`, do: func() { mine.store(one(2), AddFlags, "deleted") }, trips: 2},
		{what: "EXPUNGE after it", do: expunge, trips: 1},
		{what: "COPY", do: transfer(false), trips: 1},
		{what: "MOVE", do: transfer(true), trips: 1},
		{what: "CREATE", do: func() { create(t, x, "New") }, trips: 1},
		{what: "RENAME", do: func() { rename(t, x, "New", "Newer") }, trips: 1},
		{what: "SUBSCRIBE", do: func() { must(x.Subscribe(ctx, "Newer")) }, trips: 1},
		{what: "DELETE", do: func() { remove(t, x, "Newer") }, trips: 1},
		{what: "LMTP RCPT", do: func() {
			a, detail, err := x.Recipient(ctx, c.account.Name)
			must(err)
			_, err = a.DetailMailbox(ctx, detail)
			must(err)
			must(a.HasRoom(ctx, 100))
			a.Close()
		}, trips: 1},
		{what: "LMTP RCPT with detail", do: func() {
			a, detail, err := x.Recipient(ctx, "a+Archive@example.org")
			must(err)
			name, err := a.DetailMailbox(ctx, detail)
			must(err)
			if name != "Archive" {
				t.Errorf("delivered to %q", name)
			}
			a.Close()
		}, trips: 3},
		{what: "LMTP DATA, mailbox held", do: func() {
			_, err := upload(ctx, x.Account, Incoming{Mailbox: Inbox, Fit: true}, mail("lmtp"), &[32]byte{1})
			must(err)
		}, trips: 1, puts: 1},
		// Once to find that it does not come in, once to learn why, and once more to doom the object that
		// nothing will name.
		{what: "LMTP DATA tried again", do: func() {
			_, err := upload(ctx, x.Account, Incoming{Mailbox: Inbox, Fit: true}, mail("lmtp"), &[32]byte{1})
			must(err)
		}, trips: 4, puts: 1},
		// The first commit after a foreign change loses, and is made again under the lock.
		{
			what: "STORE after a foreign change", before: elsewhere(func() { c.append(y, Inbox, mail("y")) }),
			do: store(AddFlags, "seen"), trips: 3,
		},
		{what: "STORE after that", do: store(RemoveFlags, "seen"), trips: 2},
		{what: "STORE, six more", do: func() {
			for i := range 6 {
				store([]FlagMode{AddFlags, RemoveFlags}[i%2], "seen")()
			}
		}, trips: 12},
		{what: "STORE, without the lock again", do: func() {
			store(RemoveFlags, "flagged")()
			store(AddFlags, "flagged")()
			store(RemoveFlags, "flagged")()
		}, trips: 4},
	} {
		if step.before != nil {
			step.before()
		}
		puts, gets := c.blobs.puts.Load(), c.blobs.gets.Load()
		trips := x.trips(step.do)
		puts, gets = c.blobs.puts.Load()-puts, c.blobs.gets.Load()-gets
		if trips != step.trips || puts != step.puts || gets != step.gets {
			t.Errorf("%s: %d round trips, %d PUT, %d GET; want %d, %d, %d",
				step.what, trips, puts, gets, step.trips, step.puts, step.gets)
		}
	}
	_ = archive
	c.check(Inbox)
}

// An account with a limit is asked about before a message is taken in, and pays
// one round trip for it.
func TestBudgetsWithQuota(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{Messages: 10, Bytes: 1 << 20})
	x := c.still()
	mine := c.enter(x, Inbox)
	for _, step := range []struct {
		what  string
		do    func()
		trips int64
	}{
		{"APPEND", func() { c.append(x, Inbox, mail("1")) }, 2},
		{"APPEND", func() { c.append(x, Inbox, mail("2")) }, 2},
		{"STORE", func() { mine.store(one(1), AddFlags, "deleted") }, 1},
		{"EXPUNGE", func() {
			if _, err := mine.Expunge(t.Context(), mine.Snapshot(), nil); err != nil {
				t.Fatal(err)
			}
		}, 1},
	} {
		if trips := x.trips(step.do); trips != step.trips {
			t.Errorf("%s: %d round trips, want %d", step.what, trips, step.trips)
		}
	}
}
