package chaos

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The first letter of the ID of a message that is not a common one.
const (
	bigMail       = "b" // so long that it is read in slices
	deliveredMail = "d" // by LMTP, which puts a few lines before it
)

// isMail says whether a text is the message with an ID.
func isMail(text, id string) bool {
	if strings.HasPrefix(id, deliveredMail) {
		return strings.HasPrefix(text, "Return-Path: <") && strings.HasSuffix(text, "\r\n"+mail(id))
	}
	return text == mail(id)
}

// mail is the one message that has this ID: nearly all short, some long.
func mail(id string) string {
	var seed [32]byte
	copy(seed[:], id)
	random := rand.New(rand.NewChaCha8(seed)) //nolint:gosec // the same for the same ID
	var b strings.Builder
	fmt.Fprintf(&b, "From: client@example.org\r\nSubject: %s\r\n\r\n", id)
	lines := random.IntN(1 << random.IntN(12))
	if strings.HasPrefix(id, bigMail) {
		lines = 5_000 + random.IntN(10_000)
	}
	for range lines {
		fmt.Fprintf(&b, "%x %x %x\r\n", random.Uint64(), random.Uint64(), random.Uint64())
	}
	return b.String()
}

// wire is a connection to an IMAP server. It belongs to one goroutine.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
	tag  int
}

// response is a response of the server: its lines, with {n} where a literal follows, and the literals.
type response struct {
	line     string
	literals []string
}

func dial(address string, timeout time.Duration) (*wire, error) {
	conn, err := (&net.Dialer{Timeout: timeout}).DialContext(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	w := &wire{conn: conn, in: bufio.NewReader(conn)}
	_ = conn.SetDeadline(time.Now().Add(timeout)) // the next read tells
	greeting, err := w.next()
	if err == nil && !strings.HasPrefix(greeting.line, "* OK") {
		err = fmt.Errorf("the greeting is %q", greeting.line)
	}
	if err != nil {
		_ = conn.Close() // there is an error to tell already
		return nil, err
	}
	return w, nil
}

// send sends a command with the next tag.
func (w *wire) send(text string) error {
	w.tag++
	_, err := fmt.Fprintf(w.conn, "t%d %s\r\n", w.tag, text)
	return err
}

// finish reads until the last command is answered, and gives each what comes before. The answer is "OK …" and so on.
func (w *wire) finish(each func(response)) (string, error) {
	for {
		r, err := w.next()
		if err != nil {
			return "", err
		}
		if answer, ok := w.answer(r); ok {
			return answer, nil
		}
		each(r)
	}
}

// answer is what a response answers to the last command, if it is that.
func (w *wire) answer(r response) (string, bool) {
	return strings.CutPrefix(r.line, fmt.Sprintf("t%d ", w.tag))
}

// next reads a response.
func (w *wire) next() (response, error) {
	const most = 64 << 20
	var r response
	for {
		piece, err := w.in.ReadString('\n')
		if err != nil {
			return r, err
		}
		piece = strings.TrimRight(piece, "\r\n")
		r.line += piece
		open := strings.LastIndexByte(piece, '{')
		if open < 0 || !strings.HasSuffix(piece, "}") {
			return r, nil
		}
		size, err := strconv.Atoi(piece[open+1 : len(piece)-1])
		if err != nil {
			return r, nil //nolint:nilerr // a text in braces
		}
		if size > most {
			return r, fmt.Errorf("a literal of %d octets", size)
		}
		literal := make([]byte, size)
		if _, err := io.ReadFull(w.in, literal); err != nil {
			return r, err
		}
		r.literals = append(r.literals, string(literal))
	}
}

// await waits until something can be read, or time is up.
func (w *wire) await(d time.Duration) (bool, error) {
	if err := w.conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		return false, err
	}
	_, err := w.in.Peek(1)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return false, nil
	}
	return err == nil, err
}

