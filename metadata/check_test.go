package metadata_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

// damage plants something by SQL that no commit would do.
func damage(t *testing.T, db *metadata.DB, sql string, args ...any) {
	t.Helper()
	tag, err := db.Pool().Exec(t.Context(), sql, args...)
	check(t, err)
	if tag.RowsAffected() == 0 {
		t.Fatalf("%s: nothing was damaged", sql)
	}
}

// wellUsed is a mailbox with messages in all states, and the one to which some were moved and copied.
func wellUsed(t *testing.T, db *metadata.DB, options ...func(*metadata.NewAccount)) (n, archive *node) {
	t.Helper()
	n = inboxOf(t, db, options...)
	archive = create(t, db, n, "Archive")
	n = do(t, db, n, n.appending(300))
	n = do(t, db, n, n.storing(metadata.Seen, 1, 2, 130))
	n = do(t, db, n, n.storing(metadata.Deleted|metadata.Seen, 3, 131))
	n = do(t, db, n, n.storing(metadata.Deleted, 4))
	n = do(t, db, n, n.expunging(4, 5, 6))
	n = do(t, db, n, n.transferring(archive, true, 7, 8))
	archive = load(t, db, archive.box)
	n = do(t, db, n, n.transferring(archive, false, 9, 10))
	_, err := db.Collect(t.Context(), ref(n), n.box.ModSeq)
	check(t, err)
	n = load(t, db, n.box)
	check(t, errOf(db.Commit(t.Context(), n.expunging(11, 12))))
	n, archive = load(t, db, n.box), load(t, db, archive.box)
	check(t, errOf(db.Commit(t.Context(), n.transferring(archive, true, 13))))
	return load(t, db, n.box), load(t, db, archive.box)
}

func TestCheckMailbox(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	n, archive := wellUsed(t, db)
	for _, n := range []*node{n, archive} {
		found, err := db.CheckMailbox(t.Context(), ref(n), nil)
		check(t, err)
		if !found.Sound() || found.Mailbox.Version != n.box.Version || found.Counted != n.box.Counters || found.Counted.Messages == 0 {
			t.Errorf("a sound mailbox: %+v", found)
		}
	}
	for _, test := range []struct {
		name, sql, undo string
		want            func(f *metadata.MailboxCheck) bool
	}{
		{
			"a row is lost", "delete from message where account_id = $1 and mailbox_id = $2 and uid = 20", "",
			func(f *metadata.MailboxCheck) bool { return f.LostCount == 1 && slices.Equal(f.Lost, []uint32{20}) },
		},
		{
			"a row has no slot", "update message set uid = 500 where account_id = $1 and mailbox_id = $2 and uid = 12", "delete from message where account_id = $1 and mailbox_id = $2 and uid = 500",
			func(f *metadata.MailboxCheck) bool {
				return f.StrayCount == 1 && slices.Equal(f.Stray, []uint32{500}) && f.Ahead
			},
		},
		{
			"UIDNEXT is low", "update mailbox set uidnext = uidnext - 10 where account_id = $1 and id = $2", "update mailbox set uidnext = uidnext + 10 where account_id = $1 and id = $2",
			func(f *metadata.MailboxCheck) bool { return f.Ahead },
		},
		{
			"the modseq is low", "update mailbox set modseq = modseq - 1 where account_id = $1 and id = $2", "update mailbox set modseq = modseq + 1 where account_id = $1 and id = $2",
			func(f *metadata.MailboxCheck) bool { return f.Ahead },
		},
		{
			"a chunk is lost", "delete from flags where account_id = $1 and mailbox_id = $2 and chunk = 1", "",
			func(f *metadata.MailboxCheck) bool { return f.StrayCount == 128 && len(f.Stray) == 128 },
		},
	} {
		damage(t, db, test.sql, n.box.Account, n.box.ID)
		found, err := db.CheckMailbox(t.Context(), ref(n), nil)
		check(t, err)
		if found.Sound() || !test.want(&found) {
			t.Errorf("%s: found %+v", test.name, found)
		}
		if test.undo != "" {
			damage(t, db, test.undo, n.box.Account, n.box.ID)
		}
	}
	damage(t, db, `update flags set slots = '\x63' where account_id = $1 and mailbox_id = $2 and chunk = 0`, n.box.Account, n.box.ID)
	if _, err := db.CheckMailbox(t.Context(), ref(n), nil); err == nil {
		t.Error("a chunk that cannot be read was read")
	}
	_, err := db.CheckMailbox(t.Context(), metadata.BoxRef{Account: n.box.Account, Mailbox: 99}, nil)
	wantErr(t, err, metadata.ErrNoMailbox)
}

