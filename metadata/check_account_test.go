package metadata_test

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

func TestRepairQuota(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	n, archive := wellUsed(t, db, func(a *metadata.NewAccount) { a.Limits = metadata.Quota{Messages: 1000} })
	want := metadata.Quota{
		Bytes:    n.box.Bytes + archive.box.Bytes,
		Messages: n.box.Messages + archive.box.Messages,
	}
	got, err := db.CheckQuota(t.Context(), n.box.Account)
	check(t, err)
	if !got.Sound() || !got.Limited || got.Used != want {
		t.Errorf("a sound quota: %+v", got)
	}
	for _, sql := range []string{
		"update quota set bytes = bytes + 1 where account_id = $1",
		"update quota set messages = messages - 3 where account_id = $1",
	} {
		damage(t, db, sql, n.box.Account)
		got, err := db.CheckQuota(t.Context(), n.box.Account)
		check(t, err)
		if got.Sound() || got.Counted != want {
			t.Errorf("%s: found %+v", sql, got)
		}
		mended, err := db.RepairQuota(t.Context(), n.box.Account)
		check(t, err)
		if mended != got {
			t.Errorf("%s: mended %+v, found %+v", sql, mended, got)
		}
		after, err := db.CheckQuota(t.Context(), n.box.Account)
		check(t, err)
		if !after.Sound() || after.Used != want {
			t.Errorf("%s: after it %+v", sql, after)
		}
	}
	if l := load(t, db, n.box); l.box.Version != n.box.Version {
		t.Error("a mailbox was changed")
	}
	check(t, db.SetLimits(t.Context(), "alice@example.org", metadata.Quota{}))
	for _, f := range []func() (metadata.QuotaCheck, error){
		func() (metadata.QuotaCheck, error) { return db.CheckQuota(t.Context(), n.box.Account) },
		func() (metadata.QuotaCheck, error) { return db.RepairQuota(t.Context(), n.box.Account) },
	} {
		if got, err := f(); err != nil || !got.Sound() || got.Limited {
			t.Errorf("an account without a limit: %+v, %v", got, err)
		}
	}
}

// What is wrong with the owners of objects is found and mended; what commits do meanwhile
// to an object is not undone.
func TestRepairShares(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		n, archive := wellUsed(t, db)
		account := n.box.Account
		found := func() []metadata.Share {
			t.Helper()
			all, err := db.CheckShares(t.Context(), account, metadata.ObjectID{}, 100)
			check(t, err)
			return all
		}
		if all := found(); len(all) != 0 {
			t.Fatalf("in a sound account: %+v", all)
		}
		rows := messages(t, db, n.box)
		id := func(uid uint32) metadata.ObjectID { return rows[uid].Object }
		arg := func(o metadata.ObjectID) pgtype.UUID { return pgtype.UUID{Bytes: o, Valid: true} }
		ghost := newMessage(1).Object
		before := refs(t, db, account)
		// 9 and 10 were copied; 20 and 21 were not; 12 is expunged and still owns its object.
		damage(t, db, "update blob_share set refs = 5 where account_id = $1 and object = $2", account, arg(id(9)))
		damage(t, db, "delete from blob_share where account_id = $1 and object = $2", account, arg(id(10)))
		damage(t, db, "insert into blob_share (account_id, object, refs) values ($1, $2, 2)", account, arg(id(20)))
		damage(t, db, "insert into blob_share (account_id, object, refs) values ($1, $2, 0)", account, arg(id(12)))
		damage(t, db, "insert into doomed (account_id, object) values ($1, $2)", account, arg(id(12)))
		damage(t, db, "insert into blob_share (account_id, object, refs) values ($1, $2, 1)", account, arg(ghost))
		wants := map[metadata.ObjectID][2]int{id(9): {5, 2}, id(10): {1, 2}, id(20): {2, 1}, id(12): {0, 1}, ghost: {1, 0}}
		all := found()
		for _, s := range all {
			if wants[s.Object] != [2]int{s.Refs, s.Owners} {
				t.Errorf("found %+v, want %v", s, wants[s.Object])
			}
		}
		if len(all) != len(wants) {
			t.Fatalf("found %d objects, want %d", len(all), len(wants))
		}
		var paged []metadata.Share
		for after := (metadata.ObjectID{}); ; {
			page, err := db.CheckShares(t.Context(), account, after, 2)
			check(t, err)
			if len(page) == 0 {
				break
			}
			paged, after = append(paged, page...), page[len(page)-1].Object
		}
		if !slices.EqualFunc(paged, all, func(a, b metadata.Share) bool { return a.Object == b.Object }) {
			t.Errorf("in pages %+v, at once %+v", paged, all)
		}

		// Between the check and the repair another node copies what is to be mended.
		check(t, errOf(db.Commit(t.Context(), n.transferring(archive, false, 9))))
		mended, _, err := db.RepairShares(t.Context(), account, all)
		check(t, err)
		if mended != len(all)-1 {
			t.Errorf("mended %d, want all but the one that was copied", mended)
		}
		all = found()
		if len(all) != 1 || all[0].Object != id(9) || all[0].Refs != 6 || all[0].Owners != 3 {
			t.Fatalf("left are %+v", all)
		}
		seen := load(t, db, n.box).box
		mended, _, err = db.RepairShares(t.Context(), account, all)
		check(t, err)
		if mended != 1 || len(found()) != 0 {
			t.Errorf("mended %d, left %+v", mended, found())
		}
		if now := load(t, db, n.box).box; now.ModSeq != seen.ModSeq+1 || now.Stamp == seen.Stamp {
			t.Errorf("the mailbox is at %+v, was at %+v: want a commit", now.Version, seen.Version)
		}
		before[id(9)]++
		before[id(12)], before[id(20)], before[ghost] = 1, 1, 0
		if after := refs(t, db, account); len(after) != len(before) {
			t.Errorf("the shares are %v, want %v", after, before)
		} else {
			for o, n := range before {
				if after[o] != n {
					t.Errorf("object %x has %d owners, want %d", o, after[o], n)
				}
			}
		}
		doomed := pairs[metadata.ObjectID, bool](t, db, "select object, true from doomed where account_id = $1", account)
		if !doomed[ghost] || doomed[id(12)] {
			t.Errorf("doomed are %v", doomed)
		}
	})
}

