package mailstore

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"starling/metadata"
)

// two is a cluster of two nodes that do not hear each other, with n messages in
// INBOX, which both have open.
func two(t *testing.T, n int, limits metadata.Quota) (c *cluster, x, y *node, mine, theirs *client) {
	t.Helper()
	c = newCluster(t, limits)
	x, y = c.still(), c.still()
	for i := range n {
		c.append(x, Inbox, mail(fmt.Sprint(i+1)))
	}
	return c, x, y, c.enter(x, Inbox), c.enter(y, Inbox)
}

func (cl *client) expunge(uids ...uint32) *Snapshot {
	cl.t.Helper()
	var ranges []metadata.UIDRange
	for _, uid := range uids {
		ranges = append(ranges, metadata.UIDRange{First: uid, Last: uid})
	}
	cl.store(ranges, AddFlags, "deleted")
	after, err := cl.Expunge(cl.t.Context(), cl.Snapshot(), ranges)
	if err != nil {
		cl.t.Fatal(err)
	}
	return after
}

// A STORE that changes nothing commits nothing, but its answer is that of
// PostgreSQL, not of what the node happens to hold.
func TestStoreOfNothingProvesTheSnapshot(t *testing.T) {
	t.Parallel()
	c, x, _, mine, theirs := two(t, 2, metadata.Quota{})
	mine.store(one(1), AddFlags, "seen")
	now := c.check(Inbox).row.Version
	if n := x.trips(func() { mine.store(one(1), AddFlags, "seen") }); n != 1 {
		t.Errorf("%d round trips", n)
	}
	if c.check(Inbox).row.Version != now {
		t.Error("nothing was committed under a new version")
	}
	theirs.store(one(1), RemoveFlags, "seen")
	if done := mine.store(one(1), AddFlags, "seen"); !slices.Equal(done.Changed, []uint32{1}) {
		t.Errorf("changed %v", done.Changed)
	}
	if got := flagsOf(c.check(Inbox), 1); got != `\Seen` {
		t.Errorf("flags %q", got)
	}
}

// STORE leaves ghosts alone and names them; it never touches what the view does
// not show. RFC 2180 §4.2.
func TestStoreMeetsGhosts(t *testing.T) {
	t.Parallel()
	c, x, _, mine, theirs := two(t, 4, metadata.Quota{})
	view := mine.Snapshot()
	theirs.expunge(2, 4)
	c.append(x, Inbox, mail("5"))
	done, err := mine.Store(t.Context(), StoreFlags{View: view, UIDs: all(view), Mode: SetFlags, Flags: flagSet("flagged")})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(done.Changed, []uint32{1, 3}) || !slices.Equal(done.Gone, []uint32{2, 4}) {
		t.Errorf("changed %v, gone %v", done.Changed, done.Gone)
	}
	same(t, done.After, c.check(Inbox))
	if got := flagsOf(done.After, 5); got != "" {
		t.Errorf("the message that the view does not show has %q", got)
	}
}

// UNCHANGEDSINCE compares the mailbox as it is; MODIFIED names what failed. RFC 7162 §3.1.3.
func TestUnchangedSince(t *testing.T) {
	t.Parallel()
	c, _, _, mine, theirs := two(t, 4, metadata.Quota{})
	view := mine.Snapshot()
	since := view.row.ModSeq
	theirs.store(one(1), AddFlags, "seen")
	theirs.store(one(2), AddFlags, "flagged", "Work")
	zero := int64(0)
	for _, test := range []struct {
		name              string
		mode              FlagMode
		flags             []string
		since             *int64
		changed, modified []uint32
	}{
		{"0: nothing passes", AddFlags, []string{"deleted"}, &zero, nil, []uint32{1, 2, 3, 4}},
		{"replacing: any change counts", SetFlags, []string{"deleted"}, &since, []uint32{3, 4}, []uint32{1, 2}},
		{"adding: a change of another flag does not count", AddFlags, []string{"flagged"}, &since, []uint32{1}, []uint32{2, 3, 4}},
		{"removing: a change of the same flag counts", RemoveFlags, []string{"work"}, &since, nil, []uint32{2, 3, 4}},
	} {
		done, err := mine.Store(t.Context(), StoreFlags{
			View: view, UIDs: all(view), Mode: test.mode, Flags: flagSet(test.flags...), UnchangedSince: test.since,
		})
		if err != nil {
			t.Fatal(err)
		}
		// Messages 3 and 4 are changed by the second case, and seen to be from then on.
		want := test.modified
		if test.mode != SetFlags && test.since != &zero {
			want = slices.DeleteFunc(slices.Clone(want), func(uid uint32) bool { return uid > 2 })
			done.Modified = slices.DeleteFunc(done.Modified, func(uid uint32) bool { return uid > 2 })
			done.Changed = slices.DeleteFunc(done.Changed, func(uid uint32) bool { return uid > 2 })
		}
		if !slices.Equal(done.Changed, test.changed) || !slices.Equal(done.Modified, want) {
			t.Errorf("%s: changed %v, modified %v; want %v, %v", test.name, done.Changed, done.Modified, test.changed, want)
		}
	}
	c.check(Inbox)
}

