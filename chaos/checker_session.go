package chaos

import (
	"fmt"
	"slices"
	"time"
)

// view is what a client knows of the mailbox that it selected, by all that it was told.
type view struct {
	mailbox string
	uids    []uint32 // by sequence number; 0: not said yet
	modseqs map[uint32]uint64
	flags   map[uint32][]string // as told last
	gone    map[uint32]bool
	since   time.Duration // start of the last NOOP, whose news are not compared yet; -1: none
	quiet   bool
}

func (v *view) whole() bool { return !slices.Contains(v.uids, 0) }

// sessions replays each connection, as its client understood it.
func (c *checker) sessions() {
	views := make(map[int]*view)
	for i := range c.run.Ops {
		o := &c.run.Ops[i]
		v := views[o.Conn]
		if v == nil || o.Name == "SELECT" {
			v = c.newView(o, views[o.Resumes])
			views[o.Conn] = v
		}
		if o.Resumes != 0 && o.Result != OK {
			v.half(o)
			continue
		}
		before := slices.Clone(v.uids)
		for i, t := range v.inOrder(o) {
			if o.Found != nil && i == o.Found.After {
				before = c.lists(v, o)
			}
			if wrong := v.told(o, t); wrong != "" {
				c.add(Violation{
					Rule: Sequence, Text: fmt.Sprintf("client %d on node %d, %s of %s at %.3f: %s", o.Client, o.Node, o.Name, v.mailbox, o.Start.Seconds(), wrong),
					At: o.End, Conn: o.Conn,
				})
			}
			if t.Kind == Fetched && t.UID != 0 && t.ModSeq != 0 {
				if before := v.modseqs[t.UID]; t.ModSeq < before {
					c.add(Violation{
						Rule: ModSeqOnce, Text: fmt.Sprintf("client %d was told modseq %d of %s %d after %d", o.Client, t.ModSeq, v.mailbox, t.UID, before),
						At: o.End, Conn: o.Conn, Mailbox: v.mailbox, UID: t.UID,
					})
				}
				v.modseqs[t.UID] = t.ModSeq
			}
		}
		if o.Result != OK {
			continue
		}
		if o.Found != nil && o.Found.After >= len(o.Told) {
			before = c.lists(v, o)
		}
		c.resumed(v, o)
		c.searched(v, before, o)
		if o.Name == "IDLE" && o.Quiet {
			c.hears(v, o)
		}
		if o.Name == "NOOP" || o.Name == "SELECT" {
			v.since, v.quiet = o.Start, o.Quiet
		}
		if v.since >= 0 && v.whole() {
			c.sees(v, o)
			v.since = -1
		}
	}
}

// told takes a response in, and returns what is wrong with it, or "".
func (v *view) told(o *Op, t Told) string {
	switch t.Kind {
	case Exists:
		if int(t.Num) < len(v.uids) {
			return fmt.Sprintf("%v, but there were %d", t, len(v.uids))
		}
		v.uids = append(v.uids, make([]uint32, int(t.Num)-len(v.uids))...)
	case Expunge:
		if o.Name == "FETCH" || o.Name == "STORE" || o.Name == "SEARCH" {
			return fmt.Sprintf("%v in answer to %s, which counts by sequence numbers", t, o.Name)
		}
		if t.Num == 0 || int(t.Num) > len(v.uids) {
			return fmt.Sprintf("%v of %d", t, len(v.uids))
		}
		v.gone[v.uids[t.Num-1]] = v.uids[t.Num-1] != 0
		delete(v.flags, v.uids[t.Num-1])
		v.uids = slices.Delete(v.uids, int(t.Num)-1, int(t.Num))
	case Vanished:
		if t.Earlier {
			for _, uid := range t.UIDs {
				if i := slices.Index(v.uids, uid); i >= 0 { // it need not have known it
					v.uids = slices.Delete(v.uids, i, i+1)
					v.gone[uid] = true
				}
				delete(v.flags, uid)
			}
			return ""
		}
		for _, uid := range t.UIDs {
			if wrong := v.vanished(uid); wrong != "" {
				return wrong
			}
		}
	case Fetched:
		return v.fetched(t)
	}
	return ""
}

func (v *view) vanished(uid uint32) string {
	if v.gone[uid] {
		return fmt.Sprintf("VANISHED %d again", uid)
	}
	i := slotOf(v.uids, uid)
	if i < 0 {
		return fmt.Sprintf("VANISHED %d, of which the client was never told", uid)
	}
	v.gone[uid] = true
	delete(v.flags, uid)
	v.uids = slices.Delete(v.uids, i, i+1)
	return ""
}

// slotOf is where a message stands in a list in which 0 is one whose UID was not said yet: at its UID, or else
// at a 0 between the lower and the higher ones, it does not matter which. -1: it cannot be in the list.
func slotOf(uids []uint32, uid uint32) int {
	slot := -1
	for i, u := range uids {
		switch {
		case u == uid:
			return i
		case u == 0:
			slot = i
		case u < uid:
			slot = -1
		default:
			return slot
		}
	}
	return slot
}

