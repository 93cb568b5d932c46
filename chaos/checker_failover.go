package chaos

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// LostFuture is a rule about a PostgreSQL that has lost commits.
const LostFuture Rule = "numbers that PostgreSQL lost in a failover name nothing else"

// Failover is a change of PostgreSQL's primary.
type Failover struct {
	// Sync says that the standby had all that was acknowledged, Lossy that it had not all that clients may have seen: it was cut off
	// after Since, at which it had everything.
	Sync, Lossy bool
	// Until is when the old primary was gone.
	Since, Until time.Duration
	// Boxes are the mailboxes as the new primary had them before anybody could change them, by name.
	Boxes map[string]Kept
}

// Kept is what a new primary has of a mailbox.
type Kept struct {
	UIDNext uint32
	ModSeq  uint64
	Epochs  uint64              // that it is behind; 0 is 1, which is its own
	Flags   map[uint32][]string // of each message; lower case
}

// What a mailbox passes over when it is taken into a new epoch.
const (
	uidJump    = 131072
	modseqSpan = 1 << 28
)

// lostUID says whether a UID can only have been given out in the future that was lost.
func (k Kept) lostUID(uid uint32) bool { return uid >= k.UIDNext && uid < k.nextUID() }

// next and nextUID are the first numbers after the future that was lost.
func (k Kept) next() uint64 { return (k.ModSeq/modseqSpan + max(k.Epochs, 1)) * modseqSpan }

func (k Kept) nextUID() uint32 { return k.UIDNext + uidJump*uint32(max(k.Epochs, 1)) } //nolint:gosec // a few epochs

// lostModSeq says the same of a modseq as lostUID of a UID.
func (k Kept) lostModSeq(modseq uint64) bool { return modseq > k.ModSeq && modseq < k.next() }

// lost says whether a message was only in a future that was lost.
func (c *checker) lost(p place) bool { return c.lostBy(p, math.MaxInt64) }

// lostBy says the same for a failover before a time.
func (c *checker) lostBy(p place, t time.Duration) bool {
	return slices.ContainsFunc(c.run.Failovers, func(f Failover) bool {
		k, ok := f.Boxes[p.mailbox]
		return ok && f.Until < t && k.lostUID(p.uid)
	})
}

// undone is an acknowledged removal that PostgreSQL lost.
type undone struct {
	by    *Op
	until time.Duration
}

// failovers replaces the acknowledged commands of which a failover to a standby that lagged lost the commits: those that were running
// while it lagged, and of which the new primary shows that it has not had them. To the others the rules apply as ever.
func (c *checker) failovers() {
	if len(c.run.Failovers) == 0 {
		return
	}
	run := *c.run
	run.Ops = slices.Clone(run.Ops)
	c.run = &run
	for _, f := range run.Failovers {
		for i := range run.Ops {
			if o := &run.Ops[i]; !f.Sync && o.Result == OK && o.Start < f.Until && o.End > f.Since {
				c.undo(f, o)
			}
		}
	}
}

func (c *checker) undo(f Failover, o *Op) {
	kept := func(box string, uid uint32) bool {
		k, ok := f.Boxes[box]
		return !ok || !k.lostUID(uid)
	}
	original := *o
	switch o.Name {
	case "APPEND", "UID COPY", "UID MOVE":
		n := 0
		for _, uid := range o.Made {
			if !kept(o.target(), uid) {
				n++
			}
		}
		if n == 0 {
			return
		}
		if n < len(o.Made) {
			c.add(Violation{Rule: Whole, Text: fmt.Sprintf("PostgreSQL kept a part of %s, which made %v in %s", o.Name, o.Made, o.target()), At: o.End, Conn: o.Conn})
		}
		o.Result = Lost
		if o.Name == "UID MOVE" {
			c.undoRemoval(&original, o.From, f)
		}
	case "UID EXPUNGE", "UID STORE":
		k := f.Boxes[o.Mailbox]
		var gone []uint32
		o.UIDs = slices.DeleteFunc(slices.Clone(o.UIDs), func(uid uint32) bool {
			flags, live := k.Flags[uid]
			lost := live && (o.Name == "UID EXPUNGE" || slices.Contains(flags, o.Flag) != o.Add)
			if lost {
				gone = append(gone, uid)
			}
			return lost
		})
		switch {
		case len(gone) > 0 && o.End > f.Until: // it was lost, and its answer was late; or it was done after that
			o.UIDs, o.Result = original.UIDs, InDoubt
		case len(o.UIDs) == 0:
			o.Result = Lost
		}
		if o.Name == "UID EXPUNGE" {
			c.undoRemoval(&original, gone, f)
		}
	}
}

func (c *checker) undoRemoval(o *Op, uids []uint32, f Failover) {
	for _, uid := range uids {
		p := place{o.Mailbox, uid}
		c.undone[p] = append(c.undone[p], undone{o, f.Until})
	}
}

// wasGone says whether a message that is there was removed, for a while, when a view was of before since.
func (c *checker) wasGone(p place, since time.Duration, o *Op) bool {
	return slices.ContainsFunc(c.undone[p], func(u undone) bool { return u.by.Start < o.End && since < u.until })
}

// goesOn checks that nobody goes on with what was lost.
func (c *checker) goesOn() {
	for _, f := range c.run.Failovers {
		for i := range c.run.Ops {
			o := &c.run.Ops[i]
			k, ok := f.Boxes[o.target()]
			if !ok || o.Start < f.Until || o.Result != OK || o.Space != "" {
				continue
			}
			if slices.ContainsFunc(o.Made, k.lostUID) {
				c.add(Violation{Rule: LostFuture, Text: fmt.Sprintf("%s of client %d made %v in %s, after a failover at %.3f to a PostgreSQL whose next UID was %d",
					o.Name, o.Client, o.Made, o.target(), f.Until.Seconds(), k.UIDNext), At: o.End, Conn: o.Conn, Mailbox: o.target()})
			}
		}
		for _, s := range c.run.States {
			for name, k := range f.Boxes {
				// What nobody has written to since is as it was.
				if box, ok := s.Boxes[name]; ok && slices.Contains(boxes(), name) {
					c.arrives(f, s.Node, name, k, box)
				}
			}
		}
	}
}

func (c *checker) arrives(f Failover, node int, name string, k Kept, box Box) {
	if box.UIDNext < k.nextUID() || box.HighestModSeq <= k.ModSeq || k.lostModSeq(box.HighestModSeq) {
		c.add(Violation{Rule: LostFuture, Text: fmt.Sprintf("%s on node %d has UIDNEXT %d and HIGHESTMODSEQ %d, after a failover at %.3f to a PostgreSQL that had %d and %d",
			name, node, box.UIDNext, box.HighestModSeq, f.Until.Seconds(), k.UIDNext, k.ModSeq), At: f.Until, Mailbox: name})
	}
	for _, m := range box.Mails {
		if k.lostUID(m.UID) || k.lostModSeq(m.ModSeq) {
			c.add(Violation{Rule: LostFuture, Text: fmt.Sprintf("%s %d on node %d has modseq %d, after a failover at %.3f to a PostgreSQL that had UIDNEXT %d and modseq %d",
				name, m.UID, node, m.ModSeq, f.Until.Seconds(), k.UIDNext, k.ModSeq), At: f.Until, Mailbox: name, UID: m.UID})
		}
	}
}
