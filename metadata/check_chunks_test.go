package metadata_test

import (
	"errors"
	"testing"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

// Chunks that cannot be read become empty ones, and their messages new ones; what another release
// may have written stays.
func TestRepairChunks(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	n, _ := wellUsed(t, db, func(a *metadata.NewAccount) { a.Limits = metadata.Quota{Messages: 1000} })
	before := messages(t, db, n.box)
	second := 0 // rows of the second chunk
	for uid := range before {
		if metadata.ChunkOf(uid) == 1 {
			second++
		}
	}
	check(t, errOf(db.BumpEpoch(t.Context()))) // the mailbox has to be taken into it first
	set := "update flags set slots = $3 where account_id = $1 and mailbox_id = $2 and chunk = 1"
	damage(t, db, set, n.box.Account, n.box.ID, []byte{2, 1, 2, 3})
	damage(t, db, "update cluster set write_format = 2")
	if _, err := db.RepairMailbox(t.Context(), ref(n), false, nil); !errors.Is(err, metadata.ErrChunk) {
		t.Errorf("a format that may be written: %v", err)
	}
	damage(t, db, "update cluster set write_format = 1")
	for _, bad := range [][]byte{{2, 1, 2, 3}, {1, 2, 3}, {}} {
		damage(t, db, set, n.box.Account, n.box.ID, bad)
		if _, err := db.CheckMailbox(t.Context(), ref(n), nil); !errors.Is(err, metadata.ErrChunk) {
			t.Errorf("%x: %v", bad, err)
		}
		found, err := db.RepairMailbox(t.Context(), ref(n), false, nil)
		check(t, err)
		if found.StrayCount != second {
			t.Errorf("%x: %d messages without flags, want %d", bad, found.StrayCount, second)
		}
		after := load(t, db, n.box)
		if after.box.ModSeq <= n.box.ModSeq || after.box.Horizon <= n.box.ModSeq {
			t.Errorf("%x: modseq %d, horizon %d; it was at %d", bad, after.box.ModSeq, after.box.Horizon, n.box.ModSeq)
		}
		if found, err := db.CheckMailbox(t.Context(), ref(n), nil); err != nil || !found.Sound() {
			t.Errorf("%x: afterwards %+v, %v", bad, found, err)
		}
		rows, back := messages(t, db, after.box), 0
		for uid, row := range rows {
			if int64(uid) >= n.box.UIDNext {
				back++
				if row.EmailID == 0 || row.Size == 0 {
					t.Errorf("message %d came back as %+v", uid, row)
				}
			}
		}
		if back != second {
			t.Errorf("%x: %d messages came back, want %d", bad, back, second)
		}
		n = after
	}
	// Of what came back owners are counted anew.
	all, err := db.CheckShares(t.Context(), n.box.Account, metadata.ObjectID{}, 1000)
	check(t, err)
	check(t, errOf2(db.RepairShares(t.Context(), n.box.Account, all)))
	if all, err := db.CheckShares(t.Context(), n.box.Account, metadata.ObjectID{}, 1000); err != nil || len(all) > 0 {
		t.Errorf("owners are wrong: %d, %v", len(all), err)
	}
}

func errOf2[A, B any](_ A, _ B, err error) error { return err }
