package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// The account of a run and the mailboxes that all clients share.
const password = "correct horse"

func boxes() []string { return []string{"INBOX", "Archive", "Sent"} }

// commandTime is how long a client waits for an answer before it gives its connection up.
const commandTime = 10 * time.Second

// newsItems are what a client asks of messages that it does not know yet.
const newsItems = "(UID MODSEQ FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])"

// client changes the shared mailboxes, now by this node, now by that, and writes down what comes of it.
type client struct {
	no      int
	user    string
	nodes   []string // addresses for clients
	random  *rand.Rand
	conns   *atomic.Int64 // numbers connections
	begin   time.Time
	next    int
	qresync bool
	idler   bool // it only waits in IDLE
	late    bool // it is not there for the last changes, and comes back after them

	wire    *wire
	conn    int
	node    int
	mailbox string
	uids    []uint32          // as the client understands what it is told; 0: not known
	ids     map[uint32]string // of those
	valid   uint32            // UIDVALIDITY
	modseq  uint64            // up to which the client was told all
	exists  int               // as said last
	slice   string            // what a slice of a body has to be
	ops     []Op
	refused int // connections and logins that failed
}

func (c *client) now() time.Duration { return time.Since(c.begin) }

// connect opens a connection to a node and selects a mailbox. An error is that of a node that is not well.
func (c *client) connect(node int, mailbox string) error {
	w, err := dial(c.nodes[node], commandTime)
	if err != nil {
		return err
	}
	commands := []string{fmt.Sprintf("LOGIN %q %q", c.user, password), "ENABLE CONDSTORE"}
	if c.qresync {
		commands[1] = "ENABLE QRESYNC"
	}
	for _, command := range commands {
		answer, err := "", w.send(command)
		if err == nil {
			answer, err = w.finish(func(response) {})
		}
		if err == nil && !strings.HasPrefix(answer, "OK") {
			err = errors.New(answer)
		}
		if err != nil {
			_ = w.conn.Close() // it is given up
			return err
		}
	}
	c.wire, c.node, c.conn = w, node, int(c.conns.Add(1))
	if mailbox == "" {
		return nil
	}
	return c.choose(mailbox)
}

func (c *client) choose(mailbox string) error {
	c.mailbox, c.uids, c.ids, c.exists, c.valid, c.modseq = mailbox, nil, make(map[uint32]string), 0, 0, 0
	o := c.do(Op{Name: "SELECT"}, "SELECT "+mailbox)
	if o.Result == OK {
		return c.news()
	}
	c.drop()
	return fmt.Errorf("select %s: %v %s", mailbox, o.Result, o.Answer)
}

// drop gives the connection up.
func (c *client) drop() {
	if c.wire != nil {
		_ = c.wire.conn.Close() // it is given up
		c.wire = nil
	}
}

// do sends a command, reads its answer, and writes both down. The connection is gone afterwards if it broke.
func (c *client) do(o Op, text string) *Op {
	o.Client, o.Conn, o.Node, o.Mailbox, o.Start = c.no, c.conn, c.node+1, c.mailbox, c.now()
	_ = c.wire.conn.SetDeadline(time.Now().Add(commandTime)) // the next read tells
	err := c.wire.send(text)
	if err == nil {
		o.Answer, err = c.wire.finish(func(r response) { c.take(&o, r) })
	}
	return c.record(o, err)
}

func (c *client) record(o Op, err error) *Op {
	o.End = c.now()
	if err != nil {
		o.Answer = err.Error()
		c.drop()
	} else {
		o.note(o.Answer)
		o.Result = result(o.Answer)
		c.learn(&o)
	}
	c.ops = append(c.ops, o)
	return &c.ops[len(c.ops)-1]
}

// learn notes up to which modseq the client was told all: by HIGHESTMODSEQ, or else by what a command that was answered told
// (RFC 7162 §3.2.5).
func (c *client) learn(o *Op) {
	if o.Result != OK {
		return
	}
	if o.Name == "SELECT" {
		c.valid, c.modseq = o.UIDValidity, o.HighestModSeq
	}
	for _, t := range o.Told {
		c.modseq = max(c.modseq, t.ModSeq)
	}
	if o.Known != 0 {
		c.modseq = o.Known
	}
}

