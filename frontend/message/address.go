package message

import "bytes"

// What stands for a mailbox or domain that an address does not have, since
// NIL there would mean a group.
const (
	MissingMailbox = "MISSING_MAILBOX"
	MissingDomain  = "MISSING_DOMAIN"
)

var (
	missingMailbox = []byte(MissingMailbox)
	missingDomain  = []byte(MissingDomain)
)

const maxAddresses = 2000 // in a message's own envelope, and in all those of the messages in it

// AppendAddresses appends the addresses of a field's value (RFC 5322 §3.4, §4.4) in the
// form of an envelope. Every text of the value is in one of them, broken or not. The
// addresses refer to value where they can.
func AppendAddresses(dst []Address, value []byte) []Address {
	var mem arena
	return parseAddresses(dst, value, &mem, maxAddresses)
}

// addressParser reads a list of addresses. An element of the list gathers in text: its words with one space between them,
// without quoting, until a comma, '<' or the end shows what they are.
type addressParser struct {
	b     []byte
	i     int
	mem   *arena
	dst   []Address
	first int // where this field's addresses begin in dst
	max   int
	open  bool // in a group

	text    []byte
	word    int  // where the last word begins in text
	at      int  // where the last bare '@' is in text, -1
	gap     bool // white space was seen after the last word
	words   int
	quoted  bool
	comment []byte
}

func parseAddresses(dst []Address, value []byte, mem *arena, room int) []Address {
	p := addressParser{b: value, mem: mem, dst: dst, first: len(dst), max: len(dst) + room, text: mem.scratch[:0], at: -1}
	for p.i < len(p.b) && len(p.dst) < p.max {
		p.step()
	}
	p.flush()
	if p.open {
		p.emit(Address{})
	}
	mem.scratch = p.text
	return p.dst
}

// emit appends an address.
func (p *addressParser) emit(a Address) {
	if len(p.dst) < p.max {
		p.dst = append(p.dst, a)
	}
}

func (p *addressParser) step() {
	switch c := p.b[p.i]; c {
	case ' ', '\t', '\r', '\n', 0:
		p.gap = true
		p.i++
	case ',':
		p.i++
		p.flush()
	case ';':
		p.i++
		p.flush()
		if p.open {
			p.emit(Address{})
			p.open = false
		}
	case ':':
		p.i++
		if p.open || p.at >= 0 {
			p.put(p.b[p.i-1 : p.i])
			return
		}
		p.emit(Address{Mailbox: p.mem.hold(p.text)})
		p.open = true
		p.reset()
	case '(':
		end := commentEnd(p.b, p.i)
		p.comment = bytes.TrimSuffix(p.b[p.i+1:end], []byte{')'})
		p.i, p.gap = end, true
	case '"':
		p.quote()
	case '<':
		p.angle()
	case '@':
		p.i++
		p.gap = false
		p.at = len(p.text)
		p.text = append(p.text, c)
	case '[':
		end := p.i + 1
		if n := bytes.IndexAny(p.ahead(), "],"); n >= 0 && p.b[p.i+n] == ']' {
			end = p.i + n + 1
		}
		p.put(p.mem.unfold(p.b[p.i:end]))
		p.i = end
	default:
		start := p.i
		if n := encodedWord(p.b[p.i:]); n > 0 {
			p.i += n
			p.put(p.b[start:p.i])
			return
		}
		for p.i++; p.i < len(p.b) && isAtom[p.b[p.i]]; p.i++ {
		}
		p.put(p.b[start:p.i])
	}
}

// ahead is as much of the rest as a route or a domain literal may be long.
func (p *addressParser) ahead() []byte { return p.b[p.i:min(len(p.b), p.i+1000)] }

// isAtom marks the bytes that a run of atom text may go on with.
var isAtom = func() (t [256]bool) {
	for i := range t {
		t[i] = i > ' ' && bytes.IndexByte([]byte(",;:(\"<@["), byte(i)) < 0
	}
	return t
}()

// encodedWord returns the length of the encoded word (RFC 2047 §2) that b begins with, 0 if there is none. Many
// senders leave characters in it that end an atom.
func encodedWord(b []byte) int {
	if len(b) < 2 || b[0] != '=' || b[1] != '?' {
		return 0
	}
	marks := 0
	for i := 2; i < len(b) && b[i] > ' '; i++ {
		if b[i] != '?' {
			continue
		}
		if marks++; marks == 3 {
			if i+1 < len(b) && b[i+1] == '=' {
				return i + 2
			}
			return 0
		}
	}
	return 0
}

// put adds to the text, as a new word if there was white space, which means nothing around the dots of a domain (RFC 5322 §4.4).
func (p *addressParser) put(b []byte) {
	domain := p.at >= 0 && (bytes.HasSuffix(p.text, []byte{'.'}) || bytes.HasPrefix(b, []byte{'.'}))
	if p.gap && len(p.text) > 0 && p.text[len(p.text)-1] != '@' && !domain {
		p.text = append(p.text, ' ')
		p.word = len(p.text)
		p.words++
	}
	p.gap = false
	p.text = append(p.text, b...)
}

