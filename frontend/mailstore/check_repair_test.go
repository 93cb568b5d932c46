package mailstore_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"starling/frontend/mailstore"
	"starling/metadata"
)

func TestCheckRepairs(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{Messages: 1000})
	store, far := s.store(patient), s.store(patient)
	inbox, _ := s.used(store)
	news := make(chan struct{}, 1)
	_, other := s.open(far, "INBOX", func() {
		select {
		case news <- struct{}{}:
		default:
		}
	})
	right := inbox.Snapshot().Mailbox()
	for _, test := range []struct {
		name, sql string
		want      mailstore.Finding
	}{
		{
			"counters", "update mailbox set messages = messages + 3, bytes = bytes - 1 where account_id = $account and name = 'INBOX'",
			mailstore.Finding{Damage: mailstore.WrongCounters, Mailbox: "INBOX"},
		},
		{
			"quota", "update quota set bytes = bytes + 7 where account_id = $account",
			mailstore.Finding{Damage: mailstore.WrongQuota},
		},
		{
			"owners", "update blob_share set refs = refs + 1 where account_id = $account and object = (select object from message where account_id = $account and mailbox_id = 1 and uid = 5)",
			mailstore.Finding{Damage: mailstore.WrongOwners, Object: fmt.Sprintf("%x", rowsOf(t, s.db, s.account.ID)[inbox.ID()][5].Object)},
		},
	} {
		s.exec(test.sql)
		report, found := s.checked(store, mailstore.CheckOptions{})
		if len(found) == 0 || found[0].Detail == "" {
			t.Errorf("%s: found %+v", test.name, found)
		}
		s.wrong(test.name, found, []mailstore.Finding{test.want})
		if report.Left != 1 || report.Mended != 0 {
			t.Errorf("%s: %+v", test.name, report)
		}
		want := test.want
		want.Mended = true
		report, found = s.checked(store, mailstore.CheckOptions{Repair: true})
		s.wrong("mending "+test.name, found, []mailstore.Finding{want})
		if report.Left != 0 || report.Mended != 1 {
			t.Errorf("mending %s: %+v", test.name, report)
		}
		if _, found := s.checked(store, mailstore.CheckOptions{}); len(found) > 0 {
			t.Errorf("%s: after mending found %+v", test.name, found)
		}
	}
	// The nodes hear of mended counters.
	for timeout := time.After(20 * time.Second); other.Snapshot().Mailbox().ModSeq <= right.ModSeq; {
		select {
		case <-news:
		case <-timeout:
			t.Fatal("the other node was not told")
		}
	}
	if now := other.Snapshot().Mailbox(); now.Counters != right.Counters {
		t.Errorf("the counters are %+v, were %+v", now.Counters, right.Counters)
	}
}

