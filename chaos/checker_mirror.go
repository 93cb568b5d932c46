package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// newView is what a client knows when it selects a mailbox: nothing, or what it took along from a connection before.
func (c *checker) newView(o *Op, before *view) *view {
	v := &view{mailbox: o.Mailbox, modseqs: make(map[uint32]uint64), flags: make(map[uint32][]string), gone: make(map[uint32]bool), since: -1}
	if o.Resumes == 0 || before == nil {
		return v
	}
	v.flags, v.modseqs, v.gone = maps.Clone(before.flags), maps.Clone(before.modseqs), maps.Clone(before.gone)
	if o.Takes {
		v.uids = slices.Clone(before.uids)
	}
	var over []Kept // that lie between what it knows and what it is told now
	for _, f := range c.run.Failovers {
		if k, ok := f.Boxes[o.Mailbox]; ok && o.Since < k.next() && k.next() <= o.HighestModSeq {
			over = append(over, k)
		}
	}
	if len(over) > 0 {
		v.over(over, o)
	}
	return v
}

// over takes a client that comes back over failovers.
//
// Where the modseq that it names was lost, the server knows that, and tells it all that there is: nothing is forgiven, but that messages
// are there again which it knew as expunged. Where it was told of the lost future only by commands that were never answered, which its
// modseq does not show, the server cannot know what became undone: an expunge, or a change of flags, is as if it had not been told. But
// numbers that nobody has, it is always told of.
func (v *view) over(all []Kept, o *Op) {
	named := slices.ContainsFunc(all, func(k Kept) bool { return k.lostModSeq(o.Since) })
	for _, k := range all {
		for uid := range v.gone {
			if _, live := k.Flags[uid]; live {
				delete(v.gone, uid)
				if o.Takes && o.Whole && !named {
					v.uids = append(v.uids, uid)
				}
			}
		}
		for uid, modseq := range v.modseqs {
			if k.lostModSeq(modseq) {
				delete(v.modseqs, uid)
				if !named {
					delete(v.flags, uid)
				}
			}
		}
	}
	slices.Sort(v.uids)
	if !o.Takes || o.Whole && !named {
		return
	}
	v.uids = back(v.uids, o.Told) // what is there again stands amid the others
	for _, t := range o.Told {
		if t.Kind == Exists && !o.Whole && int(t.Num) > len(v.uids) {
			v.uids = make([]uint32, t.Num) // it asked only about those that it knew; where the others stand is to be seen
		}
	}
}

// half takes in what was told to a client that comes back until the answer broke off: messages, and that some are gone, but not how many
// there are.
func (v *view) half(o *Op) {
	for _, t := range o.Told {
		if t.Earlier {
			v.told(o, t)
		}
	}
	v.uids = back(v.uids, o.Told)
}

// inOrder are the responses to a command as a client takes them in: where it comes back, what vanished goes before what is there.
func (v *view) inOrder(o *Op) []Told {
	if o.Resumes == 0 || o.Name != "SELECT" {
		return o.Told
	}
	told := slices.Clone(o.Told)
	slices.SortStableFunc(told, func(a, b Told) int {
		switch {
		case a.Earlier == b.Earlier:
			return 0
		case a.Earlier:
			return -1
		}
		return 1
	})
	return told
}

// resumed checks that a client that came back was told of all that came meanwhile.
func (c *checker) resumed(v *view, o *Op) {
	if o.Name != "SELECT" || !o.Whole || v.whole() {
		return
	}
	c.add(Violation{
		Rule: SameForAll, Text: fmt.Sprintf("client %d on node %d came back to %s and was not told of all new messages: it has %v", o.Client, o.Node, v.mailbox, v.uids),
		At: o.End, Conn: o.Conn, Mailbox: v.mailbox,
	})
}

