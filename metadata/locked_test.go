package metadata_test

import (
	"errors"
	"slices"
	"testing"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

func TestCommitLocked(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		ctx := t.Context()
		n := inboxOf(t, db)
		old := n
		n = do(t, db, n, n.appending(300))
		to := create(t, db, n, "Archive")
		do(t, db, n, n.storing(metadata.Seen, 300))

		check(t, errOf(db.Load(ctx, n.box.Account, n.box.ID, metadata.Version{}))) // prepare nothing twice
		before := db.Stats().RoundTrips
		var c *metadata.Commit
		done, err := db.CommitLocked(ctx, n.box.Account, []metadata.MailboxID{to.box.ID, n.box.ID}, []metadata.Version{{}, n.box.Version},
			func(loads []metadata.Load) (*metadata.Commit, error) {
				if loads[0].Mailbox.ID != to.box.ID || !loads[0].Whole || loads[1].Whole || len(loads[1].Chunks) != 1 {
					t.Errorf("loaded %+v", loads)
				}
				to, n = apply(nil, loads[0]), apply(n, loads[1])
				c = n.transferring(to, true, 1, 300)
				return c, nil
			})
		check(t, err)
		if got := db.Stats().RoundTrips - before; got != 2 {
			t.Errorf("%d round trips", got)
		}
		n, to = load(t, db, n.box), load(t, db, to.box)
		sound(t, db, n)
		sound(t, db, to)
		if n.box.Version != done.Version(c, 0) || to.box.Version != done.Version(c, 1) || to.box.Messages != 2 {
			t.Errorf("at %+v and %+v, committed %+v", n.box, to.box, done)
		}

		fail := errors.New("no")
		_, err = db.CommitLocked(ctx, n.box.Account, []metadata.MailboxID{n.box.ID}, []metadata.Version{{}},
			func([]metadata.Load) (*metadata.Commit, error) { return nil, fail })
		wantErr(t, err, fail)
		done, err = db.CommitLocked(ctx, n.box.Account, []metadata.MailboxID{n.box.ID}, []metadata.Version{{}},
			func([]metadata.Load) (*metadata.Commit, error) { return nil, nil })
		check(t, err)
		if done.Stamps != nil {
			t.Errorf("nothing committed %+v", done)
		}
		_, err = db.CommitLocked(ctx, n.box.Account, []metadata.MailboxID{n.box.ID}, []metadata.Version{{}},
			func([]metadata.Load) (*metadata.Commit, error) { return n.within(true, 4711), nil })
		wantErr(t, err, metadata.ErrSourceGone)
		_, err = db.CommitLocked(ctx, n.box.Account, []metadata.MailboxID{n.box.ID}, []metadata.Version{{}},
			func([]metadata.Load) (*metadata.Commit, error) { return old.appending(1), nil })
		wantErr(t, err, metadata.ErrConflict)
		_, err = db.CommitLocked(ctx, n.box.Account, []metadata.MailboxID{99}, []metadata.Version{{}},
			func([]metadata.Load) (*metadata.Commit, error) { t.Error("called"); return nil, nil })
		wantErr(t, err, metadata.ErrNoMailbox)
		if got := load(t, db, n.box); got.box.Version != n.box.Version {
			t.Errorf("changed to %+v", got.box)
		}
		do(t, db, n, n.storing(metadata.Flagged, 2)) // no lock is left
	})
}

func TestLockedCommitInDoubt(t *testing.T) {
	t.Parallel()
	for _, lost := range []string{"question", "answer"} {
		t.Run(lost, func(t *testing.T) {
			t.Parallel()
			d := newDoubting(t)
			seen := d.n.box.Version
			_, err := d.through.CommitLocked(t.Context(), d.n.box.Account, []metadata.MailboxID{d.n.box.ID}, []metadata.Version{seen},
				func([]metadata.Load) (*metadata.Commit, error) {
					if lost == "question" {
						d.loseQuestion(func() {})
					} else {
						d.loseAnswer(func() {})
					}
					return d.n.appending(2), nil
				})
			check(t, err)
			after := load(t, d.direct, d.n.box)
			sound(t, d.direct, after)
			if after.box.Messages != 7 || after.box.ModSeq != seen.ModSeq+1 {
				t.Errorf("after the commit %+v", after.box)
			}
		})
	}
}

