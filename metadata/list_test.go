package metadata_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

func names(boxes []metadata.Mailbox) []string {
	var all []string
	for _, m := range boxes {
		all = append(all, m.Name)
	}
	return all
}

func TestList(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		ctx := t.Context()
		a := metadatatest.Account(t, db, "alice@example.org", func(n *metadata.NewAccount) { n.Mailboxes = metadata.DefaultMailboxes() })
		metadatatest.Account(t, db, "bob@example.org")
		l, err := db.List(ctx, a.ID)
		check(t, err)
		if got := names(l.Mailboxes); !slices.Equal(got, []string{"Archive", "Drafts", "INBOX", "Junk", "Sent", "Trash"}) {
			t.Errorf("mailboxes are %q", got)
		}
		if !slices.Equal(l.Subscriptions, names(l.Mailboxes)) || !slices.Equal(l.Mailboxes[1].SpecialUse, []string{`\Drafts`}) {
			t.Errorf("list is %+v", l)
		}
		seen := map[uint32]bool{}
		for _, m := range l.Mailboxes {
			if seen[m.UIDValidity] || m.ModSeq != 1 || m.UIDNext != 1 || m.Account != a.ID {
				t.Errorf("mailbox %+v", m)
			}
			seen[m.UIDValidity] = true
		}
		wantErr(t, errOf(db.List(ctx, 4711)), metadata.ErrNotFound)

		c, err := db.CreateMailbox(ctx, a.ID, "Work/Ünï", []string{`\Important`})
		check(t, err)
		if c.ListSeq != l.ListSeq+1 || c.Mailbox.ListSeq != c.ListSeq || c.Mailbox.Name != "Work/Ünï" || seen[c.Mailbox.UIDValidity] {
			t.Errorf("created %+v", c)
		}
		wantErr(t, errOf(db.CreateMailbox(ctx, a.ID, "Work/Ünï", nil)), metadata.ErrExists)
		wantErr(t, errOf(db.CreateMailbox(ctx, 4711, "x", nil)), metadata.ErrNotFound)
		got, err := db.MailboxByName(ctx, a.ID, "Work/Ünï")
		check(t, err)
		if got.ID != c.Mailbox.ID || !slices.Equal(got.SpecialUse, []string{`\Important`}) {
			t.Errorf("found %+v, created %+v", got, c.Mailbox)
		}
		wantErr(t, errOf(db.MailboxByName(ctx, a.ID, "Work")), metadata.ErrNoMailbox)
		pulses, err := db.AccountPulses(ctx, []metadata.AccountID{4711, a.ID})
		check(t, err)
		if want := (metadata.AccountPulse{Account: a.ID, ListSeq: c.ListSeq, AuthVersion: 1, State: metadata.Active}); pulses[1] != want || pulses[0].State != metadata.Deleting {
			t.Errorf("pulses are %+v", pulses)
		}
	})
}

// An account has a bounded number of mailboxes and of subscriptions, and what was deleted makes room.
func TestListLimits(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		ctx := t.Context()
		n := inboxOf(t, db)
		account := n.box.Account
		_, err := db.Pool().Exec(ctx, `
insert into mailbox (account_id, id, uidvalidity, stamp, epoch, listseq, name)
select $1::bigint, 1000 + i, 1, 1, 1, 1, 'm' || i
from generate_series(1, $2::bigint) i`, account, metadata.MaxMailboxes-2)
		check(t, err)
		create(t, db, n, "last")
		wantErr(t, errOf(db.CreateMailbox(ctx, account, "more", nil)), metadata.ErrListLimit)
		wantErr(t, errOf(db.CreateMailbox(ctx, account, "last", nil)), metadata.ErrExists)
		check(t, errOf(db.DeleteMailbox(ctx, account, "last")))
		create(t, db, n, "more")

		_, err = db.Pool().Exec(ctx, `
insert into subscription (account_id, name, subscribed, listseq)
select $1::bigint, 's' || i, i > 1, 1
from generate_series(1, $2::bigint) i`, account, metadata.MaxMailboxes-1) // beside INBOX
		check(t, err)
		for _, name := range []string{"more", "s2"} { // the second is there already
			check(t, errOf(db.Subscribe(ctx, account, name)))
		}
		wantErr(t, errOf(db.Subscribe(ctx, account, "s1")), metadata.ErrListLimit)
		check(t, errOf(db.Unsubscribe(ctx, account, "s2")))
		check(t, errOf(db.Subscribe(ctx, account, "s1")))
		after, err := db.List(ctx, account)
		check(t, err)
		if len(after.Mailboxes) != metadata.MaxMailboxes || len(after.Subscriptions) != metadata.MaxMailboxes ||
			slices.Contains(after.Subscriptions, "s2") {
			t.Errorf("%d mailboxes, %d subscriptions", len(after.Mailboxes), len(after.Subscriptions))
		}
	})
}