// A mailbox holds 49 keywords, compared without case; STORE and APPEND past that
// do nothing, COPY and deliveries drop what does not fit.
func TestKeywords(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still()
	mine, archive := c.enter(x, Inbox), c.enter(x, "Archive")
	for i := range 3 {
		c.append(x, Inbox, mail(fmt.Sprint(i)))
	}
	c.append(x, "Archive", mail("a"), "Zeta", "beta")
	for i := range metadata.MaxKeywords - 2 {
		mine.store(one(1), AddFlags, fmt.Sprint("k", i))
	}
	mine.store(one(2), AddFlags, "BETA", "gamma")
	mine.store(one(3), AddFlags, "beta", "GAMMA", "K7")
	if got := flagsOf(mine.Snapshot(), 3); got != "k7 BETA gamma" {
		t.Errorf("flags %q", got)
	}
	before := c.check(Inbox).row.Version
	_, err := mine.Store(t.Context(), StoreFlags{View: mine.Snapshot(), UIDs: one(1), Mode: AddFlags, Flags: flagSet("seen", "one too many")})
	wantError(t, err, ErrKeywordLimit)
	_, err = upload(t.Context(), x.Account, Incoming{Mailbox: Inbox, Flags: flagSet("one too many")}, mail("x"), nil)
	wantError(t, err, ErrKeywordLimit)
	if c.check(Inbox).row.Version != before {
		t.Error("what was refused changed the mailbox")
	}
	if done := mine.store(one(1), RemoveFlags, "one too many"); len(done.Changed) != 0 {
		t.Errorf("changed %v", done.Changed)
	}
	got, err := upload(t.Context(), x.Account, Incoming{Mailbox: Inbox, Flags: flagSet("one too many", "k1", "seen"), Fit: true}, mail("x"), nil)
	if err != nil || flagsOf(mine.Snapshot(), got.UID) != `\Seen k1` {
		t.Errorf("flags %q, %v", flagsOf(mine.Snapshot(), got.UID), err)
	}
	// By name, not by bit: beta is the second in Archive, the one but last in INBOX.
	if _, err := archive.Copy(t.Context(), CopyArgs{View: archive.Snapshot(), UIDs: one(1), Dest: Inbox}); err != nil {
		t.Fatal(err)
	}
	if got := flagsOf(c.check(Inbox), 5); got != "BETA" {
		t.Errorf("copied with %q", got)
	}
	done, err := mine.Move(t.Context(), CopyArgs{View: mine.Snapshot(), UIDs: []metadata.UIDRange{{First: 2, Last: 3}}, Dest: "Archive"})
	if err != nil {
		t.Fatal(err)
	}
	if got := flagsOf(c.check("Archive"), done.First+1); got != "beta k7 gamma" && got != "beta gamma k7" {
		t.Errorf("moved with %q", got)
	}
}