// take takes an untagged response in, as a client does.
func (c *client) take(o *Op, r response) {
	t, _, ok := parse(r)
	if !ok {
		o.note(r.line) // MOVE tells its COPYUID so, too
		if f := o.Found; f != nil && esearch.MatchString(r.line) {
			f.After = len(o.Told)
			c.uids = f.all(c.uids)
		}
		return
	}
	if c.slice != "" && t.Kind == Fetched && len(r.literals) == 1 {
		t.Corrupt = r.literals[0] != c.slice
	}
	o.Told = append(o.Told, t)
	switch t.Kind {
	case Exists:
		c.exists = int(t.Num)
		c.fill()
	case Expunge:
		if i := int(t.Num) - 1; i >= 0 && i < len(c.uids) {
			c.uids = slices.Delete(c.uids, i, i+1)
		}
	case Vanished:
		for _, uid := range t.UIDs {
			i := slotOf(c.uids, uid)
			if t.Earlier { // it may not have known it
				i = slices.Index(c.uids, uid)
			}
			if i >= 0 {
				c.uids = slices.Delete(c.uids, i, i+1)
			}
		}
		if t.Earlier {
			c.fill() // EXISTS came before it
		}
	case Fetched:
		if i := int(t.Num) - 1; i >= 0 && i < len(c.uids) && t.UID != 0 {
			c.uids[i] = t.UID
		}
		if t.ID != "" {
			c.ids[t.UID] = t.ID
		}
	}
}

// fill makes the list of UIDs as long as EXISTS said that it is.
func (c *client) fill() {
	for len(c.uids) < c.exists {
		c.uids = append(c.uids, 0)
	}
}

// news asks for what the client does not know of the messages that it was told of.
func (c *client) news() error {
	for c.wire != nil {
		i := slices.IndexFunc(c.uids, func(uid uint32) bool { return uid == 0 || c.ids[uid] == "" })
		if i < 0 {
			return nil
		}
		if o := c.do(Op{Name: "FETCH"}, fmt.Sprintf("FETCH %d:* %s", i+1, newsItems)); o.Result != OK {
			if c.wire == nil {
				break
			}
			return errors.New(o.Answer)
		}
	}
	return errors.New("the connection is gone")
}

// some are one to three messages of those that the client knows.
func (c *client) some() []uint32 {
	var known []uint32
	for _, uid := range c.uids {
		if uid != 0 && c.ids[uid] != "" {
			known = append(known, uid)
		}
	}
	c.random.Shuffle(len(known), func(i, j int) { known[i], known[j] = known[j], known[i] })
	known = known[:min(len(known), 1+c.random.IntN(3))]
	slices.Sort(known)
	return known
}

// run works until ctx ends. It ends with its connection open or not, between two commands.
func (c *client) run(ctx context.Context) {
	for ctx.Err() == nil {
		if c.wire == nil {
			if err := c.come(); err != nil {
				c.refused++
				pause(ctx, 50*time.Millisecond)
			}
			continue
		}
		c.step(ctx)
		if n := len(c.ops); c.wire != nil && n > 0 && c.ops[n-1].Result == InDoubt {
			pause(ctx, 20*time.Millisecond) // the node lacks something, and says so at once
		}
	}
	if c.late {
		c.drop()
	}
}

// come connects to any node: anew, or with what it knows of a mailbox.
func (c *client) come() error {
	node := c.random.IntN(len(c.nodes))
	if c.mailbox != "" && c.random.IntN(2) == 0 {
		return c.resync(node, false)
	}
	return c.connect(node, boxes()[c.random.IntN(len(boxes()))])
}