// A mailbox that is renamed with the one above it has no longer a name than one that is made.
func TestRenameOfLongNames(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		ctx := t.Context()
		n := inboxOf(t, db)
		account := n.box.Account
		long := strings.Repeat("x", metadata.MaxName-2)
		create(t, db, n, "a/"+long)
		create(t, db, n, "b/1/2/3/4/5/6/7/8/9")
		wantErr(t, errOf(db.RenameMailbox(ctx, account, "a", "aa")), metadata.ErrName)
		wantErr(t, errOf(db.RenameMailbox(ctx, account, "b", strings.Repeat("e/", 11)+"e")), metadata.ErrName)
		check(t, errOf(db.RenameMailbox(ctx, account, "a", "c")))
		check(t, errOf(db.RenameMailbox(ctx, account, "b", strings.Repeat("d/", 10)+"d")))
	})
}

func TestDelete(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		ctx := t.Context()
		n := inboxOf(t, db)
		box := create(t, db, n, "Work/2024")
		wantErr(t, errOf(db.DeleteMailbox(ctx, n.box.Account, "INBOX")), metadata.ErrInbox)
		wantErr(t, errOf(db.DeleteMailbox(ctx, n.box.Account, "Work")), metadata.ErrHasChildren)
		wantErr(t, errOf(db.DeleteMailbox(ctx, n.box.Account, "Wor")), metadata.ErrNoMailbox)
		create(t, db, n, "Work")
		c, err := db.DeleteMailbox(ctx, n.box.Account, "Work")
		check(t, err)
		if !c.Mailbox.Dropped || c.Mailbox.Name != "Work" || c.ListSeq != c.Mailbox.ListSeq {
			t.Errorf("deleted %+v", c)
		}
		c, err = db.DeleteMailbox(ctx, n.box.Account, "Work/2024")
		check(t, err)
		if c.Mailbox.ID != box.box.ID {
			t.Errorf("deleted %+v, want %+v", c.Mailbox, box.box)
		}
		wantErr(t, errOf(db.Load(ctx, n.box.Account, box.box.ID, metadata.Version{})), metadata.ErrNoMailbox)
		wantErr(t, errOf(db.Load(ctx, n.box.Account, 99, metadata.Version{})), metadata.ErrNoMailbox)
		again := create(t, db, n, "Work/2024")
		if again.box.ID == box.box.ID || again.box.UIDValidity <= box.box.UIDValidity {
			t.Errorf("made again: %+v, before %+v", again.box, box.box)
		}
		pulses, err := db.Pulses(ctx, []metadata.BoxRef{
			{Account: n.box.Account, Mailbox: box.box.ID}, {Account: n.box.Account, Mailbox: n.box.ID}, {Account: 1, Mailbox: 1},
		})
		check(t, err)
		if !pulses[0].Dropped || pulses[1].Dropped || pulses[1].Version != n.box.Version || !pulses[2].Dropped || pulses[2].Account != 1 {
			t.Errorf("pulses are %+v", pulses)
		}
	})
}

func TestRename(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		ctx := t.Context()
		n := inboxOf(t, db)
		account := n.box.Account
		for _, name := range []string{"a", "a/b", "a/b/ç", "a0", "a-b", "p/q", "INBOX/x"} {
			create(t, db, n, name)
		}
		rename := func(from, to string) metadata.ListChange {
			t.Helper()
			c, err := db.RenameMailbox(ctx, account, from, to)
			check(t, err)
			return c
		}
		all := func(want ...string) {
			t.Helper()
			l, err := db.List(ctx, account)
			check(t, err)
			if got := names(l.Mailboxes); !slices.Equal(got, want) {
				t.Errorf("mailboxes are %q, want %q", got, want)
			}
		}
		before, err := db.MailboxByName(ctx, account, "a/b")
		check(t, err)
		c := rename("a", "z/y")
		if c.Mailbox.Name != "z/y" || !slices.Equal(names(c.Children), []string{"z/y/b", "z/y/b/ç"}) || c.ListSeq != c.Children[0].ListSeq {
			t.Errorf("renamed %+v", c)
		}
		all("INBOX", "INBOX/x", "a-b", "a0", "p/q", "z/y", "z/y/b", "z/y/b/ç")
		if got := c.Children[0]; got.ID != before.ID || got.UIDValidity != before.UIDValidity || got.Version != before.Version {
			t.Errorf("renamed %+v was %+v", got, before)
		}
		if c := rename("p", "z/y/b/ç/p"); c.Mailbox.Name != "" || len(c.Children) != 1 {
			t.Errorf("renamed a name above others: %+v", c)
		}
		rename("INBOX/x", "x")
		all("INBOX", "a-b", "a0", "x", "z/y", "z/y/b", "z/y/b/ç", "z/y/b/ç/p/q")
		for _, test := range []struct {
			from, to string
			want     error
		}{
			{"INBOX", "y", metadata.ErrInbox},
			{"x", "INBOX", metadata.ErrExists},
			{"x", "x", metadata.ErrExists},
			{"x", "a0", metadata.ErrExists},
			{"nothing", "y", metadata.ErrNoMailbox},
		} {
			l, err := db.List(ctx, account)
			check(t, err)
			wantErr(t, errOf(db.RenameMailbox(ctx, account, test.from, test.to)), test.want)
			after, err := db.List(ctx, account)
			check(t, err)
			if after.ListSeq != l.ListSeq {
				t.Errorf("a rename that did nothing raised the listseq")
			}
		}
		rename("x", "x/y") // into itself
		create(t, db, n, "q/b")
		wantErr(t, errOf(db.RenameMailbox(ctx, account, "z/y", "q")), metadata.ErrExists) // a child's name is taken
	})
}