// A keyword that another node's collector has freed is there for STORE and APPEND, though
// this node has not heard of it; one is only refused by what PostgreSQL says.
func TestKeywordFreedElsewhere(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still()
	y := c.still(func(cfg *Config) { cfg.Retention = -1 })
	var names []string
	for i := range metadata.MaxKeywords {
		names = append(names, fmt.Sprint("k", i))
	}
	c.append(x, Inbox, mail("1"), names...)
	mine := c.enter(x, Inbox)
	other := c.enter(y, Inbox)
	free := func(keyword string) { // and x hears nothing of it
		t.Helper()
		expunged := c.append(x, Inbox, mail("collected")).UID
		y.faults.Mute(true)
		other.refresh()
		other.store(one(1), RemoveFlags, keyword)
		other.store(one(expunged), AddFlags, "deleted")
		if _, err := other.Expunge(t.Context(), other.Snapshot(), nil); err != nil {
			t.Fatal(err)
		}
		if report, err := y.Collect(t.Context(), 0); err != nil || report.Keywords != 1 {
			t.Fatalf("collected %+v, %v", report, err)
		}
	}
	free("k7")
	mine.store(one(1), AddFlags, "new")
	free("k8")
	c.append(x, Inbox, mail("2"), "newer")
	if got := flagsOf(c.check(Inbox), mine.Snapshot().Last()); got != "newer" {
		t.Errorf("flags are %q", got)
	}
	c.check(Inbox)
}

// EXPUNGE removes what has \Deleted now, of what the view shows.
func TestExpunge(t *testing.T) {
	t.Parallel()
	c, x, _, mine, theirs := two(t, 5, metadata.Quota{Messages: 6})
	mine.store([]metadata.UIDRange{{First: 1, Last: 3}}, AddFlags, "deleted")
	view := mine.Snapshot()
	theirs.store(one(2), RemoveFlags, "deleted") // not any more
	theirs.store(one(4), AddFlags, "deleted")    // now
	theirs.expunge(1)                            // gone already
	c.append(x, Inbox, mail("6"), "deleted")     // not shown
	after, err := mine.Expunge(t.Context(), view, nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, after, c.check(Inbox))
	if got := liveUIDs(after); !slices.Equal(got, []uint32{2, 5, 6}) {
		t.Errorf("left are %v", got)
	}
	if used, err := x.Usage(t.Context()); err != nil || used.Messages != 3 || used.Bytes != after.row.Bytes {
		t.Errorf("usage %+v, %v", used, err)
	}
	if got := slices.Collect(after.VanishedSince(view.row.ModSeq, 1, lastUID)); !slices.Equal(got, []metadata.UIDRange{{First: 1, Last: 1}, {First: 3, Last: 4}}) {
		t.Errorf("vanished %v", got)
	}
	same(t, theirs.refresh(), after)
	again, err := mine.Expunge(t.Context(), view, nil)
	if err != nil || again.row.Version != after.row.Version {
		t.Errorf("nothing was expunged under %+v, %v", again.row.Version, err)
	}
	if _, err := mine.Expunge(t.Context(), mine.Snapshot(), []metadata.UIDRange{}); err != nil {
		t.Error(err)
	}
	if got := c.check(Inbox).Len(); got != 3 {
		t.Errorf("%d messages left", got)
	}
}

// COPY and MOVE: the UIDs are one run in the order of the sources; ghosts are
// passed over, or the whole is refused.
func TestCopyAndMove(t *testing.T) {
	t.Parallel()
	for _, move := range []bool{false, true} {
		for _, dest := range []string{"Archive", Inbox} {
			t.Run(fmt.Sprintf("move=%v/%s", move, dest), func(t *testing.T) {
				t.Parallel()
				c, x, _, mine, theirs := two(t, 300, metadata.Quota{})
				c.append(x, "Archive", mail("before"))
				mine.store(all(mine.Snapshot()), AddFlags, "seen", "Label")
				view := mine.Snapshot()
				theirs.expunge(130, 131)
				transfer := mine.Copy
				if move {
					transfer = mine.Move
				}
				args := CopyArgs{View: view, UIDs: []metadata.UIDRange{{First: 2, Last: 4}, {First: 120, Last: 140}, {First: 300, Last: lastUID}}, Dest: dest}
				args.All = true
				_, err := transfer(t.Context(), args)
				wantError(t, err, ErrExpunged)
				before := c.check(dest)
				args.All = false
				done, err := transfer(t.Context(), args)
				if err != nil {
					t.Fatal(err)
				}
				source, target := c.check(Inbox), c.check(dest)
				same(t, done.After, source)
				if len(done.Source) != 3+19+1 || int64(done.First) != before.row.UIDNext || done.UIDValidity != target.row.UIDValidity {
					t.Errorf("copied %d, from %d", len(done.Source), done.First)
				}
				if !slices.IsSorted(done.Source) {
					t.Errorf("sources %v", done.Source)
				}
				to := c.enter(x, dest)
				for i, uid := range done.Source {
					if got := flagsOf(target, done.First+uint32(i)); got != `\Seen Label` {
						t.Errorf("copy of %d has %q", uid, got)
					}
					if (flagsOf(source, uid) == "gone") != move {
						t.Errorf("source %d has %q", uid, flagsOf(source, uid))
					}
				}
				if got, want := body(t, to, done.First+22), mail("300"); got != want {
					t.Errorf("the last copy is %q", got)
				}
				if got := theirs.refresh(); got.row.Version != source.row.Version {
					t.Errorf("the other node has %+v", got.row.Version)
				}
			})
		}
	}
}

