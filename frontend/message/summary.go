package message

// Summary is all that is kept of a message to answer FETCH ENVELOPE, BODY,
// BODYSTRUCTURE, PREVIEW and the usual BODY[HEADER.FIELDS (...)] without the
// message. Its slices share memory that belongs to it: they are valid until
// the next Unmarshal into the same Summary and must not be changed. A Summary
// has one owner at a time while it is filled; then many may read it.
type Summary struct {
	// Parts is the tree of MIME parts in the order of the message, each
	// before its children. Parts[0] is the message itself. It is never empty.
	Parts []Part
	// Envelopes are those of the messages in it; Envelopes[0] is its own.
	Envelopes []Envelope
	// Header has the kept fields of the message's header, in their order and
	// with their own bytes, each ended by its line end; no empty line follows.
	Header []byte
	// Preview is at most 200 characters of UTF-8 text (RFC 8970 §3); empty if
	// the message has no text.
	Preview []byte

	own bool   // Envelopes[0] was read
	cut uint64 // bit i: fields[i] was longer than what Header keeps of it

	// Backing memory of the above, reused by Unmarshal.
	raw    []byte
	frame  []byte
	mem    arena
	params []Param
	langs  [][]byte
	addrs  []Address
	stack  []openNode
}

// Part is a MIME entity (RFC 2045 §2.4): the message, a part of a multipart, or the
// message inside a message/rfc822. Texts are the header's own bytes, unfolded; nil
// means that the field is absent.
type Part struct {
	Type, Subtype []byte // never nil; in the spelling of the header
	Params        []Param
	ID            []byte
	Description   []byte
	Encoding      []byte // never nil; "7bit" when the header has none
	MD5           []byte

	Disposition       []byte
	DispositionParams []Param
	Language          [][]byte
	Location          []byte

	// HeaderStart, BodyStart and End are offsets in the message: the header
	// with its empty line is [HeaderStart, BodyStart), the body [BodyStart, End).
	HeaderStart, BodyStart, End int64
	// Lines is the number of line ends in the body of a text or message part, else 0.
	Lines int64

	// Children is how many parts a multipart has (at least 1), 1 for a
	// message/rfc822 or message/global, whose child is the message in it, else 0.
	Children int
	// Parent and Next are indexes in Parts, -1 for none. The first child of part
	// i is part i+1.
	Parent, Next int
	// Envelope is the index in Envelopes if this part is a message's root: the
	// message itself, or the child of a message/rfc822; else -1.
	Envelope int

	header []byte // the envelope's fields, for the root of a message inside
	kind   kind
}

// Param is a parameter of Content-Type or Content-Disposition. Continuations
// (RFC 2231 §3) are joined under the plain name. When a charset is given (§4) the
// name keeps its "*" and the value stays encoded: charset'language'%XX…
type Param struct {
	Name, Value []byte
}

// Envelope is the envelope of a message (RFC 9051 §7.5.2). Texts are unfolded
// and otherwise the header's own bytes; nil means absent, empty means
// present and empty. NUL, which IMAP cannot carry, is shown as a space.
type Envelope struct {
	Date, Subject                      []byte
	From, Sender, ReplyTo, To, Cc, Bcc []Address
	InReplyTo, MessageID               []byte
}

// Address is an address of an envelope. A group is a run of addresses that
// begins with one whose Host is nil and whose Mailbox is the group's name, and ends
// with one that has neither. Name and Route are nil when absent. An address without
// mailbox or domain has MISSING_MAILBOX or MISSING_DOMAIN there, since nil would
// mean a group.
type Address struct {
	Name, Route, Mailbox, Host []byte
}

// kind says how a part is walked.
type kind uint8

const (
	kindLeaf kind = iota
	kindMultipart
	kindMessage
)

// Size returns the length of the part's body in octets, in its transfer encoding.
func (p *Part) Size() int64 { return p.End - p.BodyStart }

// IsMultipart reports whether the part is a multipart; then it has children.
func (p *Part) IsMultipart() bool { return p.kind == kindMultipart }

// IsMessage reports whether the part is a message/rfc822 or message/global; its one
// child is the root of the message inside, with an Envelope.
func (p *Part) IsMessage() bool { return p.kind == kindMessage }

// IsText reports whether the part's type is text.
func (p *Part) IsText() bool { return equalFold(p.Type, "text") }

// Param returns the value of a parameter of Content-Type, nil if there is none.
// name is in lower case.
func (p *Part) Param(name string) []byte { return lookupParam(p.Params, name) }

// IsAttachment reports whether the part's disposition is attachment.
func (p *Part) IsAttachment() bool { return equalFold(p.Disposition, "attachment") }

func lookupParam(params []Param, name string) []byte {
	for i := range params {
		if equalFold(params[i].Name, name) {
			return params[i].Value
		}
	}
	return nil
}

// Envelope returns the message's own envelope.
func (s *Summary) Envelope() *Envelope { return &s.Envelopes[0] }

// Size returns the length of the message in octets.
func (s *Summary) Size() int64 { return s.Parts[0].End }

// FirstChild returns the index of the first child of part i, -1 if it has none.
// The others follow by [Part.Next].
func (s *Summary) FirstChild(i int) int {
	if s.Parts[i].Children == 0 {
		return -1
	}
	return i + 1
}

// Child returns the index of the nth child of part i, counted from 1, or -1.
func (s *Summary) Child(i, n int) int {
	if n < 1 || n > s.Parts[i].Children {
		return -1
	}
	c := i + 1
	for ; n > 1 && c >= 0; n-- {
		c = s.Parts[c].Next
	}
	return c
}

// link fills Parent and Next of all parts from their order and Children. It reports whether
// they make one tree.
func (s *Summary) link() bool {
	s.stack = s.stack[:0]
	for i := range s.Parts {
		p := &s.Parts[i]
		p.Parent, p.Next = -1, -1
		for len(s.stack) > 0 && s.stack[len(s.stack)-1].left == 0 {
			s.stack = s.stack[:len(s.stack)-1]
		}
		if n := len(s.stack); n > 0 {
			top := &s.stack[n-1]
			p.Parent = top.part
			if top.last >= 0 {
				s.Parts[top.last].Next = i
			}
			top.last = i
			top.left--
		} else if i > 0 {
			return false
		}
		if p.Children > 0 {
			s.stack = append(s.stack, openNode{part: i, last: -1, left: p.Children})
		}
	}
	for _, open := range s.stack {
		if open.left > 0 {
			return false
		}
	}
	return len(s.Parts) > 0
}

// openNode is a part whose children are still to come.
type openNode struct {
	part, last, left int
}

// arena holds small texts; what it returned stays valid when it grows.
type arena struct {
	buf     []byte
	scratch []byte // for what is put together before it is held
}

const arenaChunk = 16 << 10

func (a *arena) hold(b []byte) []byte {
	if len(b) > cap(a.buf)-len(a.buf) {
		a.buf = make([]byte, 0, max(len(b), min(2*cap(a.buf), arenaChunk), 512))
	}
	n := len(a.buf)
	a.buf = append(a.buf, b...)
	return a.buf[n:len(a.buf):len(a.buf)]
}

func (a *arena) reset() { a.buf = a.buf[:0] }

// equalFold compares with a word in lower case, ASCII only.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if lowerASCII(c) != lower[i] {
			return false
		}
	}
	return true
}

func lowerASCII(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