var (
	numbered   = regexp.MustCompile(`^\* (\d+) (EXISTS|EXPUNGE|FETCH)\b`)
	vanishing  = regexp.MustCompile(`^\* VANISHED (\(EARLIER\) )?([0-9:,]+)$`)
	itemUID    = regexp.MustCompile(`\bUID (\d+)`)
	itemModSeq = regexp.MustCompile(`\bMODSEQ \((\d+)\)`)
	itemFlags  = regexp.MustCompile(`\bFLAGS \(([^)]*)\)`)
	itemSize   = regexp.MustCompile(`\bRFC822\.SIZE (\d+)`)
	itemBody   = regexp.MustCompile(`BODY\[([^]]*)\](<\d+>)? \{\d+\}`)
	mailboxID  = regexp.MustCompile(`\[MAILBOXID \(([^)]+)\)\]`)
	esearch    = regexp.MustCompile(`^\* ESEARCH \(TAG "t\d+"\) UID\b`)
	esearchHas = regexp.MustCompile(` (MIN|MAX|COUNT|ALL) ([0-9:,]+)`)
	statusOf   = regexp.MustCompile(`^\* STATUS "?([^" ]+)"? \(([^)]*\([^)]*\)[^)]*)\)$`)
	statusItem = regexp.MustCompile(`(\w+) \(?([\w-]+)\)?`)
	codes      = regexp.MustCompile(`\[(UIDVALIDITY|UIDNEXT|HIGHESTMODSEQ) (\d+)\]`)
	appendUID  = regexp.MustCompile(`\[APPENDUID (\d+) (\d+)\]`)
	copyUID    = regexp.MustCompile(`\[COPYUID (\d+) ([0-9:,]+) ([0-9:,]+)\]`)
)

func number(match []string, i int) uint64 {
	if match == nil {
		return 0
	}
	n, err := strconv.ParseUint(match[i], 10, 64)
	if err != nil {
		return 0 // it has digits only, too many of them
	}
	return n
}

// uidSet are the UIDs of a set without "*".
func uidSet(set string) []uint32 {
	var uids []uint32
	for part := range strings.SplitSeq(set, ",") {
		first, last, ranged := strings.Cut(part, ":")
		a, errA := strconv.ParseUint(first, 10, 32)
		b, errB := a, error(nil)
		if ranged {
			b, errB = strconv.ParseUint(last, 10, 32)
		}
		a, b = min(a, b), max(a, b)
		if errA != nil || errB != nil || b-a > 1<<20 {
			return nil
		}
		for ; a <= b; a++ {
			uids = append(uids, uint32(a)) //nolint:gosec // parsed as 32 bits
		}
	}
	return uids
}

func setText(uids []uint32) string {
	words := make([]string, len(uids))
	for i, uid := range uids {
		words[i] = strconv.FormatUint(uint64(uid), 10)
	}
	return strings.Join(words, ",")
}

// parse reads an untagged response, if it is one of those that are told; size is RFC822.SIZE.
func parse(r response) (t Told, size int64, ok bool) {
	if m := vanishing.FindStringSubmatch(r.line); m != nil {
		return Told{Kind: Vanished, UIDs: uidSet(m[2]), Earlier: m[1] != ""}, 0, true
	}
	m := numbered.FindStringSubmatch(r.line)
	if m == nil {
		return t, 0, false
	}
	t.Num = uint32(number(m, 1)) //nolint:gosec // IMAP's numbers have 32 bits
	switch m[2] {
	case "EXISTS":
		t.Kind = Exists
		return t, 0, true
	case "EXPUNGE":
		t.Kind = Expunge
		return t, 0, true
	}
	t.Kind = Fetched
	t.UID = uint32(number(itemUID.FindStringSubmatch(r.line), 1)) //nolint:gosec // as above
	t.ModSeq = number(itemModSeq.FindStringSubmatch(r.line), 1)
	if f := itemFlags.FindStringSubmatch(r.line); f != nil {
		t.Flags = slices.DeleteFunc(strings.Fields(strings.ToLower(f[1])), func(s string) bool { return s == `\recent` })
		slices.Sort(t.Flags)
	}
	size = int64(number(itemSize.FindStringSubmatch(r.line), 1)) //nolint:gosec // sizes have 63 bits
	for i, section := range itemBody.FindAllStringSubmatch(r.line, -1) {
		if i >= len(r.literals) {
			break
		}
		text := r.literals[i]
		if section[2] != "" {
			continue // who asked for a slice knows of what
		}
		_, rest, _ := strings.Cut(text, "Subject: ")
		id, _, found := strings.Cut(rest, "\r\n")
		t.ID = id
		t.Corrupt = t.Corrupt || !found || section[1] == "" && (!isMail(text, id) || size != 0 && size != int64(len(text)))
	}
	return t, size, true
}