// MOVE never fails on quota, COPY and APPEND do, and expunging gives back.
func TestQuota(t *testing.T) {
	t.Parallel()
	c, x, _, mine, _ := two(t, 3, metadata.Quota{Messages: 3})
	_, err := mine.Copy(t.Context(), CopyArgs{View: mine.Snapshot(), UIDs: one(1), Dest: "Archive"})
	wantError(t, err, metadata.ErrOverQuota)
	_, err = x.Upload(t.Context(), Incoming{Mailbox: Inbox}, 10)
	wantError(t, err, metadata.ErrOverQuota)
	for _, dest := range []string{"Archive", Inbox} {
		if _, err := mine.Move(t.Context(), CopyArgs{View: mine.Snapshot(), UIDs: one(mine.Snapshot().UID(0)), Dest: dest}); err != nil {
			t.Fatal(err)
		}
	}
	if used, err := x.Usage(t.Context()); err != nil || used.Messages != 3 {
		t.Errorf("usage %+v, %v", used, err)
	}
	mine.expunge(mine.Snapshot().UID(0))
	c.append(x, Inbox, mail("fits again"))
	wantNotes := c.check(Inbox).row.Bytes + c.check("Archive").row.Bytes
	if used, err := x.Usage(t.Context()); err != nil || used != (metadata.Quota{Messages: 3, Bytes: wantNotes}) {
		t.Errorf("usage %+v, %v", used, err)
	}
	remove(t, x, "Archive")
	if used, err := x.Usage(t.Context()); err != nil || used.Messages != 2 {
		t.Errorf("usage after DELETE %+v, %v", used, err)
	}
}

// A mailbox that another node deleted is gone for whoever has it open, at the
// first operation that asks PostgreSQL, and operations on it say so.
func TestOperationsOnDeletedMailbox(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		run  func(t *testing.T, c *client) error
	}{
		{"refresh", func(t *testing.T, c *client) error { _, err := c.Refresh(t.Context()); return err }},
		{"store", func(t *testing.T, c *client) error {
			_, err := c.Store(t.Context(), StoreFlags{View: c.Snapshot(), UIDs: one(1), Mode: AddFlags, Flags: flagSet("seen")})
			return err
		}},
		{"store of nothing", func(t *testing.T, c *client) error {
			_, err := c.Store(t.Context(), StoreFlags{View: c.Snapshot(), UIDs: one(1), Mode: RemoveFlags, Flags: flagSet("seen")})
			return err
		}},
		{"expunge", func(t *testing.T, c *client) error {
			_, err := c.Expunge(t.Context(), c.Snapshot(), nil)
			return err
		}},
		{"copy", func(t *testing.T, c *client) error {
			_, err := c.Copy(t.Context(), CopyArgs{View: c.Snapshot(), UIDs: one(1), Dest: Inbox})
			return err
		}},
		{"move", func(t *testing.T, c *client) error {
			_, err := c.Move(t.Context(), CopyArgs{View: c.Snapshot(), UIDs: one(1), Dest: Inbox})
			return err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, metadata.Quota{})
			x, y := c.still(), c.still()
			c.append(x, "Archive", mail("1"))
			mine := c.enter(x, "Archive")
			c.enter(x, Inbox)
			remove(t, y, "Archive")
			if err := test.run(t, mine); !errors.Is(err, metadata.ErrNoMailbox) {
				t.Errorf("error is %v", err)
			}
			mine.await("the deletion", mine.Gone)
			if got := c.check(Inbox).Len(); got != 0 {
				t.Errorf("INBOX has %d messages", got)
			}
		})
	}
}