// searched checks what a search found: all that the client knew before and after it, and nothing else.
func (c *checker) searched(v *view, before []uint32, o *Op) {
	f := o.Found
	if f == nil {
		return
	}
	wrong := func(format string, args ...any) { c.wrongSearch(v, o, fmt.Sprintf(format, args...)) }
	if int(f.Count) != len(f.UIDs) || len(f.UIDs) > 0 && (f.Min != slices.Min(f.UIDs) || f.Max != slices.Max(f.UIDs)) {
		wrong("COUNT %d, MIN %d, MAX %d, ALL %v", f.Count, f.Min, f.Max, f.UIDs)
	}
	for _, uid := range v.uids {
		id := c.ids[place{v.mailbox, uid}]
		known := uid != 0 && slices.Contains(before, uid) && (f.Subject == "" || id != "")
		if has := slices.Contains(f.UIDs, uid); known && has != strings.Contains(id, f.Subject) && (has || !c.lostBy(place{v.mailbox, uid}, o.End)) {
			wrong("UID %d (%s) found: %v", uid, id, has)
		}
	}
	for _, uid := range f.UIDs {
		if slotOf(before, uid) < 0 && slotOf(v.uids, uid) < 0 {
			wrong("UID %d, of which the client was never told", uid)
		}
	}
}

func (c *checker) wrongSearch(v *view, o *Op, text string) {
	c.add(Violation{
		Rule: Searches, Text: fmt.Sprintf("client %d on node %d searched %s for %q: %s", o.Client, o.Node, v.mailbox, o.Found.Subject, text),
		At: o.End, Conn: o.Conn, Mailbox: v.mailbox,
	})
}

// lists takes in which messages a search for all says that there are, before what else it tells, and returns them.
func (c *checker) lists(v *view, o *Op) []uint32 {
	all := o.Found.all(v.uids)
	for i, uid := range all {
		if v.uids[i] != 0 && v.uids[i] != uid {
			c.wrongSearch(v, o, fmt.Sprintf("number %d is UID %d, was %d", i+1, uid, v.uids[i]))
		}
	}
	v.uids = slices.Clone(all)
	return all
}

// sameFlags checks that the flags that a client knows, when nothing changes any more, are those that are there.
func (c *checker) sameFlags(v *view, o *Op) {
	if len(c.run.States) == 0 {
		return
	}
	for _, m := range c.run.States[0].Boxes[v.mailbox].Mails {
		if flags, ok := v.flags[m.UID]; ok && !slices.Equal(flags, m.Flags) {
			c.add(Violation{
				Rule: SameForAll, Text: fmt.Sprintf("client %d on node %d knows %s %d with the flags %v, it has %v", o.Client, o.Node, v.mailbox, m.UID, flags, m.Flags),
				At: o.End, Conn: o.Conn, Mailbox: v.mailbox, UID: m.UID,
			})
		}
	}
}

// version is a message or a mailbox at a modseq.
type version struct {
	place
	modseq uint64
}

// versions checks that a modseq stands for one state: of a message's flags, and of a mailbox's counters.
func (c *checker) versions() {
	flags, counts := make(map[version][]string), make(map[version]Count)
	message := func(p place, modseq uint64, told []string, o *Op) {
		if p.uid == 0 || modseq == 0 || told == nil {
			return
		}
		at := version{p, modseq}
		if known, ok := flags[at]; ok && !slices.Equal(known, told) {
			c.add(Violation{Rule: OneState, Text: fmt.Sprintf("%v at modseq %d has the flags %v, and has %v", p, modseq, known, told), At: o.End, Mailbox: p.mailbox, UID: p.uid})
		}
		flags[at] = told
	}
	mailbox := func(n Count, o *Op) {
		if n.ID == "" || n.ModSeq == 0 || ownName(n.Mailbox) && c.forgetful() {
			return
		}
		at := version{place{mailbox: n.ID}, n.ModSeq}
		n.Mailbox = "" // it can be renamed
		if known, ok := counts[at]; ok && known != n {
			c.add(Violation{Rule: OneState, Text: fmt.Sprintf("STATUS says %v, and says %v", known, n), At: o.End, Conn: o.Conn})
		}
		counts[at] = n
	}
	for i := range c.run.Ops {
		o := &c.run.Ops[i]
		for _, t := range o.Told {
			if t.Kind == Fetched {
				message(place{o.Mailbox, t.UID}, t.ModSeq, t.Flags, o)
			}
		}
		for _, n := range o.Counts {
			mailbox(n, o)
		}
	}
	end := &Op{}
	for _, s := range c.run.States {
		for name, box := range s.Boxes {
			if box.ID != "" {
				mailbox(Count{name, box.ID, box.Messages, box.Unseen, box.Deleted, box.UIDValidity, box.UIDNext, box.Size, box.HighestModSeq}, end)
			}
			for _, m := range box.Mails {
				if !ownName(name) {
					message(place{name, m.UID}, m.ModSeq, m.Flags, end)
				}
			}
		}
	}
}