// Wrong counters are found, and mended by a commit of which clients see nothing but a
// greater modseq.
func TestRepairMailboxCounters(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	n, _ := wellUsed(t, db)
	right := n.box.Counters
	for _, column := range []string{"messages", "unseen", "deleted", "bytes", "deleted_bytes"} {
		damage(t, db, "update mailbox set "+column+" = "+column+" + 7 where account_id = $1 and id = $2", n.box.Account, n.box.ID)
		found, err := db.CheckMailbox(t.Context(), ref(n), nil)
		check(t, err)
		if found.Sound() || found.Counted != right {
			t.Errorf("%s: found %+v", column, found)
		}
		mended, err := db.RepairMailbox(t.Context(), ref(n), false, nil)
		check(t, err)
		if mended.Mailbox.Counters == right || mended.Counted != right {
			t.Errorf("%s: mended %+v", column, mended)
		}
		l, err := db.Load(t.Context(), n.box.Account, n.box.ID, n.box.Version)
		check(t, err)
		if l.Mailbox.Counters != right || l.Mailbox.ModSeq != n.box.ModSeq+1 || l.Mailbox.Stamp == n.box.Stamp || l.Whole || len(l.Chunks) != 0 || l.Mailbox.UIDNext != n.box.UIDNext {
			t.Errorf("%s: the mailbox is now %+v, was %+v", column, l.Mailbox, n.box)
		}
		n = apply(n, l)
	}
	if again, err := db.RepairMailbox(t.Context(), ref(n), false, nil); err != nil || !again.Sound() {
		t.Errorf("nothing to mend: %+v, %v", again, err)
	}
	if after := load(t, db, n.box); after.box.Version != n.box.Version {
		t.Error("where nothing was wrong something was committed")
	}
}

// What is ahead of the mailbox is taken in, but for what no commit can have given out; stray rows
// come back under new UIDs; lost messages are expunged if that is asked for.
func TestRepairMailbox(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		n, _ := wellUsed(t, db)
		before := n.box
		damage(t, db, "update mailbox set uidnext = 290, modseq = modseq - 2 where account_id = $1 and id = $2", n.box.Account, n.box.ID)
		damage(t, db, "update message set uid = 4000000000 where account_id = $1 and mailbox_id = $2 and uid = 12", n.box.Account, n.box.ID)
		damage(t, db, "delete from flags where account_id = $1 and mailbox_id = $2 and chunk = 1", n.box.Account, n.box.ID)
		damage(t, db, "delete from message where account_id = $1 and mailbox_id = $2 and uid in (20, 21)", n.box.Account, n.box.ID)
		for _, lost := range []bool{false, true} {
			found, err := db.RepairMailbox(t.Context(), ref(n), lost, nil)
			check(t, err)
			if !found.Ahead || found.LostCount != 2 {
				t.Errorf("found %+v", found)
			}
		}
		found, err := db.CheckMailbox(t.Context(), ref(n), nil)
		check(t, err)
		if found.LostCount != 0 || !slices.Equal(found.Stray, []uint32{4_000_000_000}) || !found.Ahead || found.Counted != found.Mailbox.Counters {
			t.Errorf("left are %+v", found)
		}
		damage(t, db, "delete from message where account_id = $1 and mailbox_id = $2 and uid = 4000000000", n.box.Account, n.box.ID)
		after := load(t, db, n.box)
		// 128 came back, and are those whose flags are not known; two are gone.
		if after.box.Messages != before.Messages-2 || after.box.UIDNext != 301+128 || after.box.ModSeq <= before.ModSeq {
			t.Errorf("the mailbox is %+v, was %+v", after.box, before)
		}
		rows := messages(t, db, after.box)
		for i := range uint32(128) {
			if old, now := rows[128+i], rows[301+i]; old.Object != now.Object || old.EmailID != now.EmailID || old.Size != now.Size {
				t.Fatalf("message %d came back as %+v, was %+v", 128+i, now, old)
			}
		}
		check(t, errOf(db.Commit(t.Context(), after.appending(1)))) // under a UID that nothing has
		if found, err := db.CheckMailbox(t.Context(), ref(n), nil); err != nil || !found.Sound() {
			t.Errorf("in the end found %+v, %v", found, err)
		}
		if all, err := db.CheckShares(t.Context(), n.box.Account, metadata.ObjectID{}, 100); err != nil || len(all) > 0 {
			t.Errorf("owners are wrong: %+v, %v", all, err)
		}
	})
}