// What is lost is told and stays while the bucket may still have it; and no object loses an
// owner that may be a lost row.
func TestCheckKeepsWhatLostRowsMayOwn(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{})
	store := s.store(patient)
	inbox, archive := s.used(store)
	object := func(uid uint32) string {
		return fmt.Sprintf("%x", rowsOf(t, s.db, s.account.ID)[inbox.ID()][uid].Object)
	}
	five, six, nine := object(5), object(6), object(9)
	s.exec("delete from message where account_id = $account and mailbox_id = $box and uid = 5", inbox.ID())
	s.exec("delete from message where account_id = $account and mailbox_id = $box and uid = 1", archive.ID())
	s.exec("delete from blob_share where account_id = $account and object = '" + six + "'")
	s.exec(`update message set extent = '\x01' where account_id = $account and mailbox_id = $box and uid = 9`, inbox.ID())
	s.exec("update mailbox set uidnext = uidnext - 1 where account_id = $account and id = $box", inbox.ID())
	want := []mailstore.Finding{
		{Damage: mailstore.AheadOfBox, Mailbox: "INBOX", Mended: true},
		{Damage: mailstore.WrongCounters, Mailbox: "Archive", Mended: true}, // the sizes of lost messages are not known
		{Damage: mailstore.WrongCounters, Mailbox: "INBOX", Mended: true},
		{Damage: mailstore.BadExtent, Mailbox: "INBOX", UID: 9, Object: nine, Mended: true},
		{Damage: mailstore.LostRow, Mailbox: "Archive", UID: 1},
		{Damage: mailstore.LostRow, Mailbox: "INBOX", UID: 5},
		{Damage: mailstore.WrongOwners, Object: five},
		{Damage: mailstore.WrongOwners, Object: six, Mended: true},
	}
	report, found := s.checked(store, mailstore.CheckOptions{Repair: true})
	for _, f := range found {
		if f.Object == five && !strings.Contains(f.Detail, "left so that it is not deleted") {
			t.Errorf("of the object of lost rows it says %q", f.Detail)
		}
	}
	s.wrong("lost rows", found, want)
	if report.Left != 3 || report.Mended != 5 {
		t.Errorf("%+v", report)
	}
	if doomed, err := s.db.Doomed(t.Context(), s.account.ID, 0, metadata.ObjectID{}, 10); err != nil || len(doomed) > 0 {
		t.Errorf("doomed are %x, %v", doomed, err)
	}

	s.exec(`update flags set slots = '\x63' where account_id = $account and mailbox_id = $box`, inbox.ID())
	_, found = s.checked(store, mailstore.CheckOptions{})
	if !slices.ContainsFunc(found, func(f mailstore.Finding) bool { return f.Damage == mailstore.BadFlags && f.Mailbox == "INBOX" }) {
		t.Errorf("of flags that cannot be read it finds %+v", found)
	}
	if err := s.db.DeleteAccount(t.Context(), s.account.Name); err != nil {
		t.Fatal(err)
	}
	if report, found := s.checked(store, mailstore.CheckOptions{}); !report.Deleted || len(found) > 0 {
		t.Errorf("of a deleted account: %+v, %+v", report, found)
	}
}

