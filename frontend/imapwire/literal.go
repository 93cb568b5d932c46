package imapwire

import (
	"errors"
	"io"
	"math"
)

// A Literal is what the header of a literal says (RFC 9051 §4.3, RFC 7888, RFC 3516 §4.4).
type Literal struct {
	Size    int64
	NonSync bool // {n+}: the client sends it without being asked
	Binary  bool // ~{n}: it may hold NUL
}

var errNoContinue = errors.New("no synchronizing literal is accepted here")

// LiteralHeader reads the header of a literal or a literal8 without its bytes. Then OpenLiteral takes the bytes, or
// Discard refuses them.
func (d *Decoder) LiteralHeader() Literal { return d.literalHeader(true) }

func (d *Decoder) literalHeader(binaryAllowed bool) Literal {
	lit := Literal{Binary: binaryAllowed && d.TryByte('~')}
	d.tail = literalTail{}
	if !d.headerByte('{') {
		d.expected("a literal")
		return Literal{}
	}
	for {
		c, ok := d.peek()
		if !ok || c < '0' || c > '9' {
			break
		}
		d.headerByte(c)
	}
	if d.tail.digits == 0 {
		d.expected("the size of the literal")
		return Literal{}
	}
	lit.NonSync = d.headerByte('+')
	if !d.headerByte('}') {
		d.expected("'}'")
		return Literal{}
	}
	lit.Size = d.tail.size
	if c, ok := d.peek(); ok && c == '\r' {
		d.headerByte('\r')
	}
	if !d.headerByte('\n') {
		d.expected("the end of the line after the literal's size")
		return Literal{}
	}
	d.tail = literalTail{}
	d.literal = lit
	if lit.NonSync {
		d.pending = lit.Size
	} else {
		d.announced = true
	}
	switch {
	case lit.Size == math.MaxInt64:
		d.fail(&SyntaxError{Message: "literal size out of range", TooBig: true})
	case lit.NonSync && lit.Size > d.limits.NonSync:
		d.fail(&SyntaxError{Message: "non-synchronizing literal too big", TooBig: true})
	}
	return lit
}

// headerByte consumes c if it comes next, and remembers it, so that Discard knows a header that was half read.
func (d *Decoder) headerByte(c byte) bool {
	if !d.TryByte(c) {
		return false
	}
	d.tail.feed(c)
	return true
}

// OpenLiteral asks the client for the literal that LiteralHeader announced, if it waits to be asked, and returns
// its bytes as a stream of exactly that size. What is not read of it is skipped by Discard; until all of it is read
// nothing else can be.
func (d *Decoder) OpenLiteral() (*LiteralReader, error) {
	if d.err != nil {
		return nil, d.err
	}
	if d.announced {
		if d.Continue == nil {
			d.fail(errNoContinue)
			return nil, d.err
		}
		if err := d.Continue(d.literal); err != nil {
			d.fail(err)
			return nil, err
		}
		d.announced = false
		d.pending = d.literal.Size
	}
	return &LiteralReader{d}, nil
}

// A LiteralReader reads the bytes of one literal.
type LiteralReader struct{ d *Decoder }

// Len is the number of bytes that are still to be read.
func (r *LiteralReader) Len() int64 { return r.d.pending }

// Read reads bytes of the literal, and ends with io.EOF after the last; io.ErrUnexpectedEOF says that the connection
// ended before.
func (r *LiteralReader) Read(p []byte) (int, error) {
	d := r.d
	switch {
	case d.broken:
		return 0, d.err
	case d.pending == 0:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	if int64(len(p)) > d.pending {
		p = p[:d.pending]
	}
	if d.pos == d.end && len(p) >= len(readBuffer{}) {
		n, err := d.r.Read(p)
		d.pending -= int64(n)
		if n == 0 && err != nil {
			d.readFailed(err)
			return 0, d.err
		}
		return n, nil
	}
	if d.pos == d.end && !d.fill() {
		return 0, d.err
	}
	n := copy(p, d.buf[d.pos:d.end])
	d.keepRecord()
	d.pos += n
	d.record.mark = d.pos
	d.pending -= int64(n)
	return n, nil
}

// literalBytes reads a literal into memory, within the command's share of it.
func (d *Decoder) literalBytes(binaryAllowed bool) []byte {
	lit := d.literalHeader(binaryAllowed)
	if d.err != nil {
		return nil
	}
	if lit.Size > int64(d.memory) {
		d.fail(&SyntaxError{Message: "literal too big", TooBig: true})
		return nil
	}
	r, err := d.OpenLiteral()
	if err != nil {
		return nil
	}
	d.memory -= int(lit.Size)
	d.tok = append(d.tok[:0], make([]byte, lit.Size)...)
	if _, err := io.ReadFull(r, d.tok); err != nil {
		return nil
	}
	if !lit.Binary {
		for _, c := range d.tok {
			if c == 0 {
				d.Fail("NUL in a literal")
				return nil
			}
		}
	}
	return d.tok
}

// literalTail follows the bytes of a line and knows whether they end in the header of a literal.
type literalTail struct {
	state     tailState
	digits    int
	size      int64
	nonSync   bool
	announces bool // the line ended with a header
}

type tailState uint8

const (
	tailNone tailState = iota
	tailDigits
	tailPlus
	tailClosed
	tailCR
)

func (t *literalTail) feed(c byte) {
	switch {
	case c == '{':
		*t = literalTail{state: tailDigits}
	case t.state == tailNone:
	case t.state == tailDigits && c >= '0' && c <= '9':
		t.digits++
		digit := int64(c - '0')
		if t.size > (math.MaxInt64-digit)/10 {
			t.size = math.MaxInt64
		} else {
			t.size = t.size*10 + digit
		}
	case t.state == tailDigits && c == '+' && t.digits > 0:
		t.state, t.nonSync = tailPlus, true
	case (t.state == tailDigits && t.digits > 0 || t.state == tailPlus) && c == '}':
		t.state = tailClosed
	case t.state == tailClosed && c == '\r':
		t.state = tailCR
	case (t.state == tailClosed || t.state == tailCR) && c == '\n':
		t.announces = true
	default:
		*t = literalTail{}
	}
}
