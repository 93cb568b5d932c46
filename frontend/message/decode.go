package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// ErrUnknownEncoding says that a Content-Transfer-Encoding is none that can be
// decoded: NO [UNKNOWN-CTE] (RFC 3516 §4.3).
var ErrUnknownEncoding = errors.New("unknown content-transfer-encoding")

// Decode returns a reader of what r encodes (RFC 2045 §6). encoding is compared
// without regard to case; empty is 7bit. What is not valid never is an error: in base64 other bytes
// are passed over and a missing end is made do without; in quoted-printable a wrong escape stands
// for itself. Errors are those of r, and [ErrUnknownEncoding].
func Decode(r io.Reader, encoding string) (io.Reader, error) {
	d, err := newTransferDecoder([]byte(encoding))
	if err != nil {
		return nil, err
	}
	if d == nil {
		return r, nil
	}
	return &decodingReader{r: r, d: d}, nil
}

// transferDecoder decodes bytes as they come. final says that in is the last.
type transferDecoder interface {
	decode(dst, in []byte, final bool) []byte
}

// newTransferDecoder returns nil for encodings that change nothing.
func newTransferDecoder(encoding []byte) (transferDecoder, error) {
	encoding = bytes.TrimSpace(encoding)
	switch {
	case len(encoding) == 0, equalFold(encoding, "7bit"), equalFold(encoding, "8bit"), equalFold(encoding, "binary"):
		return nil, nil
	case equalFold(encoding, "7-bit"), equalFold(encoding, "8-bit"), equalFold(encoding, "7bits"), equalFold(encoding, "8bits"):
		return nil, nil // common misspellings
	case equalFold(encoding, "base64"):
		return &base64Decoder{}, nil
	case equalFold(encoding, "quoted-printable"):
		return &quotedDecoder{}, nil
	}
	return nil, fmt.Errorf("decode %q: %w", encoding, ErrUnknownEncoding)
}

// decodingReader pulls bytes through a decoder.
type decodingReader struct {
	r    io.Reader
	d    transferDecoder
	in   [4096]byte
	buf  []byte
	out  []byte
	done error
}

func (r *decodingReader) Read(b []byte) (int, error) {
	for len(r.out) == 0 && r.done == nil {
		n, err := r.r.Read(r.in[:])
		if err != nil {
			r.done = err
		}
		r.buf = r.d.decode(r.buf[:0], r.in[:n], errors.Is(err, io.EOF))
		r.out = r.buf
	}
	if len(r.out) == 0 {
		return 0, r.done
	}
	n := copy(b, r.out)
	r.out = r.out[n:]
	return n, nil
}

// base64Decoder decodes base64 (RFC 2045 §6.8).
type base64Decoder struct {
	bits uint32
	n    int // digits in bits
}

var base64Digit = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		t[c] = byte(i)
	}
	return t
}()

func (d *base64Decoder) decode(dst, in []byte, final bool) []byte {
	for _, c := range in {
		v := base64Digit[c]
		if v == 0xff {
			if c == '=' {
				dst = d.flush(dst)
			}
			continue
		}
		d.bits = d.bits<<6 | uint32(v)
		if d.n++; d.n == 4 {
			dst = append(dst, byte(d.bits>>16), byte(d.bits>>8), byte(d.bits))
			d.bits, d.n = 0, 0
		}
	}
	if final {
		dst = d.flush(dst)
	}
	return dst
}

// flush ends a group of digits at padding or at the end.
func (d *base64Decoder) flush(dst []byte) []byte {
	switch d.n {
	case 2:
		dst = append(dst, byte(d.bits>>4))
	case 3:
		dst = append(dst, byte(d.bits>>10), byte(d.bits>>2))
	}
	d.bits, d.n = 0, 0
	return dst
}

const maxHeld = 1024 // octets of white space that may turn out to end a line

// quotedDecoder decodes quoted-printable (RFC 2045 §6.7). It holds back what it cannot decide on: white
// space that may end a line, and what may be an escape.
type quotedDecoder struct {
	held []byte
}

func (d *quotedDecoder) decode(dst, in []byte, final bool) []byte {
	for i, c := range in {
		// Nearly all bytes stand for themselves, a space too if something else follows in its line.
		if len(d.held) == 0 && (c > ' ' && c != '=' || c == ' ' && i+1 < len(in) && in[i+1] > ' ') {
			dst = append(dst, c)
			continue
		}
		for again := true; again; {
			dst, again = d.byte(dst, c)
		}
	}
	if final && len(d.held) > 0 {
		switch {
		case d.held[0] != '=':
		case len(bytes.TrimRight(d.held, " \t\r")) == 1:
		default:
			dst = append(dst, d.held...)
		}
		d.held = d.held[:0]
	}
	return dst
}

// byte takes a byte, and reports whether it must be given again, since what was held is decided.
func (d *quotedDecoder) byte(dst []byte, c byte) ([]byte, bool) {
	n := len(d.held)
	white := c == ' ' || c == '\t' || c == '\r'
	switch {
	case n == 0 && (white || c == '='):
		d.held = append(d.held, c)
		return dst, false
	case n == 0:
		return append(dst, c), false
	case n == maxHeld:
		dst = append(dst, d.held...)
		d.held = d.held[:0]
		return dst, true
	case d.held[0] != '=' && white:
		d.held = append(d.held, c)
		return dst, false
	case d.held[0] != '=' && c == '\n':
		if d.held[n-1] == '\r' {
			dst = append(dst, '\r')
		}
		d.held = d.held[:0]
		return append(dst, '\n'), false
	case d.held[0] != '=':
		dst = append(dst, d.held...)
		d.held = d.held[:0]
		return dst, true
	}
	return d.escape(dst, c, white)
}

// escape takes a byte after '='.
func (d *quotedDecoder) escape(dst []byte, c byte, white bool) ([]byte, bool) {
	n := len(d.held)
	switch {
	case n == 1 && unhex(c) >= 0:
		d.held = append(d.held, c)
		return dst, false
	case n == 2 && unhex(d.held[1]) >= 0:
		if unhex(c) >= 0 {
			dst = append(dst, byte(unhex(d.held[1])<<4|unhex(c)))
			d.held = d.held[:0]
			return dst, false
		}
	case white:
		d.held = append(d.held, c)
		return dst, false
	case c == '\n':
		d.held = d.held[:0]
		return dst, false
	}
	dst = append(dst, '=')
	rest := append([]byte(nil), d.held[1:]...)
	d.held = d.held[:0]
	for _, h := range rest {
		for again := true; again; {
			dst, again = d.byte(dst, h)
		}
	}
	return dst, true
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}