// While sessions write, numbers that were not given out are raised, messages without flags come
// back as new ones, and of lost ones, once the bucket has nothing more to name, nothing is
// left; another node hears of all of it, and owners stay right.
func TestCheckRepairsMailboxes(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{Messages: 1000})
	store, far := s.store(patient), s.store(patient)
	inbox, archive := s.used(store)
	_, seen := s.open(far, "INBOX", func() {})
	// The second chunk of Archive has no flags any more, and says that it has given
	// out less than it has; two messages of INBOX have no row, of which one was a copy of the other.
	for range 7 {
		if _, err := archive.Copy(t.Context(), mailstore.CopyArgs{View: archive.Snapshot(), UIDs: uids(1, 1<<30), Dest: "Archive"}); err != nil {
			t.Fatal(err)
		}
	}
	_, there := s.open(far, "Archive", func() {})
	before := archive.Snapshot()
	s.exec("delete from flags where account_id = $account and mailbox_id = $box and chunk = 1", archive.ID())
	s.exec("update mailbox set uidnext = 250, modseq = modseq - 2 where account_id = $account and id = $box", archive.ID())
	if _, err := inbox.Copy(t.Context(), mailstore.CopyArgs{View: inbox.Snapshot(), UIDs: uids(20, 20), Dest: "INBOX"}); err != nil {
		t.Fatal(err)
	}
	s.exec("delete from message where account_id = $account and mailbox_id = $box and uid in (20, 42)", inbox.ID())
	stop := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, mode := range []mailstore.FlagMode{mailstore.AddFlags, mailstore.RemoveFlags} {
				if _, err := seen.Store(context.WithoutCancel(t.Context()), mailstore.StoreFlags{
					View: seen.Snapshot(), UIDs: uids(10, 12), Mode: mode, Flags: mailstore.FlagSet{System: metadata.Flagged},
				}); err != nil {
					t.Error(err)
				}
			}
		}
	})
	report, found := s.checked(store, mailstore.CheckOptions{Repair: true})
	close(stop)
	writing.Wait()
	if report.Found[mailstore.StrayRow] == 0 || report.Found[mailstore.AheadOfBox] == 0 || report.Found[mailstore.LostRow] != 2 || report.Left != 3 { // and the owners of what was lost
		t.Fatalf("%+v: %+v", report, found)
	}
	for _, f := range found { // its object is there, without a name
		if f.Damage == mailstore.LostRow && (f.Mended || !strings.Contains(f.Detail, "starling rebuild")) {
			t.Errorf("%+v", f)
		}
	}
	if got, err := store.Rebuild(t.Context(), s.account, mailstore.RebuildOptions{}); err != nil || got.Messages != 1 {
		t.Fatalf("rebuilt %+v, %v", got, err)
	}
	if report, found := s.checked(store, mailstore.CheckOptions{Repair: true}); report.Found[mailstore.LostRow] != 2 || report.Left != 1 {
		t.Errorf("after the rebuild %+v: %+v", report, found)
	}
	if quota, err := s.db.CheckQuota(t.Context(), s.account.ID); err != nil || !quota.Sound() {
		t.Errorf("what was expunged then still counts: %+v, %v", quota, err)
	}
	s.checked(store, mailstore.CheckOptions{Repair: true}) // the owners of what was lost, now that it is known who they are
	if _, found := s.checked(store, mailstore.CheckOptions{}); len(found) > 0 {
		t.Errorf("after all repairs found %+v", found)
	}
	for box, want := range map[*mailstore.Mailbox]int{seen: 36, there: before.Len()} {
		after, err := box.Refresh(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if after.Len() != want {
			t.Errorf("mailbox %d has %d messages, want %d", box.ID(), after.Len(), want)
		}
		for uid := range after.Live(128, 255) {
			t.Errorf("message %d of mailbox %d had no flags, and is there under its old UID", uid, box.ID())
		}
	}
	s.expunge(seen, 10, 30) // the lost one was among them
	s.blobs.aged.Store(true)
	if _, err := s.store().Collect(t.Context(), s.account.ID); err != nil {
		t.Fatal(err)
	}
	s.sound()
}

// Flags that cannot be read are given up, so that the mailbox can be opened again: its messages
// come back as new ones, with those that were expunged or moved, and sessions on all nodes see it.
func TestCheckMendsFlags(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{Messages: 1000})
	store, far := s.store(patient), s.store(patient)
	inbox, _ := s.used(store)
	_, seen := s.open(far, "INBOX", func() {})
	next := inbox.Snapshot().Mailbox().UIDNext
	s.exec(`update flags set slots = '\x63' where account_id = $account and mailbox_id = $box`, inbox.ID())
	report, found := s.checked(store, mailstore.CheckOptions{})
	if report.NoOwners != 1 || report.Left != 1 || len(found) != 1 {
		t.Errorf("without repair %+v: %+v", report, found)
	}
	report, found = s.checked(store, mailstore.CheckOptions{Repair: true})
	if report.Left > 0 || report.NoOwners+report.NoQuota > 0 || !slices.ContainsFunc(found, func(f mailstore.Finding) bool {
		return f.Damage == mailstore.BadFlags && f.Mended && strings.Contains(f.Detail, "41 messages brought back")
	}) {
		t.Errorf("%+v: %+v", report, found)
	}
	if report, found := s.checked(store, mailstore.CheckOptions{Scrub: true, ScrubRate: 1 << 40}); len(found) > 0 {
		t.Errorf("after the repair %+v: %+v", report, found)
	}
	after, err := seen.Refresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after.Len() != 41 {
		t.Errorf("%d messages, want 41", after.Len())
	}
	for uid := range after.Live(1, uint32(next-1)) { //nolint:gosec // a UID
		t.Errorf("message %d is there under its old UID", uid)
	}
	s.blobs.aged.Store(true)
	if _, err := s.store().Collect(t.Context(), s.account.ID); err != nil {
		t.Fatal(err)
	}
	s.sound()
}
