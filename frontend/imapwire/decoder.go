package imapwire

import (
	"errors"
	"io"
	"math"
	"sync"
)

// Limits bound what one command may cost. Zero values stand for the defaults.
type Limits struct {
	Line    int   // bytes of a command outside of literals; default 64 KiB
	Literal int   // bytes of all literals of a command that are read into memory; default 64 KiB
	Depth   int   // nesting of parentheses, NOT and OR; default 100
	NonSync int64 // bytes of one non-synchronizing literal, 4096 where LITERAL- is announced (RFC 7888 §5); default no bound
	Skip    int64 // bytes that Discard skips before it gives the connection up; default 64 MiB
}

func (l Limits) withDefaults() Limits {
	if l.Line <= 0 {
		l.Line = 64 << 10
	}
	if l.Literal <= 0 {
		l.Literal = 64 << 10
	}
	if l.Depth <= 0 {
		l.Depth = 100
	}
	if l.NonSync <= 0 {
		l.NonSync = math.MaxInt64
	}
	if l.Skip <= 0 {
		l.Skip = 64 << 20
	}
	return l
}

// readBuffer is what a decoder reads ahead into. It is small because most commands are, and because literals that are
// streamed bypass it.
type readBuffer [4096]byte

var readBuffers = sync.Pool{New: func() any { return new(readBuffer) }}

// A Decoder reads the commands of one client. It belongs to one goroutine at a time.
type Decoder struct {
	// Continue is asked before a synchronizing literal is read: it writes the continuation request and returns nil, or
	// refuses with an error, which becomes the decoder's. Without it, synchronizing literals are refused.
	Continue func(Literal) error

	// UTF8 is set once the client has enabled UTF8=ACCEPT or IMAP4rev2: mailbox names are then UTF-8, not modified UTF-7
	// (RFC 6855 §3, RFC 9051 §5.1).
	UTF8 bool

	r      io.Reader
	limits Limits
	buf    *readBuffer // nil while nothing is buffered and the decoder was released
	pos    int         // buf[pos:end] is received and not consumed
	end    int

	err       error
	broken    bool // err came from reading: nothing can be skipped
	open      bool // inside of a command, before the CRLF that ends it
	left      int  // bytes that the command may still have outside of literals
	memory    int  // bytes that its literals may still have in memory
	depth     int
	keys      int // search keys of the command so far
	tag       string
	tok       []byte      // the token being read
	tail      literalTail // the literal header being read
	announced bool        // a synchronizing literal was announced, and not yet asked for
	literal   Literal     // the literal announced last
	pending   int64       // bytes of a literal that are still to come
	record    record
}

// NewDecoder returns a decoder of what r delivers.
func NewDecoder(r io.Reader, limits Limits) *Decoder {
	return &Decoder{r: r, limits: limits.withDefaults()}
}

// Reset makes the decoder read from r, and forgets all that was received and not decoded: nothing that came before
// STARTTLS is taken for a command (RFC 9051 §6.2.1).
func (d *Decoder) Reset(r io.Reader) {
	d.pos, d.end = 0, 0
	d.Release()
	*d = Decoder{Continue: d.Continue, UTF8: d.UTF8, r: r, limits: d.limits}
}

// SetLimits sets the limits that hold from the next command on.
func (d *Decoder) SetLimits(limits Limits) { d.limits = limits.withDefaults() }

// Buffered returns what was received and not decoded, valid until the next call. COMPRESS hands it to the
// decompressor before Reset.
func (d *Decoder) Buffered() []byte {
	if d.buf == nil {
		return nil
	}
	return d.buf[d.pos:d.end]
}

// Release gives the buffer back when nothing is in it, and reports whether the decoder is now without one. The next
// read takes another.
func (d *Decoder) Release() bool {
	if d.pos < d.end {
		return false
	}
	if d.buf != nil {
		d.keepRecord()
		readBuffers.Put(d.buf)
		d.buf = nil
	}
	d.tok = nil
	return true
}

// Wait returns when the client has sent something. At the end of the input it returns io.EOF. An error (of a deadline,
// say) consumes nothing and leaves no buffer, and Wait may be called again.
func (d *Decoder) Wait() error {
	if d.pos < d.end {
		return nil
	}
	if err := d.receive(); err != nil {
		d.Release()
		return err
	}
	return nil
}

// Err is the first error of the command: a *SyntaxError, what Continue refused with, or what reading failed with
// (io.ErrUnexpectedEOF when the input ends inside of a command).
func (d *Decoder) Err() error { return d.err }

// Tag is the tag of the command, also when the rest of it is malformed; empty when the tag itself is. The answer is
// then untagged.
func (d *Decoder) Tag() string { return d.tag }

// Command begins the next command and reads its tag and its name, in capitals; the name of what follows UID is part of
// it ("UID FETCH"). What an earlier command left unread is discarded first. At the end of the input the error is
// io.EOF.
func (d *Decoder) Command() (tag, name string, err error) {
	if err := d.begin(); err != nil {
		return "", "", err
	}
	word := d.take(classTag)
	if c, ok := d.peek(); len(word) == 0 || ok && c != ' ' && c != '\r' && c != '\n' {
		d.expected("a tag")
	}
	if d.err != nil {
		return "", "", d.err
	}
	d.tag = string(word)
	d.SP()
	name = d.Keyword()
	if name == "UID" {
		d.SP()
		name = "UID " + d.Keyword()
	}
	return d.tag, name, d.err
}