func (p *addressParser) quote() {
	end := quoteEnd(p.b, p.i)
	in := bytes.TrimSuffix(p.b[p.i+1:end], []byte{'"'})
	if end == len(p.b) && p.b[end-1] == '"' && end >= 2 && p.b[end-2] == '\\' {
		in = p.b[p.i+1 : end]
	}
	p.put(nil)
	for i := 0; i < len(in); i++ {
		c := in[i]
		switch {
		case c == '\\' && i+1 < len(in):
			i++
			c = in[i]
		case c == '\r' && i+1 < len(in) && in[i+1] == '\n', c == '\n':
			continue
		}
		if c == 0 {
			c = ' '
		}
		p.text = append(p.text, c)
	}
	p.i, p.quoted = end, true
}

// angle reads <route:local@domain>. What stands before is the name.
func (p *addressParser) angle() {
	p.i++
	a := Address{}
	if len(p.text) > 0 {
		a.Name = p.mem.hold(p.text)
	}
	p.reset()
	if p.i < len(p.b) && p.b[p.i] == '@' {
		if n := bytes.IndexAny(p.ahead(), ":>"); n >= 0 && p.b[p.i+n] == ':' {
			a.Route = p.mem.unfold(p.b[p.i : p.i+n])
			p.i += n + 1
		}
	}
	comment := p.comment
loop:
	for p.i < len(p.b) {
		switch c := p.b[p.i]; c {
		case '>':
			p.i++
			break loop
		case ',':
			break loop
		case ':', ';', '<':
			p.i++
			p.put([]byte{c})
		default:
			p.angleText()
		}
	}
	a.Mailbox, a.Host = p.split(0)
	p.reset()
	p.comment = comment
	p.after(&a)
	p.emit(a)
}

// angleText takes the next piece of an address in angle brackets.
func (p *addressParser) angleText() {
	start := p.i
	for p.i < len(p.b) && isAtom[p.b[p.i]] && p.b[p.i] != '>' {
		p.i++
	}
	if p.i > start {
		p.put(p.b[start:p.i])
		return
	}
	p.step()
}

// after takes what follows '>' up to the next separator: a comment, or words, are the name if there is none yet.
func (p *addressParser) after(a *Address) {
	for p.i < len(p.b) {
		if c := p.b[p.i]; c == ',' || c == ';' || c == '<' {
			break
		}
		if p.b[p.i] == ':' {
			p.i++
			p.put([]byte{':'})
			continue
		}
		p.step()
	}
	switch {
	case len(p.text) > 0 && a.Name != nil:
		a.Name = p.mem.hold(append(append(append([]byte{}, a.Name...), ' '), p.text...))
	case len(p.text) > 0:
		a.Name = p.mem.hold(p.text)
	case a.Name == nil && len(p.comment) > 0:
		a.Name = p.mem.unfold(p.comment)
	}
	p.reset()
}

// flush ends an element without angle brackets.
func (p *addressParser) flush() {
	if len(p.text) == 0 && !p.quoted && (len(p.comment) == 0 || len(p.dst) > p.first) {
		p.reset()
		return
	}
	a := Address{}
	switch {
	case p.at >= 0:
		// The last word before the '@' is the local part, what stands before it a name
		// whose angle brackets are missing.
		word := bytes.LastIndexByte(p.text[:p.at], ' ') + 1
		if p.quoted {
			word = 0
		}
		a.Mailbox, a.Host = p.split(word)
		if word > 0 {
			a.Name = p.mem.hold(p.text[:word-1])
		}
	case p.words > 0 || p.quoted || len(p.text) == 0:
		if len(p.text) > 0 {
			a.Name = p.mem.hold(p.text)
		}
		a.Mailbox, a.Host = missingMailbox, missingDomain
	default:
		a.Mailbox, a.Host = p.mem.hold(p.text), missingDomain
	}
	if a.Name == nil && len(p.comment) > 0 {
		a.Name = p.mem.unfold(p.comment)
	}
	p.reset()
	p.emit(a)
}

// split takes text[from:] apart at the last '@'.
func (p *addressParser) split(from int) (mailbox, host []byte) {
	local, domain := p.text[from:], []byte(nil)
	if p.at >= from {
		local, domain = p.text[from:p.at], p.text[p.at+1:]
	}
	mailbox, host = missingMailbox, missingDomain
	if len(local) > 0 {
		mailbox = p.mem.hold(local)
	}
	if len(domain) > 0 {
		host = p.mem.hold(domain)
	}
	return mailbox, host
}

func (p *addressParser) reset() {
	p.text, p.word, p.words, p.at = p.text[:0], 0, 0, -1
	p.gap, p.quoted, p.comment = false, false, nil
}
