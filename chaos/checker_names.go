package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ownName says whether only one client changes the mailbox of this name.
func ownName(name string) bool { return strings.HasPrefix(name, ownNames) }

// names are the mailboxes that there may be in a space of names: the ID of each. An ID that begins with "?" is not known yet.
type names map[string]string

// possible is a state that a space may be in, and the commands in doubt that may still be carried out.
type possible struct {
	names   names
	pending []*Op
}

func (p possible) key() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(p.names)) {
		fmt.Fprintf(&b, "%s=%s ", name, p.names[name])
	}
	for _, o := range p.pending {
		fmt.Fprintf(&b, "%p ", o)
	}
	return b.String()
}

// list checks the commands that make, rename and delete mailboxes: there is an order of those in doubt in which all that was
// answered and listed fits.
func (c *checker) list() {
	spaces := make(map[string][]*Op)
	for i := range c.run.Ops {
		if o := &c.run.Ops[i]; o.Space != "" {
			spaces[o.Space] = append(spaces[o.Space], o)
		}
	}
	for _, space := range slices.Sorted(maps.Keys(spaces)) {
		if ops := spaces[space]; !slices.ContainsFunc(ops, c.seenLost) {
			c.space(ops)
			c.puts(ops)
		}
	}
	c.identities()
}

// space replays the commands of one space.
func (c *checker) space(ops []*Op) {
	states := []possible{{names: names{}}}
	for _, o := range ops {
		if o.Name == "PUT" {
			continue
		}
		if o.Result == InDoubt {
			if o.Name != "LIST" {
				for i := range states {
					states[i].pending = append(slices.Clone(states[i].pending), o)
				}
			}
			continue
		}
		var next []possible
		known := make(map[string]bool)
		for _, s := range settled(states) {
			if after, ok := s.answered(o); ok && !known[after.key()] {
				known[after.key()] = true
				next = append(next, after)
			}
		}
		if len(next) == 0 {
			c.add(Violation{Rule: Lists, Text: fmt.Sprintf("%v; there was %s", o, describe(states)), At: o.End, Conn: o.Conn})
			return
		}
		states = next
	}
}

func describe(states []possible) string {
	var texts []string
	for _, s := range states[:min(len(states), 4)] {
		texts = append(texts, fmt.Sprintf("%v", map[string]string(s.names)))
	}
	return strings.Join(texts, " or ")
}

// settled are the states that there may be when any of the pending commands were carried out, in any order.
func settled(states []possible) []possible {
	known := make(map[string]bool)
	var all []possible
	for queue := states; len(queue) > 0; queue = queue[1:] {
		s := queue[0]
		if known[s.key()] {
			continue
		}
		known[s.key()] = true
		all = append(all, s)
		for i, o := range s.pending {
			if after, ok := s.names.after(o); ok {
				queue = append(queue, possible{after, slices.Delete(slices.Clone(s.pending), i, i+1)})
			}
		}
	}
	return all
}

// after are the names after a command; false: it would be refused.
func (n names) after(o *Op) (names, bool) {
	_, there := n[o.To]
	switch o.Name {
	case "CREATE":
		if there {
			return nil, false
		}
		next := maps.Clone(n)
		next[o.To] = o.MailboxID
		if o.MailboxID == "" {
			next[o.To] = fmt.Sprintf("?%p", o)
		}
		return next, true
	case "DELETE":
		next := maps.Clone(n)
		delete(next, o.To)
		return next, there
	}
	// Its children go along, also where only they are there.
	next, moved := make(names), false
	for name, id := range n {
		rest, below := strings.CutPrefix(name, o.To)
		if below && (rest == "" || rest[0] == '/') {
			name, moved = o.Renamed+rest, true
			if _, taken := n[name]; taken {
				return nil, false
			}
		}
		next[name] = id
	}
	_, taken := n[o.Renamed]
	return next, moved && !taken
}

// answered is the state after a command that was answered; false: that answer is not possible in this state.
func (p possible) answered(o *Op) (possible, bool) {
	if o.Name == "LIST" {
		return p.listed(o)
	}
	next, done := p.names.after(o)
	if done != (o.Result == OK) {
		return p, false
	}
	if done {
		p.names = next
	}
	return p, true
}

func (p possible) listed(o *Op) (possible, bool) {
	if len(o.Counts) != len(p.names) {
		return p, false
	}
	seen := make(names)
	for _, n := range o.Counts {
		id, ok := p.names[n.Mailbox]
		if !ok || id != n.ID && !strings.HasPrefix(id, "?") {
			return p, false
		}
		seen[n.Mailbox] = n.ID
	}
	p.names = seen
	return p, true
}

