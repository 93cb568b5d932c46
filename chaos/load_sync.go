package chaos

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// countItems are what STATUS is asked for.
const countItems = "(MESSAGES UNSEEN DELETED SIZE UIDNEXT UIDVALIDITY HIGHESTMODSEQ MAILBOXID)"

// resync gives the connection up and selects the mailbox on a new one, with what the client knows of it, as one does that
// comes back: by QRESYNC, or by CONDSTORE and a list of all UIDs (RFC 7162 §6). What it is not told then it never hears.
func (c *client) resync(node int, quiet bool) error {
	before, mailbox, uids, ids := c.conn, cmp.Or(c.mailbox, boxes()[0]), slices.Clone(c.uids), c.ids
	valid, modseq := c.valid, c.modseq
	c.drop()
	if slices.Contains(uids, 0) || valid == 0 || modseq == 0 {
		return c.connect(node, mailbox) // it does not know enough
	}
	if err := c.connect(node, ""); err != nil {
		return err
	}
	c.mailbox, c.exists = mailbox, 0
	o, text := Op{Name: "SELECT", Resumes: before, Since: modseq, Quiet: quiet && c.qresync}, "SELECT "+mailbox+" (CONDSTORE)"
	if c.qresync {
		o.Takes, o.Whole = true, c.random.IntN(3) > 0 || len(uids) == 0
		text = fmt.Sprintf("SELECT %s (QRESYNC (%d %d))", mailbox, valid, modseq)
		if !o.Whole {
			text = fmt.Sprintf("SELECT %s (QRESYNC (%d %d %s))", mailbox, valid, modseq, setText(uids))
		}
		c.uids, c.ids = slices.Clone(uids), ids
	} else {
		c.uids, c.ids = nil, ids
	}
	done := c.do(o, text)
	if done.Result != OK {
		c.drop()
		return fmt.Errorf("select %s again: %v %s", mailbox, done.Result, done.Answer)
	}
	if c.qresync {
		c.uids = back(uids, done.Told)
		c.fill()
	}
	if !c.qresync || len(c.uids) > 0 && c.uids[len(c.uids)-1] == 0 {
		c.do(Op{Name: "UID SEARCH", Found: &Found{}}, "UID SEARCH RETURN (ALL COUNT MIN MAX) ALL")
		if c.wire != nil && !c.qresync {
			c.do(Op{Name: "UID FETCH"}, fmt.Sprintf("UID FETCH 1:* (UID FLAGS) (CHANGEDSINCE %d)", modseq))
		}
	}
	if c.wire == nil {
		return nil // what failed is written down
	}
	if quiet {
		c.do(Op{Name: "NOOP", Quiet: true}, "NOOP") // what it knows now is held against the others', before it asks for more
	}
	return c.news()
}

// back is the list of a client that knew these UIDs and comes back. What it is told of need not be new: an expunge
// that PostgreSQL lost brings a message back to its place.
func back(uids []uint32, told []Told) []uint32 {
	uids = slices.Clone(uids)
	for _, t := range told {
		if t.Earlier {
			uids = slices.DeleteFunc(uids, func(uid uint32) bool { return slices.Contains(t.UIDs, uid) })
		}
	}
	for _, t := range told {
		if t.Kind == Fetched && t.UID != 0 && !slices.Contains(uids, t.UID) {
			uids = append(uids, t.UID)
		}
	}
	slices.Sort(uids)
	return uids
}

// all is the list of UIDs after a search, as far as it says which there are.
func (f *Found) all(uids []uint32) []uint32 {
	if f.Subject == "" && len(f.UIDs) == len(uids) {
		return slices.Clone(f.UIDs)
	}
	return uids
}

// search asks for all messages, or for one by its subject.
func (c *client) search() {
	o, text := Op{Name: "UID SEARCH", Found: &Found{}}, "UID SEARCH RETURN (ALL COUNT MIN MAX) ALL"
	if uids := c.some(); len(uids) > 0 && c.random.IntN(2) == 0 {
		_, number, _ := strings.Cut(c.ids[uids[0]], "-")
		o.Found.Subject = "-" + number // of several clients
		text = fmt.Sprintf("UID SEARCH RETURN (ALL COUNT MIN MAX) SUBJECT %q", o.Found.Subject)
	}
	c.do(o, text)
}

// status asks for the counters of a mailbox.
func (c *client) status(mailbox string) {
	c.do(Op{Name: "STATUS"}, "STATUS "+mailbox+" "+countItems)
}

// list asks for all mailboxes and their counters.
func (c *client) list() {
	c.do(Op{Name: "LIST"}, `LIST "" "*" RETURN (STATUS `+countItems+`)`)
}

// slices reads a few slices of the largest message that it knows, one after the other, as a telephone does.
func (c *client) slices() {
	var uid uint32
	for _, known := range c.uids {
		id := c.ids[known]
		if known != 0 && id != "" && !strings.HasPrefix(id, deliveredMail) && (uid == 0 || strings.HasPrefix(id, bigMail)) {
			uid = known
		}
	}
	if uid == 0 {
		return
	}
	text := mail(c.ids[uid])
	size := 1 + c.random.IntN(min(len(text), 50_000))
	defer func() { c.slice = "" }()
	for at := c.random.IntN(len(text)); at < len(text) && c.wire != nil && c.random.IntN(5) > 0; at += size {
		c.slice = text[at:min(at+size, len(text))]
		c.do(Op{Name: "UID FETCH", UIDs: []uint32{uid}}, fmt.Sprintf("UID FETCH %d (UID BODY.PEEK[]<%d.%d>)", uid, at, size))
	}
}
