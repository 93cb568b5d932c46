package mailstore_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"starling/blobstore"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// read reads a message by what the node remembers of its row, and forgets that if it cannot, as
// sessions do.
func (s *site) read(box *mailstore.Mailbox, uid uint32) (int64, error) {
	s.t.Helper()
	var n int64
	err := box.Rows(s.t.Context(), []uint32{uid}, metadata.ColBlob|metadata.ColSize, true, func(m *metadata.Message) error {
		body, err := box.Body(m)
		if err != nil {
			return err
		}
		defer body.Close()
		n = body.Size()
		return body.ReadRange(context.WithoutCancel(s.t.Context()), io.Discard, 0, n)
	})
	if errors.Is(err, blobstore.ErrCorrupt) {
		box.Forget(uid)
	}
	return n, err
}

// What a row says of where its message is in the object is made anew from the object, wherever the
// message is, and nodes that remember the row read it again.
func TestCheckMendsExtents(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{Messages: 1000})
	store, far := s.store(patient), s.store(patient)
	inbox, _ := s.used(store)
	_, other := s.open(far, "INBOX", func() {})
	for _, uid := range []uint32{9, 10} {
		if _, err := s.read(other, uid); err != nil { // and remembers it
			t.Fatal(err)
		}
	}
	damage := func(uid, set string) {
		t.Helper()
		s.exec("update message set extent = "+set+" where account_id = $account and mailbox_id = $box and uid = "+uid, inbox.ID())
	}
	object := func(uid uint32) string {
		return blobstore.Object(rowsOf(t, s.db, s.account.ID)[inbox.ID()][uid].Object).String()
	}
	damage("2", `'\x'`)                                                                                         // expunged
	damage("5", `'\x0101'`)                                                                                     // the source of a copy
	damage("9", `'\x63' || extent`)                                                                             // of another version
	damage("10", "(select extent from message where account_id = $account and mailbox_id = $box and uid = 11)") // of another size
	damage("12", `'\x01'`)
	damage("13", `'\x01'`)
	damage("41", `substring(extent for 20)`) // of several frames
	twelve := s.change(inbox, 12, func([]byte) []byte { return nil })
	thirteen := s.change(inbox, 13, func(b []byte) []byte { b[len(b)-2] ^= 4; return b })
	if _, err := s.db.BumpEpoch(t.Context()); err != nil { // a mailbox of the epoch before is mended too
		t.Fatal(err)
	}
	if _, err := s.db.AcceptEpoch(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := func(mended bool) []mailstore.Finding {
		return []mailstore.Finding{
			{Damage: mailstore.BadExtent, Mailbox: "INBOX", UID: 2, Object: object(2), Expunged: true, Mended: mended},
			{Damage: mailstore.BadExtent, Mailbox: "INBOX", UID: 5, Object: object(5), Mended: mended},
			{Damage: mailstore.BadExtent, Mailbox: "INBOX", UID: 9, Object: object(9), Mended: mended},
			{Damage: mailstore.BadExtent, Mailbox: "INBOX", UID: 10, Object: object(10), Mended: mended},
			{Damage: mailstore.BadExtent, Mailbox: "INBOX", UID: 12, Object: twelve},
			{Damage: mailstore.BadExtent, Mailbox: "INBOX", UID: 13, Object: thirteen},
			{Damage: mailstore.BadExtent, Mailbox: "INBOX", UID: 41, Object: object(41), Mended: mended},
		}
	}
	_, found := s.checked(store, mailstore.CheckOptions{})
	s.wrong("without repair", found, all(false))
	_, found = s.checked(store, mailstore.CheckOptions{Repair: true, ScrubRate: 1 << 40})
	for _, f := range found {
		if !f.Mended && !strings.Contains(f.Detail, "the object does not tell: ") {
			t.Errorf("%+v", f)
		}
	}
	s.wrong("with repair", found, all(true))
	_, found = s.checked(store, mailstore.CheckOptions{Scrub: true, ScrubRate: 1 << 40})
	s.wrong("after it", found, all(false)[4:6])
	for uid, want := range map[uint32]int64{9: int64(len(letter)) + 8*50, 10: int64(len(letter)) + 9*50, 41: int64(len(letter)) + 1_600_000} {
		if n, err := s.read(other, uid); err != nil || n != want {
			t.Errorf("message %d has %d octets, want %d; %v", uid, n, want, err)
		}
	}
	// What is copied of it from now on is well.
	view, err := inbox.Refresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inbox.Copy(t.Context(), mailstore.CopyArgs{View: view, UIDs: uids(9, 9), Dest: "Archive"}); err != nil {
		t.Fatal(err)
	}
	_, found = s.checked(store, mailstore.CheckOptions{Scrub: true, ScrubRate: 1 << 40})
	s.wrong("after a copy", found, all(false)[4:6])
}

