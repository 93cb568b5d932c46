package mailstore

import (
	"slices"
	"testing"

	"starling/metadata"
)

// After a failover or a restore nodes go on with what they hold: it is loaded
// anew, no UID is given out twice, and what clients knew of the numbers of before
// is not taken for what they are now.
func TestEpochs(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		run  func(t *testing.T, c *cluster, n *node, mine *client)
	}{
		{"refresh", func(_ *testing.T, _ *cluster, _ *node, mine *client) { mine.refresh() }},
		{"store", func(_ *testing.T, _ *cluster, _ *node, mine *client) { mine.store(one(1), AddFlags, "seen") }},
		{"append", func(_ *testing.T, c *cluster, n *node, _ *client) { c.append(n, Inbox, mail("3")) }},
		{"expunge", func(_ *testing.T, _ *cluster, _ *node, mine *client) { mine.expunge(1) }},
		{"move", func(t *testing.T, _ *cluster, _ *node, mine *client) {
			if _, err := mine.Move(t.Context(), CopyArgs{View: mine.Snapshot(), UIDs: one(1), Dest: "Archive"}); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c, x, y, mine, theirs := two(t, 2, metadata.Quota{})
			c.enter(x, "Archive")
			before := mine.Snapshot().row
			epoch, err := c.db.BumpEpoch(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			test.run(t, c, x, mine)
			after := c.check(Inbox)
			same(t, mine.Snapshot(), after)
			if after.row.Epoch != epoch || after.row.ModSeq < nextEpoch(before.ModSeq) || after.row.UIDNext < before.UIDNext+131_072 {
				t.Errorf("from %+v to %+v, the epoch is %d", before, after.row, epoch)
			}
			if after.Remembers(before.ModSeq+1) || !after.Remembers(before.ModSeq) || !slices.Equal(after.row.Jumps, []int64{before.ModSeq}) {
				t.Errorf("jumps %v", after.row.Jumps)
			}
			same(t, theirs.refresh(), after)
			c.append(y, Inbox, mail("4"))
			mine.store(one(2), AddFlags, "flagged")
			same(t, mine.Snapshot(), c.check(Inbox))
		})
	}
}

// The first limit of an account gives its mailboxes new stamps, so that nothing
// that did not charge it is committed any more: nodes go on with that, too.
func TestFirstLimit(t *testing.T) {
	t.Parallel()
	c, x, y, mine, theirs := two(t, 3, metadata.Quota{})
	u, err := x.Upload(t.Context(), Incoming{Mailbox: Inbox}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Discard()
	if err := c.db.SetLimits(t.Context(), c.account.Name, metadata.Quota{Messages: 4}); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Append(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	_, err = upload(t.Context(), y.Account, Incoming{Mailbox: Inbox}, mail("x"), nil)
	wantError(t, err, metadata.ErrOverQuota)
	theirs.expunge(1, 2)
	mine.refresh()
	c.append(x, Inbox, mail("5"))
	s := c.check(Inbox)
	same(t, mine.Snapshot(), s)
	if used, err := x.Usage(t.Context()); err != nil || used.Messages != 3 || used.Bytes != s.row.Bytes {
		t.Errorf("usage %+v, %v", used, err)
	}
}
