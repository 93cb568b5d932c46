package chaos

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Result is what a client knows of a command that it sent.
type Result int

// The results. A command in doubt may have happened or not, now or later: its connection broke before the answer
// came, or the answer was that the server cannot know.
const (
	InDoubt Result = iota
	OK
	NO // it did not happen
	// Lost was acknowledged, and PostgreSQL itself lost it in a failover to a standby that lagged. Only the checker knows.
	Lost
)

func (r Result) String() string { return [...]string{"in doubt", "OK", "NO", "lost"}[r] }

// ToldKind is a kind of untagged response.
type ToldKind int

// The untagged responses that say something of the messages of the selected mailbox.
const (
	Exists ToldKind = iota
	Expunge
	Vanished
	Fetched
)

// Told is an untagged response.
type Told struct {
	Kind    ToldKind
	Num     uint32   // EXISTS: how many; EXPUNGE, FETCH: the sequence number
	UIDs    []uint32 // VANISHED
	Earlier bool     // VANISHED (EARLIER)
	UID     uint32   // FETCH, from here on; 0: not said
	ModSeq  uint64   // 0: not said
	Flags   []string // lower case, sorted; nil: not said
	ID      string   // of the message, by its subject; "": not said
	Corrupt bool     // the body was read, and is not the one that was appended under that ID
}

func (t Told) String() string {
	switch t.Kind {
	case Exists:
		return fmt.Sprintf("%d EXISTS", t.Num)
	case Expunge:
		return fmt.Sprintf("%d EXPUNGE", t.Num)
	case Vanished:
		if t.Earlier {
			return fmt.Sprintf("VANISHED (EARLIER) %v", t.UIDs)
		}
		return fmt.Sprintf("VANISHED %v", t.UIDs)
	}
	s := fmt.Sprintf("%d FETCH (UID %d MODSEQ %d", t.Num, t.UID, t.ModSeq)
	if t.Flags != nil {
		s += fmt.Sprintf(" FLAGS %v", t.Flags)
	}
	if t.ID != "" {
		s += " ID " + t.ID
	}
	if t.Corrupt {
		s += " CORRUPT"
	}
	return s + ")"
}

// Op is a command that a client sent, and what it was told until that was answered.
type Op struct {
	Client, Conn, Node int // Conn is unique in a run
	Name               string
	Mailbox            string   // that is selected
	To                 string   // of APPEND, COPY and MOVE; empty: Mailbox
	UIDs               []uint32 // named by the client
	ID                 string   // of what is appended
	Space              string   // of names of mailboxes that only this client changes
	Renamed            string   // RENAME: what To is called then
	Flag               string   // STORE: set or taken away
	Add                bool
	Quiet              bool // NOOP, IDLE: nothing changes any more, and time enough was given

	Start, End time.Duration // since the begin of the run; End is that of the answer, or of the connection
	Result     Result
	Answer     string // the text of it

	UIDValidity, UIDNext uint32   // SELECT, APPEND, COPY and MOVE, as far as they say so
	HighestModSeq        uint64   // SELECT
	Known                uint64   // HIGHESTMODSEQ of other commands: up to where the client was told all
	From, Made           []uint32 // UIDs of COPYUID; of APPENDUID in Made
	MailboxID            string   // CREATE, SELECT

	// Resumes is the connection whose knowledge of the mailbox the client took along to this SELECT; 0: none. Since is the modseq
	// up to which it was told all there. Takes: it took the list of messages too, to be told what vanished. Whole: without saying
	// which it knows, so that it is told of all that came.
	Resumes      int
	Since        uint64
	Takes, Whole bool

	Told   []Told
	Found  *Found  // UID SEARCH
	Counts []Count // STATUS and LIST
}

// Found is what a search found.
type Found struct {
	Subject         string // that was searched for; empty: all
	UIDs            []uint32
	Min, Max, Count uint32
	After           int // how many responses of Told came before it
}

// Count is what STATUS says of a mailbox.
type Count struct {
	Mailbox, ID                                  string
	Messages, Unseen, Deleted, UIDValidity, Next uint32
	Size                                         int64
	ModSeq                                       uint64
}

func (c Count) String() string {
	return fmt.Sprintf("%s (%s, UIDVALIDITY %d, UIDNEXT %d, HIGHESTMODSEQ %d): %d messages, %d unseen, %d deleted, %d octets",
		c.Mailbox, c.ID, c.UIDValidity, c.Next, c.ModSeq, c.Messages, c.Unseen, c.Deleted, c.Size)
}

