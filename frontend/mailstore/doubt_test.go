package mailstore

import (
	"testing"
	"time"

	"starling/metadata"
)

// doubting is a node that says nothing of itself and reaches PostgreSQL through a gate.
func (c *cluster) doubting(g *gate) *node {
	c.t.Helper()
	return c.still(func(cfg *Config) {
		db, err := metadata.Open(c.t.Context(), metadata.Config{
			DSN: g.dsn, QueryMode: "exec", MinBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond,
		})
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(db.Close)
		cfg.DB = db
	})
}

// loseStore has the next STORE through the gate never arrive, and then called before it is missed.
func (g *gate) loseStore(then func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lose, g.then = "update mailbox", then
}

// A STORE never arrived, and another node made the same one meanwhile, with more: the node takes neither that for
// its own commit nor what it holds for what there is. Otherwise it would write over the rest with its next change.
func TestSameStoreInDoubt(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	other := c.still()
	for range 130 { // two chunks
		c.append(other, "INBOX", mail("x"))
	}
	g := newGate(t, c.dsn)
	mine, theirs := c.enter(c.doubting(g), "INBOX"), c.enter(other, "INBOX")
	g.loseStore(func() {
		theirs.store([]metadata.UIDRange{{First: 1, Last: 1}, {First: 130, Last: 130}}, AddFlags, "seen")
		theirs.store(one(2), AddFlags, "flagged")
	})
	done := mine.store(one(1), AddFlags, "seen")
	if got := flagsOf(done.After, 130); got != `\Seen` {
		t.Errorf("message 130 has %q for the node that did not set it", got)
	}
	same(t, mine.refresh(), c.check("INBOX"))
	mine.store(one(130), AddFlags, "$Own")
	if got := flagsOf(c.check("INBOX"), 130); got != `\Seen $Own` {
		t.Errorf("message 130 has %q", got)
	}
}

// Of two that make the same change of what must be unchanged only one is told that it did.
func TestConditionalStoreInDoubt(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	other := c.still()
	for range 3 {
		c.append(other, "INBOX", mail("x"))
	}
	g := newGate(t, c.dsn)
	mine, theirs := c.enter(c.doubting(g), "INBOX"), c.enter(other, "INBOX")
	since := mine.Snapshot().Mailbox().ModSeq
	claim := func(cl *client) StoreFlags {
		return StoreFlags{View: cl.Snapshot(), UIDs: one(1), Mode: AddFlags, Flags: flagSet("$Mine"), UnchangedSince: &since}
	}
	g.loseStore(func() {
		if done, err := theirs.Mailbox.Store(t.Context(), claim(theirs)); err != nil || len(done.Changed) != 1 {
			t.Errorf("the other stored %v: %v", done.Changed, err)
		}
		theirs.store(one(2), AddFlags, "flagged")
	})
	_, err := mine.Mailbox.Store(t.Context(), claim(mine))
	wantError(t, err, metadata.ErrInDoubt)
}
