package chaos

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Rule is something that holds whatever breaks.
type Rule string

// The rules.
const (
	Sequence    Rule = "EXISTS, EXPUNGE, VANISHED and FETCH fit what the client had been told"
	UIDOnce     Rule = "a UID names one message"
	UIDRising   Rule = "UIDs rise"
	ModSeqOnce  Rule = "modseqs do not go back"
	ReadsOK     Rule = "a NOOP after an OK elsewhere sees it"
	NothingLost Rule = "nothing acknowledged is lost"
	NothingBack Rule = "nothing that is gone comes back"
	Whole       Rule = "what was not acknowledged is there whole or not at all"
	Bytes       Rule = "BODY[] is what was appended"
	SameForAll  Rule = "after quiet all see the same"
	Counters    Rule = "counters and quota equal a recount"
	Objects     Rule = "no row names a missing object"
	OneState    Rule = "a modseq stands for one state"
	Searches    Rule = "SEARCH finds what there is"
	Lists       Rule = "mailboxes are as they were made, renamed and deleted"
	Once        Rule = "a delivery that is tried again arrives once"
	Leftovers   Rule = "no object is kept for ever"
	Sound       Rule = "starling check finds nothing"
)

// Violation is a rule that did not hold.
type Violation struct {
	Rule Rule
	Text string

	// Where to look in the history; zero values say nothing.
	At      time.Duration
	Conn    int
	Mailbox string
	UID     uint32
	ID      string
}

func (v Violation) String() string { return fmt.Sprintf("%s: %s", v.Rule, v.Text) }

// place is where a message is. UIDVALIDITY is not part of it: no mailbox is made anew in a run, so that it may not change.
type place struct {
	mailbox string
	uid     uint32
}

func (p place) String() string { return fmt.Sprintf("%s %d", p.mailbox, p.uid) }

// made is a message that was acknowledged.
type made struct {
	id string
	by *Op
}

// checker holds what the rules have in common.
type checker struct {
	run      *Run
	found    []Violation
	ids      map[place]string        // of all messages that anybody saw or made
	made     map[place]made          // acknowledged
	deleted  map[place]time.Duration // since when they surely have \Deleted
	removed  map[place]*Op           // acknowledged
	attempts map[place][]*Op         // of removing it, all that may have happened
	undone   map[place][]undone      // acknowledged removals that PostgreSQL lost
	unplaced map[origin]int          // deliveries of which it is not known which message they made
}

// Check returns the violations of the rules in a run.
func Check(r *Run) []Violation {
	c := &checker{
		run: r, ids: make(map[place]string), made: make(map[place]made), deleted: make(map[place]time.Duration),
		removed: make(map[place]*Op), attempts: make(map[place][]*Op), undone: make(map[place][]undone), unplaced: make(map[origin]int),
	}
	c.failovers()
	c.gather()
	c.deliveries()
	c.versions()
	c.list()
	c.sessions()
	c.rising()
	c.states()
	if len(r.States) > 0 {
		c.account()
		c.flags()
		c.goesOn()
	}
	for _, m := range r.Missing {
		c.add(Violation{Rule: Objects, Text: m})
	}
	for _, key := range r.Left {
		c.add(Violation{Rule: Leftovers, Text: key})
	}
	if r.Unsound != "" {
		c.add(Violation{Rule: Sound, Text: r.Unsound})
	}
	return c.found
}

func (c *checker) add(v Violation) { c.found = append(c.found, v) }

// gather collects what was told and acknowledged of each message.
func (c *checker) gather() {
	for i := range c.run.Ops {
		o := &c.run.Ops[i]
		for _, t := range o.Told {
			if t.Kind != Fetched || t.UID == 0 {
				continue
			}
			p := place{o.Mailbox, t.UID}
			if t.Corrupt {
				c.add(Violation{Rule: Bytes, Text: fmt.Sprintf("%v: not the message %s", p, t.ID), At: o.End, Mailbox: p.mailbox, UID: p.uid})
			}
			c.name(p, t.ID, o.End)
		}
		if o.Name == "APPEND" && (o.Result == OK || o.Result == Lost) && len(o.Made) == 1 {
			c.name(place{o.target(), o.Made[0]}, o.ID, o.End)
		}
		if o.Name == "UID STORE" && o.Result == OK && o.Add && o.Flag == `\deleted` {
			for _, uid := range o.UIDs {
				if at, ok := c.deleted[place{o.Mailbox, uid}]; !ok || o.End < at {
					c.deleted[place{o.Mailbox, uid}] = o.End
				}
			}
		}
	}
	for _, s := range c.run.States {
		for name, box := range s.Boxes {
			if ownName(name) {
				continue
			}
			for _, m := range box.Mails {
				c.name(place{name, m.UID}, m.ID, 0)
			}
		}
	}
	ops := make([]*Op, len(c.run.Ops))
	for i := range c.run.Ops {
		ops[i] = &c.run.Ops[i]
	}
	// A copy is made of what was there before: its ID is known when its turn comes.
	slices.SortStableFunc(ops, func(a, b *Op) int { return cmp.Compare(a.End, b.End) })
	for _, o := range ops {
		c.gatherChange(o)
	}
}

// name notes which message a UID names.
func (c *checker) name(p place, id string, at time.Duration) {
	if id == "" {
		return
	}
	if known := c.ids[p]; known != "" && known != id {
		c.add(Violation{Rule: UIDOnce, Text: fmt.Sprintf("%v is %s, and is %s", p, known, id), At: at, Mailbox: p.mailbox, UID: p.uid})
		return
	}
	c.ids[p] = id
}