// While others change the mailbox nothing wrong is reported, what is wrong is found, and
// it is mended although each commit of others comes in between.
func TestCheckWhileOthersWrite(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	n, _ := wellUsed(t, db)
	var writer sync.WaitGroup
	stop := make(chan struct{})
	writes := make(chan struct{})
	writer.Go(func() {
		for held := n; ; {
			select {
			case <-stop:
				return
			case <-writes:
			}
			live := held.live()
			for _, change := range []func() *metadata.Commit{
				func() *metadata.Commit { return held.appending(3) },
				func() *metadata.Commit { return held.expunging(live[0]) },
				func() *metadata.Commit { return held.storing(metadata.Seen, live[5]) },
			} {
				l, err := db.Load(context.WithoutCancel(t.Context()), held.box.Account, held.box.ID, held.box.Version)
				if err == nil {
					held = apply(held, l)
					_, err = db.Commit(context.WithoutCancel(t.Context()), change())
				}
				if err != nil && !errors.Is(err, metadata.ErrConflict) { // a repair came first
					t.Error(err)
				}
			}
		}
	})
	defer writer.Wait()
	defer close(stop)
	// Of each twenty pages that were read, eight find the mailbox changed behind them.
	changes := 0
	pace := func(context.Context, int) error {
		if changes++; changes%20 < 8 {
			writes <- struct{}{}
		}
		return nil
	}
	for range 5 {
		found, err := db.CheckMailbox(t.Context(), ref(n), pace)
		check(t, err)
		if !found.Sound() {
			t.Fatalf("found %+v in a sound mailbox", found)
		}
		damage(t, db, "update mailbox set bytes = bytes + 1, unseen = unseen - 2 where account_id = $1 and id = $2", n.box.Account, n.box.ID)
		found, err = db.CheckMailbox(t.Context(), ref(n), pace)
		check(t, err)
		if want := found.Counted.Add(metadata.Counters{Bytes: 1, Unseen: -2}); found.Mailbox.Counters != want {
			t.Fatalf("found %+v", found)
		}
		check(t, errOf(db.RepairMailbox(t.Context(), ref(n), false, pace)))
	}
	found, err := db.CheckMailbox(t.Context(), ref(n), pace)
	check(t, err)
	if !found.Sound() {
		t.Fatalf("after repairs: %+v", found)
	}
}