// status is what a STATUS response says.
func status(line string) (Count, bool) {
	m := statusOf.FindStringSubmatch(line)
	if m == nil {
		return Count{}, false
	}
	c := Count{Mailbox: m[1]}
	for _, item := range statusItem.FindAllStringSubmatch(m[2], -1) {
		n := number(item, 2)
		switch item[1] {
		case "MESSAGES":
			c.Messages = uint32(n) //nolint:gosec // 32 bits, and so below
		case "UNSEEN":
			c.Unseen = uint32(n) //nolint:gosec // as above
		case "DELETED":
			c.Deleted = uint32(n) //nolint:gosec // as above
		case "UIDVALIDITY":
			c.UIDValidity = uint32(n) //nolint:gosec // as above
		case "UIDNEXT":
			c.Next = uint32(n) //nolint:gosec // as above
		case "SIZE":
			c.Size = int64(n) //nolint:gosec // sizes have 63 bits
		case "HIGHESTMODSEQ":
			c.ModSeq = n
		case "MAILBOXID":
			c.ID = item[2]
		}
	}
	return c, true
}

// note takes what an answer or an untagged OK says by codes into the operation.
func (o *Op) note(text string) {
	if m := codes.FindStringSubmatch(text); m != nil {
		switch m[1] {
		case "UIDVALIDITY":
			o.UIDValidity = uint32(number(m, 2)) //nolint:gosec // 32 bits
		case "UIDNEXT":
			o.UIDNext = uint32(number(m, 2)) //nolint:gosec // 32 bits
		case "HIGHESTMODSEQ":
			if o.Name == "SELECT" {
				o.HighestModSeq = number(m, 2)
			} else {
				o.Known = number(m, 2)
			}
		}
	}
	if m := mailboxID.FindStringSubmatch(text); m != nil {
		o.MailboxID = m[1]
	}
	if o.Found != nil && esearch.MatchString(text) {
		for _, m := range esearchHas.FindAllStringSubmatch(text, -1) {
			switch n := uint32(number(m, 2)); m[1] { //nolint:gosec // 32 bits
			case "MIN":
				o.Found.Min = n
			case "MAX":
				o.Found.Max = n
			case "COUNT":
				o.Found.Count = n
			case "ALL":
				o.Found.UIDs = uidSet(m[2])
			}
		}
	}
	if c, ok := status(text); ok {
		o.Counts = append(o.Counts, c)
	}
	if m := appendUID.FindStringSubmatch(text); m != nil {
		o.UIDValidity, o.Made = uint32(number(m, 1)), uidSet(m[2]) //nolint:gosec // 32 bits
	}
	if m := copyUID.FindStringSubmatch(text); m != nil {
		o.UIDValidity, o.From, o.Made = uint32(number(m, 1)), uidSet(m[2]), uidSet(m[3]) //nolint:gosec // 32 bits
	}
}

// result is what an answer says of what happened. NO [UNAVAILABLE] is said of a commit in doubt too.
func result(answer string) Result {
	switch {
	case strings.HasPrefix(answer, "OK"):
		return OK
	case strings.HasPrefix(answer, "NO") && !strings.Contains(answer, "[UNAVAILABLE]") && !strings.Contains(answer, "[SERVERBUG]"):
		return NO
	}
	return InDoubt
}

// literal is a command's argument that need not be waited for.
func literal(text string) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{%d+}\r\n%s", len(text), text)
	return b.String()
}
