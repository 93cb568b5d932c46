package imapwire

import (
	"io"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	// writeBufferSize is the capacity that encoders begin with.
	writeBufferSize = 4 << 10
	// flushSize is how much is gathered before a response's end writes it out.
	flushSize = 32 << 10
	// maxQuoted is the longest string that is written quoted; clients bound their lines, and no others need it.
	maxQuoted = 4 << 10
)

var writeBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, writeBufferSize)
	return &b
}}

// An Encoder appends responses to a buffer. CRLF writes the buffer out when much has been gathered, Flush writes it out
// always. The first error of writing sticks; after it everything is dropped. An encoder belongs to one goroutine at a time.
type Encoder struct {
	// UTF8 is set once the client has enabled UTF8=ACCEPT or IMAP4rev2: strings with UTF-8 are quoted, and mailbox names
	// are UTF-8 (RFC 6855 §3, RFC 9051 §4.3). Without it 8-bit strings are literals and names modified UTF-7.
	UTF8 bool

	w      io.Writer
	pooled *[]byte // where buf came from; nil while the encoder was released
	buf    []byte
	first  bool // a list has begun and has no item yet
	err    error
}

// NewEncoder returns an encoder that writes to w.
func NewEncoder(w io.Writer) *Encoder { return &Encoder{w: w} }

// Reset writes out what was gathered, and makes the encoder write to w.
func (e *Encoder) Reset(w io.Writer) error {
	err := e.Flush()
	e.w, e.err = w, nil
	return err
}

// Err is the first error of writing.
func (e *Encoder) Err() error { return e.err }

// Buffered is how many bytes are gathered and not written.
func (e *Encoder) Buffered() int { return len(e.buf) }

// Flush writes out what was gathered. The buffer stays the encoder's.
func (e *Encoder) Flush() error {
	if len(e.buf) > 0 && e.err == nil {
		_, e.err = e.w.Write(e.buf)
	}
	e.buf = e.buf[:0]
	return e.err
}

// Release writes out what was gathered and gives the buffer back, for the time in which the connection is idle.
func (e *Encoder) Release() error {
	err := e.Flush()
	if e.pooled != nil && cap(e.buf) <= 2*flushSize {
		*e.pooled = e.buf
		writeBuffers.Put(e.pooled)
	}
	e.pooled, e.buf = nil, nil
	return err
}

// room makes sure that there is a buffer.
func (e *Encoder) room() {
	if e.buf == nil {
		e.pooled = writeBuffers.Get().(*[]byte)
		e.buf = (*e.pooled)[:0]
	}
}

// Write appends p as it is. It takes all of p, and returns the error of writing out when it did.
func (e *Encoder) Write(p []byte) (int, error) {
	e.room()
	e.buf = append(e.buf, p...)
	if len(e.buf) >= flushSize {
		return len(p), e.Flush()
	}
	return len(p), nil
}

// Raw appends s as it is.
func (e *Encoder) Raw(s string) *Encoder {
	e.room()
	e.buf = append(e.buf, s...)
	return e
}

// Atom appends s as it is. The caller knows that s is an atom.
func (e *Encoder) Atom(s string) *Encoder { return e.Raw(s) }

// Byte appends c.
func (e *Encoder) Byte(c byte) *Encoder {
	e.room()
	e.buf = append(e.buf, c)
	return e
}

// SP appends a space.
func (e *Encoder) SP() *Encoder { return e.Byte(' ') }

// CRLF ends a line, and writes the buffer out when much has been gathered.
func (e *Encoder) CRLF() {
	e.Raw("\r\n")
	if len(e.buf) >= flushSize {
		_ = e.Flush() // sticks in e.err
	}
}

// Number appends a number.
func (e *Encoder) Number(n uint64) *Encoder {
	e.room()
	if n < 10 {
		e.buf = append(e.buf, '0'+byte(n))
	} else {
		e.buf = strconv.AppendUint(e.buf, n, 10)
	}
	return e
}

// Open begins a list, after a space unless it is the first item of a list. Its items are begun by Item, Open and the
// methods named after what they append (FetchUID, …), all of which put the space between them.
func (e *Encoder) Open() *Encoder {
	e.sep().Byte('(')
	e.first = true
	return e
}

// Close ends a list.
func (e *Encoder) Close() *Encoder {
	e.first = false
	return e.Byte(')')
}

// sep appends the space before an item that is not the first of its list.
func (e *Encoder) sep() *Encoder {
	if e.first {
		e.first = false
		return e
	}
	return e.SP()
}

// Item appends the name of an item, and a space before it if it is not the first of its list.
func (e *Encoder) Item(name string) *Encoder { return e.sep().Raw(name) }

// NIL appends NIL.
func (e *Encoder) NIL() *Encoder { return e.Raw("NIL") }

// String appends s quoted, or as a literal where that cannot be: with CR, LF or NUL, longer than 4 KiB, or with 8-bit
// bytes that are not UTF-8 or that the client did not enable (string, RFC 9051 §4.3). NUL is sent as it is, in a literal: the
// grammar has nothing for it outside of literal8, which only BINARY may be answered with, and bytes are not changed here.
func (e *Encoder) String(s string) *Encoder {
	e.room()
	e.buf = appendString(e.buf, s, e.UTF8 && utf8.ValidString(s), false)
	return e
}

// Bytes is String for bytes.
func (e *Encoder) Bytes(b []byte) *Encoder {
	e.room()
	e.buf = appendString(e.buf, b, e.UTF8 && utf8.Valid(b), false)
	return e
}