// A mailbox of several pages.
func TestCheckIsPaged(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	n := inboxOf(t, db)
	n = do(t, db, n, n.appending(6000))
	var pages []int
	found, err := db.CheckMailbox(t.Context(), ref(n), func(_ context.Context, rows int) error {
		pages = append(pages, rows)
		return nil
	})
	check(t, err)
	if !found.Sound() || found.Counted.Messages != 6000 || !slices.Equal(pages, []int{5000, 1000}) {
		t.Errorf("found %+v in pages of %v", found, pages)
	}
	enough := errors.New("enough")
	if _, err := db.CheckMailbox(t.Context(), ref(n), func(context.Context, int) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("the check went on: %v", err)
	}
}

// A row is changed only as it was seen, by a commit of which others hear.
func TestRepairRow(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		n, _ := wellUsed(t, db)
		all, err := db.MessageObjects(t.Context(), n.box.Account, n.box.ID, 19, 1)
		check(t, err)
		was := all[0]
		if was.UID != 20 {
			t.Fatalf("the message is %+v", was)
		}
		before := messages(t, db, n.box)[20]
		v, err := db.RepairRow(t.Context(), n.box.Account, was, []byte("new"), nil)
		check(t, err)
		after := load(t, db, n.box)
		if row := messages(t, db, n.box)[20]; string(row.Extent) != "new" || string(row.Summary) != string(before.Summary) || after.box.Version != v ||
			v.ModSeq != n.box.ModSeq+1 || v.Stamp == n.box.Stamp || after.box.Counters != n.box.Counters {
			t.Errorf("the row is %+v, the mailbox %+v, returned %+v", row, after.box, v)
		}
		_, err = db.RepairRow(t.Context(), n.box.Account, was, []byte("other"), nil)
		wantErr(t, err, metadata.ErrConflict)
		was.Extent = []byte("new")
		check(t, errOf(db.BumpEpoch(t.Context())))
		v, err = db.RepairRow(t.Context(), n.box.Account, was, was.Extent, []byte("summary"))
		check(t, err)
		if row := messages(t, db, n.box)[20]; string(row.Summary) != "summary" || v.Epoch == n.box.Epoch || v.ModSeq < 1<<28 {
			t.Errorf("in a new epoch the row is %+v, at %+v", row, v)
		}
		for _, wrong := range []func(*metadata.MessageObject){
			func(m *metadata.MessageObject) { m.UID++ },
			func(m *metadata.MessageObject) { m.Object[0]++ },
			func(m *metadata.MessageObject) { m.Mailbox = 99 },
		} {
			other := was
			wrong(&other)
			_, err = db.RepairRow(t.Context(), n.box.Account, other, nil, nil)
			wantErr(t, err, metadata.ErrConflict)
		}
	})
}

// Of a mailbox in which flags change all the time, after each look, it is found all the same what is
// wrong, and nothing else.
func TestCheckWhatChangesAllTheTime(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	n, _ := wellUsed(t, db)
	held := n
	pace := func(context.Context, int) error {
		l, err := db.Load(t.Context(), held.box.Account, held.box.ID, held.box.Version)
		check(t, err)
		held = apply(held, l)
		check(t, errOf(db.Commit(t.Context(), held.storing(metadata.Flagged, 30))))
		return nil
	}
	found, err := db.CheckMailbox(t.Context(), ref(n), pace)
	check(t, err)
	if !found.Sound() {
		t.Errorf("of a sound mailbox: %+v", found)
	}
	damage(t, db, "delete from message where account_id = $1 and mailbox_id = $2 and uid = 30", n.box.Account, n.box.ID)
	damage(t, db, "update mailbox set unseen = unseen + 1 where account_id = $1 and id = $2", n.box.Account, n.box.ID)
	found, err = db.CheckMailbox(t.Context(), ref(n), pace)
	check(t, err)
	if found.LostCount != 1 || !slices.Equal(found.Lost, []uint32{30}) || found.StrayCount != 0 || found.Ahead || found.Mailbox.Unseen != found.Counted.Unseen+1 {
		t.Errorf("found %+v", found)
	}
}
