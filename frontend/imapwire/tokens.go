package imapwire

import (
	"encoding/base64"
	"math"
	"unicode/utf8"
)

// Peek returns the next byte of the line without consuming it, or 0 after an error. Grammar that depends on what follows
// asks it first.
func (d *Decoder) Peek() byte {
	c, _ := d.peek()
	return c
}

// AtEnd reports whether the end of the line comes next.
func (d *Decoder) AtEnd() bool {
	c, ok := d.peek()
	return ok && (c == '\r' || c == '\n')
}

// TryByte consumes c if it comes next, and reports whether it did.
func (d *Decoder) TryByte(c byte) bool {
	next, ok := d.peek()
	if !ok || next != c {
		return false
	}
	d.skip()
	return true
}

// Byte consumes c, which must come next.
func (d *Decoder) Byte(c byte) {
	if !d.TryByte(c) {
		d.expected(describe(c))
	}
}

// SP consumes the one space that separates arguments.
func (d *Decoder) SP() { d.Byte(' ') }

// TrySP consumes a space if one comes next, and reports whether it did.
func (d *Decoder) TrySP() bool { return d.TryByte(' ') }

// Atom reads an atom.
func (d *Decoder) Atom() string { return string(d.word(classAtom, "an atom")) }

// Keyword reads an atom and returns it in capitals.
func (d *Decoder) Keyword() string {
	b := d.word(classAtom, "an atom")
	upperBytes(b)
	return string(b)
}

// itemName reads the name of a FETCH or STATUS item, which may be followed by a bracket, and returns it in capitals.
func (d *Decoder) itemName(what string) string {
	b := d.word(classItem, what)
	upperBytes(b)
	return string(b)
}

// word reads one byte or more of a class.
func (d *Decoder) word(class uint8, what string) []byte {
	b := d.take(class)
	if len(b) == 0 {
		d.expected(what)
	}
	if d.err != nil {
		return nil
	}
	return b
}

// AString reads an atom, a quoted string or a literal (astring).
func (d *Decoder) AString() string { return string(d.astring(classAString, "a string")) }

// astring reads a string, or an atom of the bytes of class.
func (d *Decoder) astring(class uint8, what string) []byte {
	c, ok := d.peek()
	switch {
	case !ok:
		return nil
	case c == '"' || c == '{':
		return d.str()
	default:
		return d.word(class, what)
	}
}

// String reads a quoted string or a literal.
func (d *Decoder) String() string { return string(d.str()) }

func (d *Decoder) str() []byte {
	c, ok := d.peek()
	switch {
	case !ok:
		return nil
	case c == '"':
		return d.quoted()
	case c == '{':
		return d.literalBytes(false)
	default:
		d.expected("a string")
		return nil
	}
}

// String8 reads a quoted string, a literal or a literal8, which may hold NUL.
func (d *Decoder) String8() string {
	if d.Peek() == '~' {
		return string(d.literalBytes(true))
	}
	return string(d.str())
}

// NString reads a string or NIL, of which ok is false.
func (d *Decoder) NString() (s string, ok bool) {
	switch d.Peek() {
	case '"', '{':
		return d.String(), d.err == nil
	}
	b := d.word(classAtom, "a string or NIL")
	if d.err == nil && !equalFold(string(b), "NIL") {
		d.Fail("expected a string or NIL")
	}
	return "", false
}

// Quoted reads a quoted string.
func (d *Decoder) Quoted() string { return string(d.quoted()) }

// quoted accepts 8-bit bytes as UTF-8 whatever is enabled (RFC 9051 §4.3): old clients send them in passwords and search
// keys, and nothing else can be meant.
func (d *Decoder) quoted() []byte {
	if !d.TryByte('"') {
		d.expected("a quoted string")
		return nil
	}
	b, ok := d.quotedBytes(d.tok[:0])
	d.tok = b
	if !ok {
		// What looks like the header of a literal at the end of the broken line is one for Discard, wherever the error is.
		for _, c := range b {
			d.tail.feed(c)
		}
		return nil
	}
	if !utf8.Valid(b) {
		d.Fail("invalid UTF-8 in a quoted string")
		return nil
	}
	return b
}