// A mailbox of another epoch jumps before it is written to.
func TestRepairSharesInANewEpoch(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	n, _ := wellUsed(t, db)
	damage(t, db, "update blob_share set refs = refs + 1 where account_id = $1 and refs > 0", n.box.Account)
	check(t, errOf(db.BumpEpoch(t.Context())))
	all, err := db.CheckShares(t.Context(), n.box.Account, metadata.ObjectID{}, 100)
	check(t, err)
	mended, _, err := db.RepairShares(t.Context(), n.box.Account, all)
	check(t, err)
	if mended != 2 {
		t.Errorf("mended %d, want 2", mended)
	}
	if now := load(t, db, n.box).box; len(now.Jumps) != 1 || now.ModSeq != (n.box.ModSeq>>28+1)<<28+1 {
		t.Errorf("the mailbox is at %+v, was at %+v", now, n.box)
	}
}

// A chunk of a later format is no reason to call owners missing.
func TestCheckSharesRefusesUnknownFormats(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	n, _ := wellUsed(t, db)
	damage(t, db, `update flags set slots = set_byte(slots, 0, 2) where account_id = $1 and mailbox_id = $2 and chunk = 0`, n.box.Account, n.box.ID)
	damage(t, db, "update blob_share set refs = refs + 1 where account_id = $1 and refs > 0", n.box.Account)
	_, err := db.CheckShares(t.Context(), n.box.Account, metadata.ObjectID{}, 100)
	wantErr(t, err, metadata.ErrFormat)
}

func TestMessageObjects(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	n, archive := wellUsed(t, db)
	var got []metadata.MessageObject
	for page := []metadata.MessageObject{{}}; ; {
		last := page[len(page)-1]
		var err error
		page, err = db.MessageObjects(t.Context(), n.box.Account, last.Mailbox, last.UID, 100)
		check(t, err)
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
	}
	want := map[metadata.MailboxID]map[uint32]metadata.Message{n.box.ID: messages(t, db, n.box), archive.box.ID: messages(t, db, archive.box)}
	if len(got) != len(want[n.box.ID])+len(want[archive.box.ID]) {
		t.Errorf("%d rows in pages", len(got))
	}
	for _, m := range got {
		if w := want[m.Mailbox][m.UID]; w.Object != m.Object || w.Size != m.Size || !slices.Equal(w.Extent, m.Extent) {
			t.Errorf("UID %d of mailbox %d is listed as %+v", m.UID, m.Mailbox, m)
		}
	}
}