func TestSubscribe(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		ctx := t.Context()
		n := inboxOf(t, db)
		var last int64
		for _, test := range []struct {
			change func(name string) (metadata.ListChange, error)
			name   string
			raises bool
			want   []string
		}{
			{func(s string) (metadata.ListChange, error) { return db.Subscribe(ctx, n.box.Account, s) }, "no such", true, []string{"INBOX", "no such"}},
			{func(s string) (metadata.ListChange, error) { return db.Subscribe(ctx, n.box.Account, s) }, "no such", false, []string{"INBOX", "no such"}},
			{func(s string) (metadata.ListChange, error) { return db.Unsubscribe(ctx, n.box.Account, s) }, "INBOX", true, []string{"no such"}},
			{func(s string) (metadata.ListChange, error) { return db.Unsubscribe(ctx, n.box.Account, s) }, "never", false, []string{"no such"}},
			{func(s string) (metadata.ListChange, error) { return db.Subscribe(ctx, n.box.Account, s) }, "INBOX", true, []string{"INBOX", "no such"}},
		} {
			c, err := test.change(test.name)
			check(t, err)
			if last != 0 && (c.ListSeq > last) != test.raises {
				t.Errorf("listseq went from %d to %d", last, c.ListSeq)
			}
			last = c.ListSeq
			l, err := db.List(ctx, n.box.Account)
			check(t, err)
			if !slices.Equal(l.Subscriptions, test.want) || l.ListSeq != last {
				t.Errorf("list is %+v, want %q at %d", l, test.want, last)
			}
		}
		_, err := db.Subscribe(ctx, 4711, "x")
		wantErr(t, err, metadata.ErrNotFound)
	})
}

func TestRecent(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		n := inboxOf(t, db)
		n = do(t, db, n, n.appending(5))
		for _, test := range []struct {
			uidnext, from int64
			won           bool
		}{{4, 1, true}, {4, 0, false}, {6, 4, true}, {5, 0, false}} {
			from, won, err := db.ClaimRecent(t.Context(), n.box.Account, n.box.ID, test.uidnext)
			check(t, err)
			if from != test.from || won != test.won {
				t.Errorf("claim up to %d: from %d, won %t", test.uidnext, from, won)
			}
		}
		if got := load(t, db, n.box); got.box.Version != n.box.Version || got.box.Recent != 6 {
			t.Errorf("after the claims %+v", got.box)
		}
		do(t, db, n, n.storing(metadata.Seen, 1)) // a claim is no conflict
	})
}

// A claim is not waited for by the disk; what comes after it on the same connection is.
func TestRecentLeavesTheConnectionAsItWas(t *testing.T) {
	t.Parallel()
	dsn := metadatatest.DSN(t)
	metadatatest.Exec(t, dsn, `do $$ begin execute format('alter database %I set synchronous_commit = on', current_database()); end $$`)
	db, err := metadata.Open(t.Context(), metadata.Config{DSN: dsn})
	check(t, err)
	defer db.Close()
	n := inboxOf(t, db)
	n = do(t, db, n, n.appending(1))
	_, won, err := db.ClaimRecent(t.Context(), n.box.Account, n.box.ID, 2)
	check(t, err)
	warnings, err := db.Warnings(t.Context()) // on the connection that was used last
	check(t, err)
	if !won || slices.ContainsFunc(warnings, func(w string) bool { return strings.HasPrefix(w, "synchronous_commit") }) {
		t.Errorf("won: %t; after that the connection warns: %q", won, warnings)
	}
}

func TestUIDValidityRises(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	n := inboxOf(t, db)
	last := n.box.UIDValidity
	if now := time.Now().Unix(); int64(last) < now-60 || int64(last) > now+60 {
		t.Errorf("UIDVALIDITY is %d at %d", last, now)
	}
	for range 20 {
		box := create(t, db, n, "x")
		if box.box.UIDValidity <= last {
			t.Fatalf("UIDVALIDITY %d after %d", box.box.UIDValidity, last)
		}
		last = box.box.UIDValidity
		_, err := db.DeleteMailbox(t.Context(), n.box.Account, "x")
		check(t, err)
	}
}