// puts checks how many messages the mailboxes of a space have: those that were acknowledged, and of those in doubt some.
// They go where their mailbox goes.
func (c *checker) puts(ops []*Op) {
	acknowledged := make(map[uint32]int) // by UIDVALIDITY
	doubt := 0
	for _, o := range ops {
		switch {
		case o.Name == "PUT" && o.Result == OK:
			acknowledged[o.UIDValidity]++
		case o.Name == "PUT" && o.Result == InDoubt:
			doubt++
		}
		for _, n := range o.Counts {
			least := acknowledged[n.UIDValidity]
			if o.Result == OK && (int(n.Messages) < least || int(n.Messages) > least+doubt) {
				c.add(Violation{Rule: NothingLost, Text: fmt.Sprintf("%v has %d messages; %d were acknowledged, %d more are in doubt", n.Mailbox, n.Messages, least, doubt), At: o.End, Conn: o.Conn})
			}
		}
	}
}

// identities checks that a mailbox keeps its UIDVALIDITY, and that no other has it.
func (c *checker) identities() {
	ids, validities := make(map[uint32]string), make(map[string]uint32)
	note := func(validity uint32, id, name string, o *Op) {
		if validity == 0 || id == "" || ownName(name) && c.forgetful() {
			return
		}
		known, other := ids[validity], validities[id]
		if known != "" && known != id || other != 0 && other != validity {
			c.add(Violation{Rule: UIDOnce, Text: fmt.Sprintf("%s is %s with UIDVALIDITY %d; %s has that UIDVALIDITY, %s has %d", name, id, validity, known, id, other), At: o.End, Conn: o.Conn})
		}
		ids[validity], validities[id] = id, validity
	}
	for i := range c.run.Ops {
		o := &c.run.Ops[i]
		if o.Name == "SELECT" {
			note(o.UIDValidity, o.MailboxID, o.Mailbox, o)
		}
		for _, n := range o.Counts {
			note(n.UIDValidity, n.ID, n.Mailbox, o)
		}
	}
}

// lossy says whether what a command did may have been lost by PostgreSQL, although it was acknowledged.
func (c *checker) lossy(o *Op) bool {
	return slices.ContainsFunc(c.run.Failovers, func(f Failover) bool { return !f.Sync && f.overlaps(o) })
}

// seenLost says whether what a command did, or saw, may have been lost.
func (c *checker) seenLost(o *Op) bool {
	return slices.ContainsFunc(c.run.Failovers, func(f Failover) bool { return f.Lossy && f.overlaps(o) })
}

func (f *Failover) overlaps(o *Op) bool { return o.Start < f.Until && o.End > f.Since }

// forgetful says whether PostgreSQL may have forgotten that a mailbox was made, and have given its ID out again.
func (c *checker) forgetful() bool {
	return slices.ContainsFunc(c.run.Failovers, func(f Failover) bool { return f.Lossy })
}

// deliveries finds out which messages were delivered: an acknowledged delivery is there, and once, however often it was tried.
func (c *checker) deliveries() {
	arrived := make(map[string][]place)
	for p, id := range c.ids {
		if _, known := c.made[p]; !known && !c.lost(p) && strings.HasPrefix(id, deliveredMail) {
			arrived[id] = append(arrived[id], p)
		}
	}
	copies := make(map[origin]int) // in doubt, which make the same
	for i := range c.run.Ops {
		o := &c.run.Ops[i]
		if o.Result == InDoubt && (o.Name == "UID COPY" || o.Name == "UID MOVE") {
			for _, uid := range o.UIDs {
				copies[origin{o.To, c.ids[place{o.Mailbox, uid}]}]++
			}
		}
	}
	for i := range c.run.Ops {
		o := &c.run.Ops[i]
		if o.Name != "LMTP" {
			continue
		}
		places := slices.DeleteFunc(arrived[o.ID], func(p place) bool { return p.mailbox != o.To })
		switch {
		case o.Result == NO:
			c.add(Violation{Rule: NothingLost, Text: fmt.Sprintf("the delivery of %s was refused for good: %s", o.ID, o.Answer), At: o.End, ID: o.ID})
		case o.Result != OK || len(c.run.States) == 0:
		case c.lossy(o):
			c.unplaced[origin{o.To, o.ID}]++
		case len(places) == 0:
			c.add(Violation{Rule: NothingLost, Text: fmt.Sprintf("%s, which node %d took at %.3f, is nowhere in %s and never was", o.ID, o.Node, o.End.Seconds(), o.To), At: o.End, ID: o.ID, Mailbox: o.To})
		case len(places) == 1:
			c.makes(places[0], o.ID, o)
		case len(places) <= 1+copies[origin{o.To, o.ID}]:
			c.unplaced[origin{o.To, o.ID}]++ // one of them
		default:
			c.add(Violation{Rule: Once, Text: fmt.Sprintf("%s was delivered once, and is %v", o.ID, places), At: o.End, ID: o.ID, Mailbox: o.To, UID: places[0].uid})
		}
	}
}