// A row that is consistent in itself and not with its object is told from damage of the object, and mended; a node
// that could not read the message by what it remembers reads its row anew.
func TestCheckMendsWrongExtents(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{})
	store, far := s.store(patient), s.store(patient)
	inbox, _ := s.used(store)
	_, other := s.open(far, "INBOX", func() {})
	// The CRC stands before the number of frames, which is the last octet; the header's length is before it.
	s.exec(`update message set extent = set_byte(extent, length(extent) - 3, get_byte(extent, length(extent) - 3) # 1) where account_id = $account and mailbox_id = $box and uid in (5, 20)`, inbox.ID())
	for _, uid := range []uint32{5, 20} {
		if _, err := s.read(other, uid); !errors.Is(err, blobstore.ErrCorrupt) {
			t.Fatalf("message %d: %v", uid, err)
		}
	}
	twenty, five := rowsOf(t, s.db, s.account.ID)[inbox.ID()][20].Object, rowsOf(t, s.db, s.account.ID)[inbox.ID()][5].Object
	want := func(mended bool) []mailstore.Finding {
		return []mailstore.Finding{
			{Damage: mailstore.BadExtent, Mailbox: "INBOX", UID: 5, Object: blobstore.Object(five).String(), Mended: mended},
			{Damage: mailstore.BadExtent, Mailbox: "INBOX", UID: 20, Object: blobstore.Object(twenty).String(), Mended: mended},
		}
	}
	if _, found := s.checked(store, mailstore.CheckOptions{Repair: true}); len(found) > 0 {
		t.Errorf("without reading objects it finds %+v", found)
	}
	_, found := s.checked(store, mailstore.CheckOptions{Scrub: true, ScrubRate: 1 << 40})
	s.wrong("scrubbed", found, want(false))
	_, found = s.checked(store, mailstore.CheckOptions{Scrub: true, Repair: true, ScrubRate: 1 << 40})
	s.wrong("mended", found, want(true))
	if _, found := s.checked(store, mailstore.CheckOptions{Scrub: true, ScrubRate: 1 << 40}); len(found) > 0 {
		t.Errorf("after it %+v", found)
	}
	for _, uid := range []uint32{5, 20} {
		if _, err := s.read(other, uid); err != nil {
			t.Errorf("message %d: %v", uid, err)
		}
	}
	// A row that says that there are 128 octets more: the object seems too short, and is not.
	s.exec(`update message set extent = set_byte(extent, 4, get_byte(extent, 4) + 1) where account_id = $account and mailbox_id = $box and uid = 20`, inbox.ID())
	if _, found := s.checked(store, mailstore.CheckOptions{Repair: true}); len(found) != 1 || found[0].Damage != mailstore.BadExtent || !found[0].Mended {
		t.Errorf("of a row that says too much: %+v", found)
	}
	if _, found := s.checked(store, mailstore.CheckOptions{Scrub: true, ScrubRate: 1 << 40}); len(found) > 0 {
		t.Errorf("after it %+v", found)
	}
}

// A summary that cannot be read is made anew from the object.
func TestCheckMendsSummaries(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{})
	store := s.store(patient)
	inbox, _ := s.used(store)
	summaries := func() map[uint32]string {
		t.Helper()
		all := map[uint32]string{}
		err := inbox.Messages(t.Context(), uids(1, 1<<30), metadata.ColSummary, func(m *metadata.Message) error {
			all[m.UID] = string(m.Summary)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	before := summaries()
	s.exec(`update message set summary = '\x01' where account_id = $account and mailbox_id = $box and uid in (2, 20, 21, 41)`, inbox.ID())
	object := s.change(inbox, 21, func([]byte) []byte { return nil })
	if _, found := s.checked(store, mailstore.CheckOptions{Repair: true}); len(found) != 1 || found[0].Damage != mailstore.MissingObject {
		t.Errorf("without reading all of them it finds %+v", found)
	}
	id := func(uid uint32) string {
		return blobstore.Object(rowsOf(t, s.db, s.account.ID)[inbox.ID()][uid].Object).String()
	}
	for _, mended := range []bool{false, true} {
		report, found := s.checked(store, mailstore.CheckOptions{Scrub: true, Repair: mended, ScrubRate: 1 << 40})
		s.wrong("summaries", found, []mailstore.Finding{
			{Damage: mailstore.MissingObject, Mailbox: "INBOX", UID: 21, Object: object},
			{Damage: mailstore.BadSummary, Mailbox: "INBOX", UID: 2, Object: id(2), Expunged: true, Mended: mended},
			{Damage: mailstore.BadSummary, Mailbox: "INBOX", UID: 20, Object: id(20), Mended: mended},
			{Damage: mailstore.BadSummary, Mailbox: "INBOX", UID: 21, Object: object},
			{Damage: mailstore.BadSummary, Mailbox: "INBOX", UID: 41, Object: id(41), Mended: mended},
		})
		if mended && (report.Mended != 3 || report.Left != 2) {
			t.Errorf("%+v", report)
		}
	}
	for uid, summary := range summaries() {
		if uid != 21 && summary != before[uid] {
			t.Errorf("the summary of message %d is %q, was %q", uid, summary, before[uid])
		}
	}
}