func (o *Op) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%9.3f–%9.3f client %d conn %d node %d: %s %s", o.Start.Seconds(), o.End.Seconds(), o.Client, o.Conn, o.Node, o.Name, o.Mailbox)
	if o.UIDs != nil {
		fmt.Fprintf(&b, " %v", o.UIDs)
	}
	for _, word := range []string{o.ID, o.To, o.Renamed} {
		if word != "" {
			b.WriteString(" " + word)
		}
	}
	if o.Flag != "" {
		sign := "-"
		if o.Add {
			sign = "+"
		}
		b.WriteString(" " + sign + o.Flag)
	}
	if o.Resumes != 0 {
		fmt.Fprintf(&b, " as conn %d knew it at modseq %d", o.Resumes, o.Since)
	}
	fmt.Fprintf(&b, " → %v %s", o.Result, o.Answer)
	if o.Found != nil {
		fmt.Fprintf(&b, " found %v of %q", o.Found.UIDs, o.Found.Subject)
	}
	for _, c := range o.Counts {
		fmt.Fprintf(&b, "\n%24s%v", "", c)
	}
	for i, t := range o.Told {
		if i == 12 {
			fmt.Fprintf(&b, "\n%24s… %d more", "", len(o.Told)-i)
			break
		}
		fmt.Fprintf(&b, "\n%24s%v", "", t)
	}
	return b.String()
}

// Mail is a message as it is found in the end.
type Mail struct {
	UID     uint32
	ModSeq  uint64
	ID      string
	Flags   []string // lower case, sorted
	Size    int64
	Corrupt bool
}

// Box is a mailbox as it is found in the end: what SELECT and STATUS say of it, and its messages by UID.
type Box struct {
	ID                        string // MAILBOXID; empty: not asked for
	UIDValidity, UIDNext      uint32
	HighestModSeq             uint64
	Messages, Unseen, Deleted uint32
	Size                      int64
	Mails                     []Mail
}

// State is all mailboxes, by name, as one node shows them in the end.
type State struct {
	Node  int
	Boxes map[string]Box
}

// Run is all that is known of a run.
type Run struct {
	Ops    []Op // those of a connection in their order
	States []State
	// Failovers are the changes of PostgreSQL's primary, in their order.
	Failovers []Failover
	// Bytes and Messages are what the account is said to use.
	Bytes, Messages int64
	// Missing are the messages whose objects are not there, whether clients see them or not.
	Missing []string
	// Left are the objects that no message names when the collector has nothing more to do.
	Left []string
	// Unsound is what starling check found, if it did not find all well.
	Unsound string
}

// Excerpt is the part of the history that a violation is about, to be read.
func (r *Run) Excerpt(v Violation) string {
	if v == (Violation{Rule: v.Rule, Text: v.Text}) {
		return "" // it is about nothing that a client did
	}
	const most, around = 60, 2 * time.Second
	var about []*Op
	before := 0 // the connection whose knowledge was taken along
	for i := range r.Ops {
		if o := &r.Ops[i]; v.Conn != 0 && o.Conn == v.Conn {
			before = max(before, o.Resumes)
		}
	}
	for i := range r.Ops {
		o := &r.Ops[i]
		near := o.End >= v.At-around && o.Start <= v.At+around
		switch {
		case v.UID != 0 && v.Mailbox != "" && o.about(v.Mailbox, v.UID), v.ID != "" && o.ID == v.ID:
		case v.Conn != 0 && o.Conn == v.Conn && near:
		case before != 0 && o.Conn == before:
		case v.UID == 0 && v.ID == "" && v.Conn == 0 && near && (v.Mailbox == "" || o.Mailbox == v.Mailbox || o.To == v.Mailbox):
		default:
			continue
		}
		about = append(about, o)
	}
	slices.SortFunc(about, func(a, b *Op) int { return int(a.Start - b.Start) })
	var b strings.Builder
	if len(about) > most {
		fmt.Fprintf(&b, "… %d more\n", len(about)-most)
		about = about[len(about)-most:]
	}
	for _, o := range about {
		shown := *o
		if v.UID != 0 && o.Conn != v.Conn {
			shown.Told = slices.DeleteFunc(slices.Clone(o.Told), func(t Told) bool { return !t.about(v.UID) })
		}
		b.WriteString(shown.String() + "\n")
	}
	return b.String()
}

func (t *Told) about(uid uint32) bool { return t.UID == uid || slices.Contains(t.UIDs, uid) }

// target is the mailbox in which something is made.
func (o *Op) target() string { return cmp.Or(o.To, o.Mailbox) }

// about says whether an operation made, changed or first told of a message.
func (o *Op) about(mailbox string, uid uint32) bool {
	if o.Mailbox == mailbox && slices.Contains(o.UIDs, uid) || o.target() == mailbox && slices.Contains(o.Made, uid) {
		return true
	}
	return o.Mailbox == mailbox && slices.ContainsFunc(o.Told, func(t Told) bool { return t.about(uid) })
}
