package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// states checks what the nodes show in the end against each other and against their counters.
func (c *checker) states() {
	for i, s := range c.run.States {
		var bytes, messages int64
		for name, box := range s.Boxes {
			c.recount(s.Node, name, box)
			for _, m := range box.Mails {
				bytes += m.Size
			}
			messages += int64(len(box.Mails))
			if i > 0 {
				c.same(name, s, box)
			}
		}
		if bytes != c.run.Bytes || messages != c.run.Messages {
			c.add(Violation{Rule: Counters, Text: fmt.Sprintf("the quota counts %d octets in %d messages; node %d shows %d in %d", c.run.Bytes, c.run.Messages, s.Node, bytes, messages)})
		}
	}
}

func (c *checker) recount(node int, name string, box Box) {
	var n Box
	var last uint32
	for _, m := range box.Mails {
		n.Messages++
		n.Size += m.Size
		if !slices.Contains(m.Flags, `\seen`) {
			n.Unseen++
		}
		if slices.Contains(m.Flags, `\deleted`) {
			n.Deleted++
		}
		if m.Corrupt {
			c.add(Violation{Rule: Bytes, Text: fmt.Sprintf("%s %d on node %d: not the message %s", name, m.UID, node, m.ID), Mailbox: name, UID: m.UID, ID: m.ID})
		}
		if m.UID <= last || m.UID >= box.UIDNext {
			c.add(Violation{Rule: UIDRising, Text: fmt.Sprintf("%s on node %d: UID %d after %d, UIDNEXT %d", name, node, m.UID, last, box.UIDNext), Mailbox: name, UID: m.UID})
		}
		if m.ModSeq > box.HighestModSeq {
			c.add(Violation{Rule: ModSeqOnce, Text: fmt.Sprintf("%s on node %d: UID %d has modseq %d, HIGHESTMODSEQ is %d", name, node, m.UID, m.ModSeq, box.HighestModSeq), Mailbox: name, UID: m.UID})
		}
		last = m.UID
	}
	if n.Messages != box.Messages || n.Unseen != box.Unseen || n.Deleted != box.Deleted || n.Size != box.Size {
		c.add(Violation{Rule: Counters, Text: fmt.Sprintf("%s on node %d: STATUS says %d messages, %d unseen, %d deleted, %d octets; there are %d, %d, %d, %d",
			name, node, box.Messages, box.Unseen, box.Deleted, box.Size, n.Messages, n.Unseen, n.Deleted, n.Size), Mailbox: name})
	}
}

func (c *checker) same(name string, s State, box Box) {
	first := c.run.States[0]
	other, ok := first.Boxes[name]
	if !ok || other.UIDValidity != box.UIDValidity || other.UIDNext != box.UIDNext || other.HighestModSeq != box.HighestModSeq {
		c.add(Violation{Rule: SameForAll, Text: fmt.Sprintf("%s: UIDVALIDITY %d, UIDNEXT %d, HIGHESTMODSEQ %d on node %d; %d, %d, %d on node %d", name,
			box.UIDValidity, box.UIDNext, box.HighestModSeq, s.Node, other.UIDValidity, other.UIDNext, other.HighestModSeq, first.Node), Mailbox: name})
	}
	equal := func(a, b Mail) bool {
		return a.UID == b.UID && a.ModSeq == b.ModSeq && a.ID == b.ID && a.Size == b.Size && slices.Equal(a.Flags, b.Flags)
	}
	if slices.EqualFunc(box.Mails, other.Mails, equal) {
		return
	}
	for i := range max(len(box.Mails), len(other.Mails)) {
		var a, b Mail
		if i < len(box.Mails) {
			a = box.Mails[i]
		}
		if i < len(other.Mails) {
			b = other.Mails[i]
		}
		if !equal(a, b) {
			c.add(Violation{Rule: SameForAll, Text: fmt.Sprintf("%s: number %d is %+v on node %d, %+v on node %d", name, i+1, a, s.Node, b, first.Node), Mailbox: name, UID: max(a.UID, b.UID)})
			return
		}
	}
}

// origin is what may have been made by a command in doubt: a message of this ID in this mailbox.
type origin struct{ mailbox, id string }