// Bytes8 is Bytes where the grammar allows a literal8, which is chosen for NUL (nstring8, RFC 3516 §4.2).
func (e *Encoder) Bytes8(b []byte) *Encoder {
	e.room()
	e.buf = appendString(e.buf, b, e.UTF8 && utf8.Valid(b), true)
	return e
}

// NBytes is Bytes, and NIL for nil.
func (e *Encoder) NBytes(b []byte) *Encoder {
	if b == nil {
		return e.NIL()
	}
	return e.Bytes(b)
}

// NString is String, and NIL for the empty string.
func (e *Encoder) NString(s string) *Encoder {
	if s == "" {
		return e.NIL()
	}
	return e.String(s)
}

// AString appends s as an atom where it is one, else as String does.
func (e *Encoder) AString(s string) *Encoder {
	if isAString(s) {
		return e.Raw(s)
	}
	return e.String(s)
}

// Mailbox appends the name of a mailbox, which is UTF-8: as UTF-8 or modified UTF-7, by e.UTF8.
func (e *Encoder) Mailbox(name string) *Encoder {
	if isAString(name) && !hasByte(name, '&') {
		return e.Raw(name)
	}
	if e.UTF8 {
		return e.String(name)
	}
	var scratch [128]byte
	encoded := AppendUTF7(scratch[:0], name)
	e.room()
	if isAString(encoded) {
		e.buf = append(e.buf, encoded...)
	} else {
		e.buf = appendString(e.buf, encoded, false, false)
	}
	return e
}

// Flags appends flags in parentheses.
func (e *Encoder) Flags(flags []string) *Encoder {
	e.room()
	b := append(e.buf, '(')
	for i, flag := range flags {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(b, flag...)
	}
	e.buf = append(b, ')')
	return e
}

// NumSet appends a set, which must not be empty.
func (e *Encoder) NumSet(s NumSet) *Encoder {
	e.room()
	e.buf = s.AppendTo(e.buf)
	return e
}

// DateTime appends t as a date-time, in its own zone (RFC 9051 §9).
func (e *Encoder) DateTime(t time.Time) *Encoder {
	e.room()
	e.buf = t.AppendFormat(e.buf, `"_2-Jan-2006 15:04:05 -0700"`)
	return e
}

// LiteralHeader begins a literal of n bytes, which Write appends or LiteralFrom copies.
func (e *Encoder) LiteralHeader(n int64) *Encoder {
	e.room()
	e.buf = appendLiteralHeader(e.buf, n, false)
	return e
}

// Literal8Header begins a literal8 of n bytes (RFC 3516 §4.2).
func (e *Encoder) Literal8Header(n int64) *Encoder {
	e.room()
	e.buf = appendLiteralHeader(e.buf, n, true)
	return e
}

// CopyN writes n bytes of r, by way of the buffer. When r ends before, or fails, the error is returned and sticks: the
// literal that was announced cannot be completed, and the connection must be closed.
func (e *Encoder) CopyN(r io.Reader, n int64) error {
	for n > 0 && e.err == nil {
		if cap(e.buf)-len(e.buf) < writeBufferSize {
			if len(e.buf) >= flushSize {
				_ = e.Flush() // sticks in e.err
				continue
			}
			e.grow()
		}
		space := e.buf[len(e.buf):cap(e.buf)]
		m, err := r.Read(space[:min(int64(len(space)), n)])
		e.buf = e.buf[:len(e.buf)+m]
		n -= int64(m)
		if err != nil && n > 0 {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			_ = e.Flush() // the error of reading is the one to tell
			e.err = err
		}
	}
	return e.err
}

// grow makes room for more, up to what is flushed at once.
func (e *Encoder) grow() {
	e.room()
	b := make([]byte, len(e.buf), flushSize+writeBufferSize)
	copy(b, e.buf)
	e.buf = b
}

// appendString appends s quoted or as a literal; 8-bit bytes are quoted if eightBit is set.
func appendString[S ~string | ~[]byte](b []byte, s S, eightBit, literal8 bool) []byte {
	quoted, escapes, high, nul := len(s) <= maxQuoted, false, false, false
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 0x80:
			high = true
		case c == '"' || c == '\\':
			escapes = true
		case c == '\r' || c == '\n':
			quoted = false
		case c == 0:
			quoted, nul = false, true
		}
	}
	if !quoted || high && !eightBit {
		b = appendLiteralHeader(b, int64(len(s)), literal8 && nul)
		return append(b, s...)
	}
	b = append(b, '"')
	if !escapes {
		b = append(b, s...)
		return append(b, '"')
	}
	for i := range len(s) {
		if c := s[i]; c == '"' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

func appendLiteralHeader(b []byte, n int64, literal8 bool) []byte {
	if literal8 {
		b = append(b, '~')
	}
	b = append(b, '{')
	b = strconv.AppendInt(b, n, 10)
	return append(b, "}\r\n"...)
}

// isAString reports whether s can be written without quotes where an astring may be. NIL is not one of them, because
// clients take it for an nstring.
func isAString[S ~string | ~[]byte](s S) bool {
	if len(s) == 0 || len(s) > maxQuoted {
		return false
	}
	for i := range len(s) {
		if classes[s[i]]&classAString == 0 {
			return false
		}
	}
	return len(s) != 3 || upper(s[0]) != 'N' || upper(s[1]) != 'I' || upper(s[2]) != 'L'
}

func hasByte(s string, c byte) bool {
	for i := range len(s) {
		if s[i] == c {
			return true
		}
	}
	return false
}
