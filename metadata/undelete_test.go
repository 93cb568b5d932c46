package metadata_test

import (
	"slices"
	"testing"
	"time"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

func TestRestoreMailbox(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		ctx := t.Context()
		n := inboxOf(t, db, func(a *metadata.NewAccount) { a.Limits = metadata.Quota{Messages: 5} })
		a := n.box.Account
		made, err := db.CreateMailbox(ctx, a, "Old", []string{`\Archive`, `\Junk`})
		check(t, err)
		old := load(t, db, made.Mailbox)
		old = do(t, db, old, old.appending(3))
		old = do(t, db, old, old.storing(metadata.Seen, 1))
		old = do(t, db, old, old.expunging(2))
		check(t, errOf(db.DeleteMailbox(ctx, a, "Old")))
		if got, err := db.DeletedMailboxes(ctx, a); err != nil || len(got) != 1 || got[0].Name != "Old" || got[0].Messages != 2 || time.Since(got[0].At) > time.Minute {
			t.Fatalf("deleted are %+v, %v", got, err)
		}
		again, err := db.CreateMailbox(ctx, a, "Old", []string{`\Junk`})
		check(t, err)
		restore := func(name string) (metadata.ListChange, int, error) { return db.RestoreMailbox(ctx, ref(old), name) }
		_, _, err = restore("Old")
		wantErr(t, err, metadata.ErrExists)
		n = do(t, db, n, n.appending(4)) // and no room for two more
		_, _, err = restore("Old (2)")
		wantErr(t, err, metadata.ErrOverQuota)
		if used, err := db.Usage(ctx, a); err != nil || used.Messages != 4 {
			t.Errorf("used are %+v, %v", used, err)
		}
		do(t, db, n, n.expunging(1))
		done, lost, err := restore("Old (2)")
		check(t, err)
		m := done.Mailbox
		if lost != 0 || m.ID != old.box.ID || m.Name != "Old (2)" || m.Dropped || m.UIDValidity <= again.Mailbox.UIDValidity ||
			m.ListSeq <= again.ListSeq || done.ListSeq != m.ListSeq || !slices.Equal(m.SpecialUse, []string{`\Archive`}) {
			t.Errorf("restored %+v, %d lost", done, lost)
		}
		if got := load(t, db, m); got.box.Counters != old.box.Counters || got.box.ModSeq != old.box.ModSeq+2 {
			t.Errorf("restored %+v, it was %+v", got.box, old.box)
		} else {
			sound(t, db, got)
			do(t, db, got, got.storing(metadata.Flagged, 3))
		}
		if used, err := db.Usage(ctx, a); err != nil || used.Messages != 5 {
			t.Errorf("used are %+v, %v", used, err)
		}
		for _, name := range []string{"Old (2)", "Old (3)"} {
			_, _, err = restore(name)
			wantErr(t, err, metadata.ErrNoMailbox) // it is not deleted
		}
		check(t, errOf(db.DeleteMailbox(ctx, a, "Old (2)")))
		check(t, db.DeleteAccount(ctx, "alice@example.org"))
		_, _, err = restore("Old")
		wantErr(t, err, metadata.ErrExists)
		_, _, err = restore("Older")
		wantErr(t, err, metadata.ErrNotFound)
	})
}

// What the collector took before it was stopped stays lost, and the rest is sound.
func TestRestoreMailboxInPart(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	ctx := t.Context()
	n := inboxOf(t, db)
	old := create(t, db, n, "Old")
	old = do(t, db, old, old.appending(300))
	check(t, errOf(db.DeleteMailbox(ctx, n.box.Account, "Old")))
	_, err := db.Pool().Exec(ctx, `delete from message where account_id = $1 and mailbox_id = $2 and uid <= 200`, n.box.Account, old.box.ID)
	check(t, err)
	done, lost, err := db.RestoreMailbox(ctx, ref(old), "Old")
	check(t, err)
	if lost != 200 || done.Mailbox.Messages != 100 {
		t.Errorf("%d lost, restored %+v", lost, done.Mailbox)
	}
	if found, err := db.CheckMailbox(ctx, ref(old), nil); err != nil || !found.Sound() {
		t.Errorf("found %+v, %v", found, err)
	}
	after := load(t, db, done.Mailbox)
	check(t, errOf(db.Commit(ctx, after.storing(metadata.Seen, 201, 300))))
}

func TestExpungedDays(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	ctx := t.Context()
	n := inboxOf(t, db)
	n = do(t, db, n, n.appending(3))
	n = do(t, db, n, n.expunging(1))
	_, err := db.Pool().Exec(ctx, `update expunged set day = day - 3`)
	check(t, err)
	first := n.box.ModSeq
	n = do(t, db, n, n.expunging(2))
	n = do(t, db, n, n.expunging(3))
	days, err := db.ExpungedDays(ctx, ref(n))
	check(t, err)
	if len(days) != 2 || days[0].ModSeq != first || days[1].ModSeq != n.box.ModSeq || days[1].Day.Sub(days[0].Day) != 72*time.Hour {
		t.Errorf("days are %+v", days)
	}
}

func TestHold(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		ctx := t.Context()
		a := metadatatest.Account(t, db, "alice@example.org")
		for _, reason := range []string{"a lawsuit", "another", ""} {
			before, err := db.Hold(ctx, a.ID)
			check(t, err)
			check(t, db.SetHold(ctx, "Alice@example.org", reason))
			got, err := db.Hold(ctx, a.ID)
			check(t, err)
			if got.Held != (reason != "") || got.Reason != reason || got.Held == got.Since.IsZero() || before.Held && got.Held && !got.Since.Equal(before.Since) {
				t.Errorf("for %q: %+v", reason, got)
			}
			if r, err := db.Recipient(ctx, a.Name); err != nil || r.Hold != got.Held {
				t.Errorf("for %q the account reads %+v, %v", reason, r, err)
			}
		}
		check(t, db.SetHold(ctx, a.Name, "a lawsuit"))
		for _, reason := range []string{"rebuild", "a lawsuit"} {
			lifted, err := db.LiftHold(ctx, a.ID, reason)
			check(t, err)
			if got, err := db.Hold(ctx, a.ID); err != nil || lifted == got.Held || lifted != (reason == "a lawsuit") {
				t.Errorf("lifted for %q: %t; %+v, %v", reason, lifted, got, err)
			}
		}
		wantErr(t, errOf(db.Hold(ctx, a.ID+1)), metadata.ErrNotFound)
		wantErr(t, errOf(db.LiftHold(ctx, a.ID+1, "x")), metadata.ErrNotFound)
	})
}

func TestLeft(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	ctx := t.Context()
	n := inboxOf(t, db)
	n = do(t, db, n, n.appending(3))
	left, err := db.Left(ctx, n.box.Account)
	check(t, err)
	if left.Mailboxes != 1 || left.Messages != 3 || left.Flags != 1 || left.Other < 3 {
		t.Errorf("left are %+v", left)
	}
	check(t, db.DeleteAccount(ctx, "alice@example.org"))
	check(t, errOf(db.EmptyAccount(ctx, n.box.Account)))
	if left, err = db.Left(ctx, n.box.Account); err != nil || left.Mailboxes+left.Messages+left.Flags != 0 || left.Other == 0 {
		t.Errorf("left are %+v, %v", left, err)
	}
	check(t, db.RemoveAccount(ctx, n.box.Account))
	if left, err = db.Left(ctx, n.box.Account); err != nil || left != (metadata.Left{}) {
		t.Errorf("left are %+v, %v", left, err)
	}
}