// quotedBytes appends the string up to its closing quote, and reports whether there is one.
func (d *Decoder) quotedBytes(b []byte) ([]byte, bool) {
	for {
		c, ok := d.peek()
		switch {
		case !ok:
			return b, false
		case c == '"':
			d.skip()
			return b, true
		case c == '\\':
			d.skip()
			c, ok = d.peek()
			if !ok || c != '"' && c != '\\' {
				d.expected("'\"' or '\\' after '\\'")
				return append(b, '\\'), false
			}
			d.skip()
			b = append(b, c)
		case classes[c]&classQuoted != 0:
			b = d.takeQuoted(b)
		default:
			d.expected("the end of the quoted string")
			return b, false
		}
	}
}

// takeQuoted appends what stands for itself in a quoted string, as far as it is buffered.
func (d *Decoder) takeQuoted(b []byte) []byte {
	rest := d.buf[d.pos:min(d.end, d.pos+d.left)]
	n := 0
	for n < len(rest) && classes[rest[n]]&classQuoted != 0 {
		n++
	}
	d.pos += n
	d.left -= n
	return append(b, rest[:n]...)
}

// Number reads a number of 32 bits.
func (d *Decoder) Number() uint32 { return uint32(d.number(math.MaxUint32, "a number")) }

// NZNumber reads a number of 32 bits that is not 0.
func (d *Decoder) NZNumber() uint32 {
	n := d.Number()
	if n == 0 {
		d.Fail("expected a number that is not 0")
	}
	return n
}

// Number64 reads a number of 63 bits (number64).
func (d *Decoder) Number64() int64 { return int64(d.number(math.MaxInt64, "a number")) }

// ModSeq reads a mod-sequence of 63 bits. It may be 0 (mod-sequence-valzer, RFC 7162 §7), also where the grammar has
// mod-sequence-value: clients that have none yet name 0 there, Apple's Mail in CHANGEDSINCE for example.
func (d *Decoder) ModSeq() uint64 { return d.number(math.MaxInt64, "a mod-sequence") }

func (d *Decoder) number(limit uint64, what string) uint64 {
	b := d.word(classDigit, what)
	var n uint64
	for _, c := range b {
		digit := uint64(c - '0')
		if n > (limit-digit)/10 {
			d.Fail(what + " is out of range")
			return 0
		}
		n = n*10 + digit
	}
	return n
}

// List reads "(" [item *(SP item)] ")", calling item at each.
func (d *Decoder) List(item func()) {
	d.Byte('(')
	if !d.enter() {
		return
	}
	defer d.leave()
	if d.TryByte(')') {
		return
	}
	for d.err == nil {
		item()
		if d.TryByte(')') {
			return
		}
		if !d.TrySP() {
			d.expected("a space or ')'")
		}
	}
}

// NonEmptyList reads "(" item *(SP item) ")".
func (d *Decoder) NonEmptyList(item func()) {
	some := false
	d.List(func() { some = true; item() })
	if !some {
		d.Fail("expected a list that is not empty")
	}
}

// enter counts a level of nesting, and reports whether the command may have it.
func (d *Decoder) enter() bool {
	if d.err != nil {
		return false
	}
	if d.depth >= d.limits.Depth {
		d.fail(&SyntaxError{Message: "nested too deep", TooBig: true})
		return false
	}
	d.depth++
	return true
}

func (d *Decoder) leave() { d.depth-- }

// Base64 reads base64 data, possibly none, and decodes it.
func (d *Decoder) Base64() []byte {
	b := d.take(classBase64)
	if d.err != nil {
		return nil
	}
	out := make([]byte, base64.StdEncoding.DecodedLen(len(b)))
	n, err := base64.StdEncoding.Strict().Decode(out, b)
	if err != nil {
		d.Fail("invalid base64")
		return nil
	}
	return out[:n]
}
