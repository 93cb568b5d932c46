package mailstore_test

import (
	"runtime"
	"testing"

	"starling/frontend/mailstore"
	"starling/metadata"
)

// TestHeldMemory: a message of a mailbox that is open costs a node no more than 24 octets of memory, its size
// included once it was needed. It does not run beside other tests, whose memory is counted too.
func TestHeldMemory(t *testing.T) {
	const chunks, most = 800, 24
	const messages = chunks * metadata.ChunkSlots
	s := newSite(t, metadata.Quota{})
	list, err := s.db.List(t.Context(), s.account.ID)
	if err != nil {
		t.Fatal(err)
	}
	inbox := list.Mailboxes[0].ID
	for _, m := range list.Mailboxes {
		if m.Name == "INBOX" {
			inbox = m.ID
		}
	}
	// Messages that came one after the other, and of which each has flags of its own.
	s.exec(`
insert into message (account_id, mailbox_id, uid, internal_date, save_date, size, email_id, thread_id, object, extent, summary)
select $account, $box, i, now(), now(), 1000 + i, i, i, gen_random_uuid(), '', ''
from generate_series(128, 128 * 801 - 1) i;
insert into flags (account_id, mailbox_id, chunk, slots, max_modseq)
select $account, $box, c, ('\x01'::bytea || string_agg(
    set_byte('\x00000000000000'::bytea, 0, i % 8) || decode(lpad(to_hex(2 + (c * 128 + i) % 200), 2, '0') || '0000000000', 'hex'), ''::bytea)), 300
from generate_series(1, 800) c, generate_series(0, 127) i
group by c;
update mailbox set modseq = 300, uidnext = 128 * 801, messages = 128 * 800 where account_id = $account and id = $box`, inbox)
	store := s.store()
	s.open(store, "Archive", func() {}) // what the account takes, and the connections
	before := heap()
	held := func(what string) {
		t.Helper()
		if got := float64(heap()-before) / messages; got < 5 || got > most {
			t.Errorf("%s a message takes %.1f octets of memory, want at most %d", what, got, most)
		} else {
			t.Logf("%s a message takes %.1f octets of memory", what, got)
		}
	}
	_, box := s.open(store, "INBOX", func() {})
	if n := box.Snapshot().Len(); n != messages {
		t.Fatalf("%d messages", n)
	}
	held("once it is open")
	// The connection to PostgreSQL holds what its last statement had: that is a small one in the end.
	for _, change := range []struct {
		mode mailstore.FlagMode
		last uint32
	}{{mailstore.AddFlags, 1 << 30}, {mailstore.RemoveFlags, 128}} {
		if _, err := box.Store(t.Context(), mailstore.StoreFlags{
			View: box.Snapshot(), UIDs: uids(1, change.last), Mode: change.mode, Flags: mailstore.FlagSet{System: metadata.Deleted},
		}); err != nil {
			t.Fatal(err)
		}
	}
	held("after all were changed")
	runtime.KeepAlive(box)
}

// heap is how much memory is in use once garbage is collected, that in pools included.
func heap() uint64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
