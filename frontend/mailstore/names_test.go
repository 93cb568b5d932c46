package mailstore

import (
	"errors"
	"strings"
	"testing"

	"starling/metadata"
)

// What a node holds of a mailbox outlives its name: another node may rename it,
// delete it, or give the name to another mailbox. RFC 9051 §6.3.6.
func TestNamesThatChangeElsewhere(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(t *testing.T, c *cluster, y *node) // the node x holds Archive and INBOX
		target string
		want   string // where mail for target goes; "": nowhere
	}{
		{"renamed: the old name", func(t *testing.T, _ *cluster, y *node) { rename(t, y, "Archive", "Old") }, "Archive", ""},
		{"renamed: the new name", func(t *testing.T, _ *cluster, y *node) { rename(t, y, "Archive", "Old") }, "Old", "Old"},
		{"renamed, another made", func(t *testing.T, _ *cluster, y *node) {
			rename(t, y, "Archive", "Old")
			create(t, y, "Archive")
		}, "Archive", "Archive"},
		{"deleted", func(t *testing.T, _ *cluster, y *node) { remove(t, y, "Archive") }, "Archive", ""},
		{"deleted, another made", func(t *testing.T, _ *cluster, y *node) {
			remove(t, y, "Archive")
			create(t, y, "Archive")
		}, "Archive", "Archive"},
		{"two names exchanged", func(t *testing.T, _ *cluster, y *node) {
			create(t, y, "Other")
			rename(t, y, "Archive", "Third")
			rename(t, y, "Other", "Archive")
			rename(t, y, "Third", "Other")
		}, "Archive", "Archive"},
	} {
		for _, how := range []string{"append", "copy", "move", "open"} {
			t.Run(test.name+"/"+how, func(t *testing.T) {
				t.Parallel()
				c := newCluster(t, metadata.Quota{})
				x, y := c.node(), c.node()
				y.faults.Mute(true)
				c.append(x, Inbox, mail("1"))
				inbox := c.enter(x, Inbox)
				c.enter(x, "Archive")
				test.change(t, c, y)
				var err error
				switch how {
				case "append":
					_, err = upload(t.Context(), x.Account, Incoming{Mailbox: test.target}, mail("2"), nil)
				case "copy":
					_, err = inbox.Copy(t.Context(), CopyArgs{View: inbox.Snapshot(), UIDs: one(1), Dest: test.target, All: true})
				case "move":
					_, err = inbox.Move(t.Context(), CopyArgs{View: inbox.Snapshot(), UIDs: one(1), Dest: test.target, All: true})
				default:
					var m *Mailbox
					if m, err = x.Open(t.Context(), test.target, func() {}); err == nil {
						defer m.Close()
						if got := m.Snapshot().row.Name; got != test.want {
							t.Errorf("opened %q", got)
						}
						return
					}
				}
				if test.want == "" {
					wantError(t, err, metadata.ErrNoMailbox)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := c.check(test.want).Len(); got != 1 {
					t.Errorf("%q holds %d messages", test.want, got)
				}
				if how == "move" && inbox.Snapshot().Len() != 0 {
					t.Error("the message is still in INBOX")
				}
			})
		}
	}
}

func rename(t *testing.T, n *node, from, to string) {
	t.Helper()
	if err := n.Rename(t.Context(), from, to); err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, n *node, name string) {
	t.Helper()
	if _, err := n.Create(t.Context(), name, nil); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, n *node, name string) {
	t.Helper()
	if _, err := n.Delete(t.Context(), name); err != nil {
		t.Fatal(err)
	}
}

// What a session of a node has taken as recent, and what one of another node has, is known to the
// node by the look at the version, and nothing has to be read for it.
func TestTakenIsKnown(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x, y := c.still(), c.still()
	mine := c.enter(x, Inbox)
	theirs := c.enter(y, Inbox)
	for who, m := range map[string]*client{"this node": mine, "another": theirs} {
		c.append(x, Inbox, mail(who))
		snap := mine.Snapshot()
		if _, won, err := m.ClaimRecent(t.Context(), snap); err != nil || !won {
			t.Fatal(who, won, err)
		}
		trips := x.trips(func() { mine.refresh() })
		if got := mine.Snapshot().Mailbox().Recent; trips != 1 || got != snap.Mailbox().UIDNext {
			t.Errorf("%s has taken all below %d: %d round trips, want 1; recent from %d", who, snap.Mailbox().UIDNext, trips, got)
		}
	}
}

// A commit that was built before a rename became known does not bring the old
// name back, nor the old mark of \Recent.
func TestCommitsKeepTheName(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x, y := c.node(), c.node()
	y.faults.Mute(true)
	c.append(x, "Archive", mail("1"))
	mine := c.enter(x, "Archive")
	stale := mine.Snapshot()
	rename(t, y, "Archive", "Old")
	if _, won, err := c.enter(y, "Old").ClaimRecent(t.Context(), stale); err != nil || !won {
		t.Fatal(won, err)
	}
	mine.refresh()
	row := stale.row
	row.ModSeq++
	mine.box.install(stale.with(row, nil))
	if got := mine.Snapshot().row; got.Name != "Old" || got.Recent != 2 {
		t.Errorf("named %q, recent from %d", got.Name, got.Recent)
	}
	mine.box.install(stale) // an answer that was late
	if got := mine.Snapshot().row; got.Name != "Old" || got.ModSeq != row.ModSeq {
		t.Errorf("named %q, modseq %d", got.Name, got.ModSeq)
	}
}

func TestRenameInbox(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{Messages: 3})
	x := c.node()
	for range 3 {
		c.append(x, Inbox, mail("1"), "seen", "$Label")
	}
	create(t, x, "INBOX/child")
	before := c.enter(x, Inbox).ID()
	rename(t, x, Inbox, "All")
	inbox, all := c.check(Inbox), c.check("All")
	if inbox.row.ID != before || inbox.Len() != 0 || all.Len() != 3 {
		t.Errorf("INBOX is %d with %d messages, All has %d", inbox.row.ID, inbox.Len(), all.Len())
	}
	if got := flagsOf(all, 2); got != `\Seen $Label` {
		t.Errorf("flags %q", got)
	}
	c.check("INBOX/child")
	wantError(t, x.Rename(t.Context(), Inbox, "All"), metadata.ErrExists)
}

func TestCleanAndCheckName(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, clean string
		fine        bool
	}{
		{"inbox", "INBOX", true},
		{"iNbOx/Sub", "INBOX/Sub", true},
		{"inboxes", "inboxes", true},
		{"A\u0308", "Ä", true},
		{"", "", false},
		{"/a", "/a", false},
		{"a/", "a/", false},
		{"a//b", "a//b", false},
		{"a\x00", "a\x00", false},
		{"a\u0085", "a\u0085", false},
		{"a\u2028b", "a\u2028b", false},
		{"a\xffb", "a\xffb", false},
		{strings.Repeat("x", 1000), strings.Repeat("x", 1000), true},
		{strings.Repeat("x", 1001), strings.Repeat("x", 1001), false},
		{strings.Repeat("x/", 19) + "x", strings.Repeat("x/", 19) + "x", true},
		{strings.Repeat("x/", 20) + "x", strings.Repeat("x/", 20) + "x", false},
	} {
		if got := CleanName(test.name); got != test.clean {
			t.Errorf("CleanName(%q) is %q, want %q", test.name, got, test.clean)
		}
		if err := CheckName(test.clean); (err == nil) != test.fine || err != nil && !errors.Is(err, ErrName) {
			t.Errorf("CheckName(%q) is %v", test.clean, err)
		}
	}
}