// begin opens a line of the client's: a command, or what answers a continuation request.
func (d *Decoder) begin() error {
	if err := d.Discard(); err != nil {
		return err
	}
	d.err, d.tag, d.depth, d.keys, d.tail = nil, "", 0, 0, literalTail{}
	d.left, d.memory = d.limits.Line, d.limits.Literal
	if d.pos == d.end && !d.fill() {
		d.broken = false // nothing was lost: after a deadline, say, the next call reads again
		return d.err
	}
	d.open = true
	return nil
}

// End consumes the CRLF that ends the command and returns the command's error.
func (d *Decoder) End() error {
	d.CRLF()
	return d.err
}

// CRLF consumes the end of the command. A line feed alone is taken for it too.
func (d *Decoder) CRLF() {
	if d.lineEnd("the end of the line") {
		d.open = false
	}
}

// Discard skips what is left of the command: the rest of the line, and the non-synchronizing literals that it
// announces with the lines that follow them. A synchronizing literal that was not asked for ends the command, because the
// client will not send it. After Discard the connection is in step; with an error it must be closed. Err stays.
func (d *Decoder) Discard() error {
	if d.broken {
		return d.err
	}
	budget := d.limits.Skip
	if d.announced {
		d.announced, d.open = false, false
	}
	for d.open || d.pending > 0 {
		if d.pending > budget || budget <= 0 {
			return ErrSkipLimit
		}
		if d.pos == d.end && !d.fill() {
			return d.err
		}
		if d.pending > 0 {
			n := int(min(d.pending, int64(d.end-d.pos)))
			d.keepRecord()
			d.pos += n
			d.record.mark = d.pos
			d.pending -= int64(n)
			budget -= int64(n)
			continue
		}
		n := d.discardLine(d.buf[d.pos:d.end])
		d.pos += n
		budget -= int64(n)
	}
	return nil
}

// discardLine skips bytes up to the end of the line, and returns how many.
func (d *Decoder) discardLine(b []byte) int {
	for i, c := range b {
		d.tail.feed(c)
		if c != '\n' {
			continue
		}
		if d.tail.announces && d.tail.nonSync {
			d.pending = d.tail.size
		} else {
			d.open = false
		}
		d.tail = literalTail{}
		return i + 1
	}
	return len(b)
}

const maxEmptyReads = 100

// fill reads into the empty buffer, and reports whether there is something in it.
func (d *Decoder) fill() bool {
	if err := d.receive(); err != nil {
		d.readFailed(err)
		return false
	}
	return true
}

// receive reads into the empty buffer.
func (d *Decoder) receive() error {
	if d.buf == nil {
		d.buf = readBuffers.Get().(*readBuffer)
	} else {
		d.keepRecord()
	}
	d.pos, d.end, d.record.mark = 0, 0, 0
	for range maxEmptyReads {
		n, err := d.r.Read(d.buf[:])
		if n > 0 {
			d.end = n
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// readFailed takes the place of a syntax error: the connection is gone, and nobody reads what the command lacked.
func (d *Decoder) readFailed(err error) {
	if errors.Is(err, io.EOF) && (d.open || d.pending > 0) {
		err = io.ErrUnexpectedEOF
	}
	d.err, d.broken = err, true
}

// peek returns the next byte of the line without consuming it.
func (d *Decoder) peek() (byte, bool) {
	switch {
	case d.err != nil:
		return 0, false
	case d.pos < d.end && d.left > 0 && d.open && d.pending == 0 && !d.announced:
	case !d.open:
		d.Fail("expected no more of a command that has ended")
		return 0, false
	case d.pending > 0 || d.announced:
		d.Fail("expected the literal to be read")
		return 0, false
	case d.left <= 0:
		d.fail(&SyntaxError{Message: "command line too long", TooBig: true})
		return 0, false
	case !d.fill():
		return 0, false
	}
	return d.buf[d.pos], true
}

// skip consumes the byte that peek returned.
func (d *Decoder) skip() {
	d.pos++
	d.left--
}

// take consumes the bytes of a class, none included. The result is valid until the next token.
func (d *Decoder) take(class uint8) []byte {
	d.tok = d.tok[:0]
	for {
		if _, ok := d.peek(); !ok {
			return d.tok
		}
		rest := d.buf[d.pos:min(d.end, d.pos+d.left)]
		n := 0
		for n < len(rest) && classes[rest[n]]&class != 0 {
			n++
		}
		d.tok = append(d.tok, rest[:n]...)
		d.pos += n
		d.left -= n
		if n < len(rest) {
			return d.tok
		}
	}
}

// lineEnd consumes CRLF or LF, and reports whether it did.
func (d *Decoder) lineEnd(what string) bool {
	c, ok := d.peek()
	if ok && c == '\r' {
		d.skip()
		what = "a line feed after the carriage return"
		c, ok = d.peek()
	}
	if !ok {
		return false
	}
	if c != '\n' {
		d.expected(what)
		return false
	}
	d.skip()
	return true
}