// account checks that all that was acknowledged is there, and that what is there came from somewhere.
func (c *checker) account() {
	there := make(map[place]bool)
	for name, box := range c.run.States[0].Boxes {
		for _, m := range box.Mails {
			there[place{name, m.UID}] = true
		}
	}
	for p, m := range c.made {
		if !there[p] && len(c.attempts[p]) == 0 {
			c.add(Violation{Rule: NothingLost, Text: fmt.Sprintf("%v (%s), which %s by client %d on node %d made at %.3f, is gone, and nobody removed it",
				p, m.id, m.by.Name, m.by.Client, m.by.Node, m.by.End.Seconds()), At: m.by.End, Mailbox: p.mailbox, UID: p.uid, ID: m.id})
		}
	}
	for p, by := range c.removed {
		if there[p] {
			c.add(Violation{
				Rule: NothingBack, Text: fmt.Sprintf("%v is there; %s by client %d on node %d removed it at %.3f", p, by.Name, by.Client, by.Node, by.End.Seconds()),
				At: by.End, Mailbox: p.mailbox, UID: p.uid,
			})
		}
	}
	seen := make(map[origin]int) // messages that no acknowledged command made
	for p, id := range c.ids {
		if _, ok := c.made[p]; !ok && !c.lost(p) {
			seen[origin{p.mailbox, id}]++
		}
	}
	can, must := maps.Clone(c.unplaced), make(map[origin]int)
	for i := range c.run.Ops {
		if o := &c.run.Ops[i]; o.Result == InDoubt {
			c.doubt(o, there, can, must)
		}
	}
	for at, n := range seen {
		if n > can[at] {
			c.add(Violation{Rule: Whole, Text: fmt.Sprintf("%s has %d of %s more than commands made; those in doubt can have made %d", at.mailbox, n, at.id, can[at]), Mailbox: at.mailbox, ID: at.id})
		}
	}
	for at, n := range must {
		if seen[at] < n {
			c.add(Violation{Rule: Whole, Text: fmt.Sprintf("%d of %s left for %s by a MOVE in doubt; %d arrived", n, at.id, at.mailbox, seen[at]), Mailbox: at.mailbox, ID: at.id})
		}
	}
	c.halves(seen, can)
}

// doubt counts what a command in doubt can have made and, if something is gone that nobody else can have removed, must have.
func (c *checker) doubt(o *Op, there map[place]bool, can, must map[origin]int) {
	switch o.Name {
	case "APPEND":
		can[origin{o.target(), o.ID}]++
	case "UID COPY", "UID MOVE":
		for _, uid := range o.UIDs {
			p := place{o.Mailbox, uid}
			at := origin{o.To, c.ids[p]}
			moved := o.Name == "UID MOVE"
			if moved && there[p] || c.lost(p) {
				continue
			}
			can[at]++
			if moved && len(c.attempts[p]) == 1 {
				must[at]++
			}
		}
	}
}

// halves checks COPY and MOVE of several messages that are in doubt, where nothing else can have made those.
func (c *checker) halves(seen, can map[origin]int) {
	for i := range c.run.Ops {
		o := &c.run.Ops[i]
		if o.Result != InDoubt || o.Name != "UID COPY" && o.Name != "UID MOVE" {
			continue
		}
		var done, not int
		for _, uid := range o.UIDs {
			p := place{o.Mailbox, uid}
			others := slices.ContainsFunc(c.attempts[p], func(a *Op) bool { return a != o })
			at := origin{o.To, c.ids[p]}
			switch {
			case others || can[at] > 1 || c.lost(p):
			case seen[at] == 0:
				not++
			default:
				done++
			}
		}
		if done > 0 && not > 0 {
			c.add(Violation{Rule: Whole, Text: fmt.Sprintf("%s of %v from %s to %s by client %d made %d and not %d", o.Name, o.UIDs, o.Mailbox, o.To, o.Client, done, not), At: o.End, Conn: o.Conn})
		}
	}
}

// own is a keyword that only one client sets, of one message.
type own struct {
	place
	flag string
}

// ownFlag is the keyword of a client.
func ownFlag(client int) string { return fmt.Sprintf("client%d", client) }

// flags checks that each client's own keyword is as it left it: as by its last acknowledged STORE, or by one in doubt,
// which may come late.
func (c *checker) flags() {
	type wish struct {
		set, unset bool
		since      time.Duration
		by         *Op
	}
	wishes := make(map[own]*wish)
	for i := range c.run.Ops {
		o := &c.run.Ops[i]
		if o.Name != "UID STORE" || o.Result == NO || o.Result == Lost || o.Flag != ownFlag(o.Client) {
			continue
		}
		for _, uid := range o.UIDs {
			k := own{place{o.Mailbox, uid}, o.Flag}
			w := wishes[k]
			if w == nil {
				w = &wish{}
				wishes[k] = w
			}
			if o.Result == OK {
				if w.by == nil || o.End > w.since {
					w.since, w.by = o.End, o
				}
				continue
			}
			w.set, w.unset = w.set || o.Add, w.unset || !o.Add
		}
	}
	final := make(map[place]Mail)
	for name, box := range c.run.States[0].Boxes {
		for _, m := range box.Mails {
			final[place{name, m.UID}] = m
		}
	}
	for k, w := range wishes {
		m, ok := final[k.place]
		has := slices.Contains(m.Flags, k.flag)
		if !ok || w.by == nil || has == w.by.Add || has && w.set || !has && w.unset {
			continue
		}
		c.add(Violation{Rule: NothingLost, Text: fmt.Sprintf("%v has the flags %s; STORE of %s (set: %v) was acknowledged to client %d at %.3f",
			k.place, strings.Join(m.Flags, " "), k.flag, w.by.Add, w.by.Client, w.since.Seconds()), At: w.since, Mailbox: k.mailbox, UID: k.uid})
	}
}