// pause waits, at most so long.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// step sends one command, and often asks for news after it.
func (c *client) step(ctx context.Context) {
	if c.idler {
		c.idle(ctx, time.Duration(c.random.IntN(3000))*time.Millisecond, nil)
		return
	}
	uids, other := c.some(), boxes()[c.random.IntN(len(boxes()))]
	what := c.random.IntN(114)
	if len(uids) == 0 && what >= 25 && what < 80 {
		what = 0
	}
	// Mailboxes neither grow without end nor become empty.
	if len(c.uids) > 60 && what < 25 {
		what = 60
	}
	switch {
	case what < 25:
		c.append(other, []string{"", `\Seen`}[c.random.IntN(2)])
	case what < 40:
		flag, add := ownFlag(c.no), c.random.IntN(2) == 0
		if c.random.IntN(3) == 0 {
			flag = `\seen`
		}
		c.store(uids, flag, add)
	case what < 50 && other != c.mailbox:
		c.do(Op{Name: "UID COPY", To: other, UIDs: uids}, "UID COPY "+setText(uids)+" "+other)
	case what < 60 && other != c.mailbox:
		c.do(Op{Name: "UID MOVE", To: other, UIDs: uids}, "UID MOVE "+setText(uids)+" "+other)
	case what < 70:
		if c.store(uids, `\deleted`, true); c.wire != nil {
			c.do(Op{Name: "UID EXPUNGE", UIDs: uids}, "UID EXPUNGE "+setText(uids))
		}
	case what < 80:
		c.do(Op{Name: "UID FETCH"}, "UID FETCH "+setText(uids)+" (UID MODSEQ FLAGS RFC822.SIZE BODY.PEEK[])")
	case what < 90:
		c.idle(ctx, time.Duration(c.random.IntN(800))*time.Millisecond, nil)
	case what < 94:
		_ = c.choose(other) // what fails is written down
	case what < 98:
		c.search()
	case what < 101:
		c.status(other)
	case what < 104:
		c.list()
	case what < 108:
		c.slices()
	case what < 114:
		if err := c.resync(c.random.IntN(len(c.nodes)), false); err != nil {
			c.refused++
		}
	}
	if c.wire != nil && c.random.IntN(2) == 0 {
		c.sync(false)
	}
}

// append appends a message of its own.
func (c *client) append(mailbox, flags string) {
	c.next++
	o := Op{Name: "APPEND", To: mailbox, ID: fmt.Sprintf("%d-%d.", c.no, c.next)}
	if c.random.IntN(30) == 0 {
		o.ID = bigMail + o.ID
	}
	c.do(o, fmt.Sprintf("APPEND %s (%s) %s", mailbox, flags, literal(mail(o.ID))))
}

func (c *client) store(uids []uint32, flag string, add bool) {
	sign := "-"
	if add {
		sign = "+"
	}
	c.do(Op{Name: "UID STORE", UIDs: uids, Flag: flag, Add: add}, fmt.Sprintf("UID STORE %s %sFLAGS (%s)", setText(uids), sign, flag))
}

// sync asks for news and reads them.
func (c *client) sync(quiet bool) {
	if o := c.do(Op{Name: "NOOP", Quiet: quiet}, "NOOP"); o.Result == OK {
		_ = c.news() // what fails is written down
	}
}

// idle waits for news, so long, or until it has heard all that it waits for; what it has not heard then is held against
// the server.
func (c *client) idle(ctx context.Context, d time.Duration, heard func() bool) {
	o := Op{Name: "IDLE", Quiet: heard != nil, Mailbox: c.mailbox, Client: c.no, Conn: c.conn, Node: c.node + 1, Start: c.now()}
	_ = c.wire.conn.SetDeadline(time.Now().Add(commandTime)) // the next read tells
	err, refused := c.wire.send("IDLE"), false
	for end := time.Now().Add(d); err == nil && !refused && time.Now().Before(end) && ctx.Err() == nil && (heard == nil || !heard()); {
		var some bool
		wait := time.Until(end)
		if heard != nil {
			wait = min(wait, 50*time.Millisecond) // what it waits for comes from elsewhere, too
		}
		if some, err = c.wire.await(wait); err != nil || !some {
			continue
		}
		var r response
		_ = c.wire.conn.SetDeadline(time.Now().Add(commandTime)) // the next read tells
		if r, err = c.wire.next(); err != nil || strings.HasPrefix(r.line, "+") {
			continue
		}
		if o.Answer, refused = c.wire.answer(r); !refused {
			c.take(&o, r)
		}
	}
	if err == nil && !refused {
		_ = c.wire.conn.SetDeadline(time.Now().Add(commandTime)) // the next read tells
		if _, err = fmt.Fprint(c.wire.conn, "DONE\r\n"); err == nil {
			o.Answer, err = c.wire.finish(func(r response) {
				if !strings.HasPrefix(r.line, "+") {
					c.take(&o, r)
				}
			})
		}
	}
	c.record(o, err)
	if c.wire != nil && heard == nil {
		_ = c.news() // what fails is written down
	}
}