func TestEpochs(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		ctx := t.Context()
		n := inboxOf(t, db)
		n = do(t, db, n, n.appending(3))
		other := create(t, db, n, "Archive")
		before, err := db.Epoch(ctx)
		check(t, err)
		if n.box.Epoch != before {
			t.Errorf("the mailbox is of epoch %d, the database of %d", n.box.Epoch, before)
		}
		epoch, err := db.BumpEpoch(ctx)
		check(t, err)
		if epoch != before+1 {
			t.Errorf("epoch went from %d to %d", before, epoch)
		}
		pulses, err := db.Pulses(ctx, []metadata.BoxRef{{Account: n.box.Account, Mailbox: n.box.ID}})
		check(t, err)
		if pulses[0].Version == n.box.Version {
			t.Error("a pulse hides the new epoch")
		}
		for _, c := range []*metadata.Commit{n.storing(metadata.Seen, 1), n.appending(1), n.within(false, 1), n.transferring(other, true, 1)} {
			wantErr(t, errOf(db.Commit(ctx, c)), metadata.ErrConflict)
		}
		l, err := db.Load(ctx, n.box.Account, n.box.ID, n.box.Version)
		check(t, err)
		b := l.Mailbox
		if !l.Whole || b.Epoch != epoch || b.ModSeq != 1<<28 || b.UIDNext < n.box.UIDNext+131_072 || b.UIDNext%metadata.ChunkSlots != 0 ||
			len(b.Jumps) != 1 || b.Jumps[0] != n.box.ModSeq || b.UIDValidity != n.box.UIDValidity {
			t.Errorf("jumped to %+v from %+v", b, n.box)
		}
		n = apply(nil, l)
		n = do(t, db, n, n.appending(1))
		n = do(t, db, n, n.storing(metadata.Seen, 1, uint32(b.UIDNext)))

		_, err = db.BumpEpoch(ctx)
		check(t, err)
		_, err = db.CommitLocked(ctx, n.box.Account, []metadata.MailboxID{n.box.ID, other.box.ID}, []metadata.Version{n.box.Version, other.box.Version},
			func(loads []metadata.Load) (*metadata.Commit, error) {
				if !loads[0].Whole || loads[0].Mailbox.ModSeq != 2<<28 || len(loads[0].Mailbox.Jumps) != 2 {
					t.Errorf("loaded %+v", loads[0].Mailbox)
				}
				// It may have jumped before, in a commit that was lost, and have given out numbers after that.
				far, was := loads[1].Mailbox, other.box
				if far.ModSeq != 2<<28 || far.UIDNext < was.UIDNext+2*131_072 || !slices.Equal(far.Jumps, []int64{was.ModSeq, 1 << 28}) {
					t.Errorf("jumped over two epochs to %+v from %+v", far, was)
				}
				n, other = apply(nil, loads[0]), apply(nil, loads[1])
				return n.transferring(other, false, 1), nil
			})
		check(t, err)
		sound(t, db, load(t, db, n.box))
		sound(t, db, load(t, db, other.box))
	})
}

// What a database says that has lost commits: a lower modseq than one holds.
func TestLoadOfWhatWasLost(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	n := inboxOf(t, db)
	n = do(t, db, n, n.appending(200))
	for name, have := range map[string]metadata.Version{
		"later":         {ModSeq: n.box.ModSeq + 1, Stamp: 1, Epoch: n.box.Epoch},
		"another stamp": {ModSeq: n.box.ModSeq, Stamp: n.box.Stamp + 1, Epoch: n.box.Epoch},
		"another epoch": {ModSeq: n.box.ModSeq, Stamp: n.box.Stamp, Epoch: n.box.Epoch + 1},
		"nothing":       {},
	} {
		l, err := db.Load(t.Context(), n.box.Account, n.box.ID, have)
		check(t, err)
		if !l.Whole || len(l.Chunks) != 2 {
			t.Errorf("%s: whole %t, %d chunks", name, l.Whole, len(l.Chunks))
		}
	}
	l, err := db.Load(t.Context(), n.box.Account, n.box.ID, n.box.Version)
	check(t, err)
	if l.Whole || len(l.Chunks) != 0 {
		t.Errorf("the same: whole %t, %d chunks", l.Whole, len(l.Chunks))
	}
}