func (c *checker) gatherChange(o *Op) {
	switch {
	case o.Result == NO || o.Result == Lost:
	case o.Name == "APPEND" && o.Result == OK:
		for _, uid := range o.Made {
			c.makes(place{o.target(), uid}, o.ID, o)
		}
	case o.Name == "UID COPY" || o.Name == "UID MOVE":
		if o.Result == InDoubt && o.Name == "UID MOVE" {
			for _, uid := range o.UIDs {
				c.attempts[place{o.Mailbox, uid}] = append(c.attempts[place{o.Mailbox, uid}], o)
			}
		}
		if o.Result != OK {
			return
		}
		if len(o.From) != len(o.Made) {
			c.add(Violation{Rule: Whole, Text: fmt.Sprintf("COPYUID of %v and %v", o.From, o.Made), At: o.End, Conn: o.Conn})
			return
		}
		for i, uid := range o.From {
			from, to := place{o.Mailbox, uid}, place{o.To, o.Made[i]}
			c.makes(to, c.ids[from], o)
			if o.Name == "UID MOVE" {
				c.removed[from] = o
				c.attempts[from] = append(c.attempts[from], o)
			}
		}
	case o.Name == "UID EXPUNGE":
		for _, uid := range o.UIDs {
			p := place{o.Mailbox, uid}
			c.attempts[p] = append(c.attempts[p], o)
			if at, ok := c.deleted[p]; ok && at < o.Start && o.Result == OK && c.removed[p] == nil {
				c.removed[p] = o
			}
		}
	}
}

func (c *checker) makes(p place, id string, o *Op) {
	if before, ok := c.made[p]; ok {
		c.add(Violation{Rule: UIDOnce, Text: fmt.Sprintf("%v was made twice, the first time by client %d", p, before.by.Client), At: o.End, Mailbox: p.mailbox, UID: p.uid})
	}
	c.name(p, id, o.End)
	c.made[p] = made{c.ids[p], o}
}

// stamp is a number that was given out, or one that must be beyond all those given out before.
type stamp struct {
	at    time.Duration // given out: the end of its operation; else the start
	given bool
	value uint64
	op    *Op
}

// rising checks that what was given out rises, by the real time of the operations.
func (c *checker) rising() {
	uids, modseqs := make(map[string][]stamp), make(map[string][]stamp)
	validity := make(map[string]uint32)
	for i := range c.run.Ops {
		o := &c.run.Ops[i]
		for _, n := range o.Counts {
			uids[n.Mailbox] = append(uids[n.Mailbox], stamp{o.Start, false, uint64(n.Next), o})
			modseqs[n.Mailbox] = append(modseqs[n.Mailbox], stamp{o.Start, false, n.ModSeq + 1, o}, stamp{o.End, true, n.ModSeq, o})
		}
		if o.Space != "" {
			continue // what has such a name is now this mailbox, now that
		}
		box := o.target()
		if o.UIDValidity != 0 {
			if known := validity[box]; known != 0 && known != o.UIDValidity {
				c.add(Violation{Rule: UIDOnce, Text: fmt.Sprintf("UIDVALIDITY of %s is %d, and is %d", box, known, o.UIDValidity), At: o.End, Mailbox: box})
			}
			validity[box] = o.UIDValidity
		}
		if len(o.Made) > 0 && (o.Result == OK || o.Result == Lost) {
			uids[box] = append(uids[box], stamp{o.End, true, uint64(slices.Max(o.Made)), o}, stamp{o.Start, false, uint64(slices.Min(o.Made)), o})
			if !slices.IsSorted(o.Made) {
				c.add(Violation{Rule: UIDRising, Text: fmt.Sprintf("%s gave out %v", o.Name, o.Made), At: o.End, Conn: o.Conn})
			}
		}
		for _, t := range o.Told {
			if t.Kind == Fetched && t.ModSeq != 0 {
				modseqs[o.Mailbox] = append(modseqs[o.Mailbox], stamp{o.End, true, t.ModSeq, o})
			}
		}
		if o.Name == "SELECT" && o.Result == OK {
			uids[box] = append(uids[box], stamp{o.Start, false, uint64(o.UIDNext), o})
			// What it says may be said again, and no more than that: 1 is not beyond itself.
			modseqs[box] = append(modseqs[box], stamp{o.Start, false, o.HighestModSeq + 1, o}, stamp{o.End, true, o.HighestModSeq, o})
		}
	}
	maps.DeleteFunc(uids, func(box string, _ []stamp) bool { return ownName(box) })
	maps.DeleteFunc(modseqs, func(box string, _ []stamp) bool { return ownName(box) })
	for box, stamps := range uids {
		c.beyond(UIDRising, "UID", box, stamps)
	}
	for box, stamps := range modseqs {
		c.beyond(ModSeqOnce, "modseq", box, stamps)
	}
}

func (c *checker) beyond(rule Rule, what, box string, stamps []stamp) {
	slices.SortStableFunc(stamps, func(a, b stamp) int {
		if a.at == b.at && a.given != b.given { // at the same time is not before
			if b.given {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.at, b.at)
	})
	var highest stamp
	for _, s := range stamps {
		switch {
		case s.given && s.value > highest.value:
			highest = s
		case !s.given && s.value <= highest.value && s.op != highest.op:
			c.add(Violation{Rule: rule, Text: fmt.Sprintf("%s: %s of client %d goes on before %s %d, which client %d was told at %.3f",
				box, s.op.Name, s.op.Client, what, highest.value, highest.op.Client, highest.at.Seconds()), At: s.op.End, Mailbox: box})
		}
	}
}