func (v *view) fetched(t Told) string {
	if t.Num == 0 || int(t.Num) > len(v.uids) {
		return fmt.Sprintf("%v of %d messages", t, len(v.uids))
	}
	if t.UID == 0 {
		return ""
	}
	if t.Flags != nil {
		v.flags[t.UID] = t.Flags
	}
	i := int(t.Num) - 1
	if known := v.uids[i]; known != 0 && known != t.UID {
		return fmt.Sprintf("%v, but number %d was UID %d", t, t.Num, known)
	}
	if v.gone[t.UID] {
		return fmt.Sprintf("%v, but that UID is gone", t)
	}
	v.uids[i] = t.UID
	for j := i - 1; j >= 0; j-- {
		if v.uids[j] != 0 {
			if v.uids[j] >= t.UID {
				return fmt.Sprintf("%v, but number %d is UID %d", t, j+1, v.uids[j])
			}
			break
		}
	}
	for j := i + 1; j < len(v.uids); j++ {
		if v.uids[j] != 0 {
			if v.uids[j] <= t.UID {
				return fmt.Sprintf("%v, but number %d is UID %d", t, j+1, v.uids[j])
			}
			break
		}
	}
	return ""
}

// sees compares what a client knows after a NOOP or SELECT with what was acknowledged before that was sent.
func (c *checker) sees(v *view, o *Op) {
	has := make(map[uint32]bool, len(v.uids))
	for _, uid := range v.uids {
		has[uid] = true
		p := place{v.mailbox, uid}
		for _, f := range c.run.Failovers {
			if f.Until < v.since && f.Boxes[p.mailbox].lostUID(uid) {
				c.add(Violation{
					Rule: LostFuture, Text: fmt.Sprintf("client %d on node %d still has %v at %.3f, which was lost in a failover at %.3f",
						o.Client, o.Node, p, o.End.Seconds(), f.Until.Seconds()),
					At: o.End, Conn: o.Conn, Mailbox: p.mailbox, UID: p.uid,
				})
			}
		}
		if by := c.removed[p]; by != nil && by.End < v.since {
			c.add(Violation{
				Rule: ReadsOK, Text: fmt.Sprintf("client %d on node %d still has %v at %.3f, which %s by client %d on node %d removed at %.3f",
					o.Client, o.Node, p, o.End.Seconds(), by.Name, by.Client, by.Node, by.End.Seconds()),
				At: o.End, Conn: o.Conn, Mailbox: p.mailbox, UID: p.uid,
			})
		}
	}
	for p, m := range c.made {
		if p.mailbox != v.mailbox || m.by.End >= v.since || has[p.uid] ||
			slices.ContainsFunc(c.attempts[p], func(a *Op) bool { return a.Start < o.End }) || c.wasGone(p, v.since, o) {
			continue
		}
		c.add(Violation{
			Rule: ReadsOK, Text: fmt.Sprintf("client %d on node %d has no %v at %.3f, which %s by client %d on node %d made at %.3f",
				o.Client, o.Node, p, o.End.Seconds(), m.by.Name, m.by.Client, m.by.Node, m.by.End.Seconds()),
			At: o.End, Conn: o.Conn, Mailbox: p.mailbox, UID: p.uid,
		})
	}
	if v.quiet {
		c.sameFlags(v, o)
	}
	if want, ok := c.final(v.mailbox); v.quiet && ok && !slices.Equal(v.uids, want) {
		c.add(Violation{
			Rule: SameForAll, Text: fmt.Sprintf("client %d on node %d knows %s as %v, node %d has %v", o.Client, o.Node, v.mailbox, v.uids, c.run.States[0].Node, want),
			At: o.End, Conn: o.Conn, Mailbox: v.mailbox,
		})
	}
}

// final are the messages of a mailbox in the end.
func (c *checker) final(mailbox string) ([]uint32, bool) {
	if len(c.run.States) == 0 {
		return nil, false
	}
	var uids []uint32
	for _, m := range c.run.States[0].Boxes[mailbox].Mails {
		uids = append(uids, m.UID)
	}
	return uids, true
}

// hears checks that a client in IDLE was told all, when nothing changed any more. It may not have asked for all UIDs yet.
func (c *checker) hears(v *view, o *Op) {
	c.sameFlags(v, o)
	if want, ok := c.final(v.mailbox); ok && !knows(v.uids, want) {
		c.add(Violation{
			Rule: SameForAll, Text: fmt.Sprintf("client %d on node %d was told in IDLE that %s is %v, it is %v", o.Client, o.Node, v.mailbox, v.uids, want),
			At: o.End, Conn: o.Conn, Mailbox: v.mailbox,
		})
	}
}
