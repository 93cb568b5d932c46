package main_test

import (
	"slices"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// go-imap's client is in IDLE on one node and hears of what happens on the
// other; and asks by CONDSTORE for what changed.
func TestGoIMAP(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	exists, flagged, expunged := make(chan uint32, 16), make(chan []imap.Flag, 16), make(chan uint32, 16)
	waiting := login(t, c.nodes[0].imap, testUser, testPassword, &imapclient.Options{
		UnilateralDataHandler: &imapclient.UnilateralDataHandler{
			Mailbox: func(data *imapclient.UnilateralDataMailbox) {
				if data.NumMessages != nil {
					exists <- *data.NumMessages
				}
			},
			Fetch: func(msg *imapclient.FetchMessageData) {
				if data, err := msg.Collect(); err == nil {
					flagged <- data.Flags
				}
			},
			Expunge: func(seq uint32) { expunged <- seq },
		},
	})
	busy := login(t, c.nodes[1].imap, testUser, testPassword, nil)
	for _, client := range []*imapclient.Client{waiting, busy} {
		for _, name := range []imap.Cap{imap.CapIdle, imap.CapCondStore, imap.CapUIDPlus, imap.CapMove, imap.CapIMAP4rev2} {
			if !client.Caps().Has(name) {
				t.Errorf("%s is not announced", name)
			}
		}
	}
	if _, err := waiting.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	idle, err := waiting.Idle()
	if err != nil {
		t.Fatal(err)
	}
	appendMail(t, busy, "INBOX", numberedMail(1), nil)
	if n := receive(t, exists); n != 1 {
		t.Errorf("%d messages after APPEND", n)
	}
	c.deliver(1, testUser, numberedMail(2))
	if n := receive(t, exists); n != 2 {
		t.Errorf("%d messages after a delivery", n)
	}
	selected, err := busy.Select("INBOX", &imap.SelectOptions{CondStore: true}).Wait()
	if err != nil || selected.NumMessages != 2 || selected.HighestModSeq == 0 {
		t.Fatalf("selected %+v, %v", selected, err)
	}
	store := &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagFlagged, "$Label1"}, Silent: true}
	if err := busy.Store(imap.SeqSetNum(2), store, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, flagged); !slices.Contains(got, imap.FlagFlagged) || !slices.Contains(got, "$Label1") {
		t.Errorf("flags are %v", got)
	}
	changed, err := busy.Fetch(imap.SeqSet{imap.SeqRange{Start: 1}}, &imap.FetchOptions{
		UID: true, Flags: true, ModSeq: true, ChangedSince: selected.HighestModSeq,
	}).Collect()
	if err != nil || len(changed) != 1 || changed[0].UID != 2 || changed[0].ModSeq <= selected.HighestModSeq {
		t.Errorf("changed since %d: %+v, %v", selected.HighestModSeq, changed, err)
	}
	if _, err := busy.Move(imap.SeqSetNum(1), "Archive").Wait(); err != nil {
		t.Fatal(err)
	}
	if seq := receive(t, expunged); seq != 1 {
		t.Errorf("%d was expunged", seq)
	}
	if err := idle.Close(); err != nil {
		t.Fatal(err)
	}
	if err := idle.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := waiting.Logout().Wait(); err != nil {
		t.Fatal(err)
	}
}

// receive takes the next value, or fails the test.
func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("not reached")
	}
}
