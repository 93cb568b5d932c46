package mailstore_test

import (
	"errors"
	"testing"

	"starling/frontend/mailstore"
	"starling/metadata"
)

func TestUndelete(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{Messages: 4})
	store := s.store()
	a, box := s.open(store, "INBOX", func() {})
	ctx := t.Context()
	for range 4 {
		s.deliver(a, "INBOX", mailstore.FlagSet{System: metadata.Flagged, Keywords: []string{"$Work"}})
	}
	rows := rowsOf(t, s.db, s.account.ID)[box.ID()]
	view := s.expunge(box, 1, 2)
	if _, err := box.Move(ctx, mailstore.CopyArgs{View: view, UIDs: uids(3, 3), Dest: "Archive"}); err != nil {
		t.Fatal(err)
	}

	done, err := box.Undelete(ctx, uids(2, 4)) // 3 is moved away, 4 is there
	if err != nil {
		t.Fatal(err)
	}
	if len(done.Source) != 1 || done.Source[0] != 2 || done.First != 5 || done.After != box.Snapshot() {
		t.Errorf("undeleted %+v", done)
	}
	got, slot := rowsOf(t, s.db, s.account.ID)[box.ID()][5], done.After.Slot(5)
	want := rows[2]
	if got.EmailID != want.EmailID || !got.InternalDate.Equal(want.InternalDate) || got.Object != want.Object || got.Size != want.Size {
		t.Errorf("undeleted %+v, it was %+v", got, want)
	}
	if slot.Flags != metadata.Flagged|done.After.KeywordBit("$work") {
		t.Errorf("its flags are %x", slot.Flags)
	}
	if old := done.After.Slot(2); old.Live() || old.ModSeq != view.Slot(2).ModSeq {
		t.Errorf("the expunged slot is %+v, was %+v", old, view.Slot(2))
	}
	if again, err := box.Undelete(ctx, uids(2, 3)); err != nil || len(again.Source) > 0 || again.After.Mailbox().Version != done.After.Mailbox().Version {
		t.Errorf("undeleted again %+v, %v", again, err)
	}

	// The quota is full by now: nothing comes back, and nothing changes.
	s.deliver(a, "Archive", mailstore.FlagSet{})
	if _, err := box.Undelete(ctx, uids(1, 1)); !errors.Is(err, metadata.ErrOverQuota) {
		t.Errorf("undelete over quota: %v", err)
	}
	s.expunge(box, 4, 4)
	report := s.collect(store, 0)
	if report.Messages != 4 || report.Objects != 2 {
		t.Errorf("collected %+v", report)
	}
	if gone, err := box.Undelete(ctx, uids(1, 4)); err != nil || len(gone.Source) > 0 {
		t.Errorf("undeleted what was collected: %+v, %v", gone, err)
	}
	s.sound()
}
