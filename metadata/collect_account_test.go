package metadata_test

import (
	"testing"
	"time"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

func TestForgetDeliveries(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	ctx := t.Context()
	n := inboxOf(t, db)
	for _, sql := range []string{
		`insert into delivery (account_id, digest, mailbox_id, uid, at) select a, sha256(i::text::bytea), 1, i, now() - interval '8 days' from generate_series(1, 10001) i, (values (5), (6)) v(a)`,
		`insert into delivery (account_id, digest, mailbox_id, uid, at) select 5, sha256('x'), 1, 1, now() - interval '6 days'`,
	} {
		check(t, errOf(db.Pool().Exec(ctx, sql)))
	}
	for _, test := range []struct {
		account, after metadata.AccountID
		want           int64
		last           metadata.AccountID
	}{{n.box.Account, 0, 0, 0}, {6, 0, 10_001, 6}, {0, 0, 10_001, 5}, {0, 5, 0, 0}} {
		got, last, err := db.ForgetDeliveries(ctx, test.account, test.after, 7*24*time.Hour)
		check(t, err)
		if got != test.want || last != test.last {
			t.Errorf("of account %d behind %d: %d forgotten up to %d, want %d up to %d", test.account, test.after, got, last, test.want, test.last)
		}
	}
	expectCount(t, db, "delivery", 1)
}

// An object without a row is an orphan only as long as the database is the one
// that an operator, or its making, vouched for.
func TestOrphans(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	ctx := t.Context()
	n := inboxOf(t, db)
	orphan := []metadata.ObjectID{{1}, {2}}
	doom := func(want int64) {
		t.Helper()
		got, err := db.Doom(ctx, n.box.Account, orphan)
		check(t, err)
		if got != want {
			t.Errorf("%d orphans doomed, want %d", got, want)
		}
	}
	accepted := func(want bool) {
		t.Helper()
		got, err := db.EpochAccepted(ctx)
		check(t, err)
		if got != want {
			t.Errorf("epoch accepted: %v", got)
		}
	}
	accepted(true)
	check(t, errOf(db.BumpEpoch(ctx)))
	accepted(false)
	doom(0)
	check(t, errOf(db.AcceptEpoch(ctx)))
	accepted(true)
	check(t, db.SetHold(ctx, "alice@example.org", "a lawsuit"))
	doom(0)
	check(t, db.SetHold(ctx, "alice@example.org", ""))
	doom(2)
	doom(0)
	accounts, err := db.AccountsToScan(ctx, 0, time.Hour, 10)
	check(t, err)
	now, err := db.AccountsToScan(ctx, 0, 0, 10)
	check(t, err)
	this, err := db.AccountsToScan(ctx, n.box.Account, time.Hour, 10)
	check(t, err)
	if len(accounts) != 0 || len(now) != 1 || len(this) != 1 {
		t.Errorf("to be looked through: %v, %v, %v", accounts, now, this)
	}
	check(t, db.Scanned(ctx, n.box.Account))
}

func TestDeletingAccount(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	ctx := t.Context()
	const name = "alice@example.org"
	n := inboxOf(t, db, func(a *metadata.NewAccount) {
		a.PasswordHash, a.Limits, a.Mailboxes = "x", metadata.Quota{Bytes: 1 << 40}, metadata.DefaultMailboxes()
	})
	n = do(t, db, n, n.appending(6000))
	n = do(t, db, n, n.within(false, 1))
	n = do(t, db, n, n.expunging(2))
	check(t, db.AddAlias(ctx, name, "a@example.org"))
	bob := metadatatest.Account(t, db, "bob@example.org")
	id := n.box.Account

	_, err := db.EmptyAccount(ctx, id)
	wantErr(t, err, metadata.ErrHeld)
	check(t, db.DeleteAccount(ctx, name))
	deleting := func(wait time.Duration, want int) {
		t.Helper()
		got, err := db.DeletingAccounts(ctx, 0, wait, 0, 10)
		check(t, err)
		if len(got) != want {
			t.Errorf("to be deleted after %v: %v", wait, got)
		}
	}
	deleting(time.Hour, 0)
	deleting(0, 1)
	check(t, db.SetHold(ctx, name, "a lawsuit"))
	deleting(0, 0)
	for _, err := range []error{
		errOf(db.EmptyAccount(ctx, id)), errOf(db.NoteListing(ctx, id, true, 0)), db.RemoveAccount(ctx, id),
	} {
		wantErr(t, err, metadata.ErrHeld)
	}
	check(t, db.SetHold(ctx, name, ""))
	wantErr(t, db.RemoveAccount(ctx, id), metadata.ErrHeld) // it has mail

	messages, err := db.EmptyAccount(ctx, id)
	check(t, err)
	if messages != 6001 {
		t.Errorf("%d messages deleted", messages)
	}
	wantErr(t, errOf(db.Commit(ctx, n.appending(1))), metadata.ErrNoMailbox)
	for _, table := range []string{"message", "flags", "blob_share", "thread_ref", "expunged", "quota"} {
		expectCount(t, db, table, 0)
	}
	for i, step := range []struct {
		empty    bool
		interval time.Duration
		want     bool
	}{{true, 0, false}, {false, 0, false}, {true, 0, false}, {true, time.Hour, false}, {true, 0, true}} {
		done, err := db.NoteListing(ctx, id, step.empty, step.interval)
		check(t, err)
		if done != step.want {
			t.Errorf("listing %d: done %v", i, done)
		}
	}
	wantErr(t, errOf(db.CreateAccount(ctx, metadata.NewAccount{Name: name})), metadata.ErrExists)
	check(t, db.RemoveAccount(ctx, id))
	expectCount(t, db, "account", 1)
	expectCount(t, db, "credential", 0)
	expectCount(t, db, "mailbox", 1)
	expectCount(t, db, "address", 1)
	check(t, errOf(db.List(ctx, bob.ID)))
	check(t, errOf(db.CreateAccount(ctx, metadata.NewAccount{Name: name})))
}

// Of a thread that has a message no message id is forgotten, and of others all are.
func TestForgetThreads(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		n := inboxOf(t, db)
		other := metadatatest.Account(t, db, "bob@example.org")
		add := func(refs ...int64) (added metadata.Message) {
			t.Helper()
			c := n.appending(1)
			c.Changes[0].Insert[0].References = refs
			check(t, errOf(db.Commit(t.Context(), c)))
			n = load(t, db, n.box)
			uid := c.Changes[0].Insert[0].UID
			check(t, db.Messages(t.Context(), n.box.Account, n.box.ID, []metadata.UIDRange{{First: uid, Last: uid}}, metadata.ColIDs,
				func(m *metadata.Message) error { added = *m; return nil }))
			return added
		}
		forget := func(account metadata.AccountID, want int64, left int) {
			t.Helper()
			got, err := db.ForgetThreads(t.Context(), account)
			check(t, err)
			if got != want {
				t.Errorf("%d message ids forgotten, want %d", got, want)
			}
			expectCount(t, db, "thread_ref", left)
		}
		gone := []uint32{add(11, 10).UID, add(12, 11, 10).UID, add(13, 12, 10).UID}
		root, reply := add(20), add(21, 20)
		add(31, 30)
		forget(n.box.Account, 0, 5)
		n = do(t, db, n, n.expunging(append(gone, root.UID)...))
		forget(n.box.Account, 0, 5) // their rows are there
		check(t, errOf(db.Collect(t.Context(), ref(n), n.box.ModSeq)))
		n = load(t, db, n.box)
		forget(other.ID, 0, 5)
		forget(n.box.Account, 3, 2)
		forget(n.box.Account, 0, 2)
		if later := add(22, 21); later.ThreadID != reply.ThreadID {
			t.Errorf("an answer is in thread %d, want %d", later.ThreadID, reply.ThreadID)
		}
	})
}
