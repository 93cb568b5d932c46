package message

import (
	"bytes"
	"encoding/binary"
	"slices"
	"unicode"
	"unicode/utf8"
)

// Matcher looks for several texts at once in text that comes in chunks, without regard to case. Two
// characters are the same if Unicode's simple case folding says so; bytes that are no UTF-8 are themselves. It
// keeps a few kilobytes and the needles. An empty needle is found in every text, even an empty one.
type Matcher struct {
	needles [][]byte // folded
	found   []bool
	missing int
	overlap int    // octets of folded text kept between chunks
	buf     []byte // folded text
	partial []byte // an unfinished UTF-8 sequence
}

// NewMatcher returns a matcher for needles in UTF-8.
func NewMatcher(needles [][]byte) *Matcher {
	m := new(Matcher)
	m.reset(needles)
	return m
}

// reset has the matcher look for needles in a new text. It keeps its memory.
func (m *Matcher) reset(needles [][]byte) {
	old := m.needles[:cap(m.needles)]
	m.needles, m.found = m.needles[:0], m.found[:0]
	m.missing, m.overlap, m.buf, m.partial = len(needles), 0, m.buf[:0], nil
	for i, n := range needles {
		var memory []byte
		if i < len(old) {
			memory = old[i][:0]
		}
		n = AppendFolded(memory, n)
		m.needles = append(m.needles, n)
		m.found = append(m.found, len(n) == 0)
		m.overlap = max(m.overlap, len(n)-1)
		if len(n) == 0 {
			m.missing--
		}
	}
}

// Found says for each needle whether it was found. The slice is the matcher's own.
func (m *Matcher) Found() []bool { return m.found }

// Done reports whether all needles were found, so that reading on is in vain.
func (m *Matcher) Done() bool { return m.missing == 0 }

const matchChunk = 4096 // octets folded at a time

// Write is Feed for [io.Writer]. It never fails.
func (m *Matcher) Write(b []byte) (int, error) {
	m.Feed(b)
	return len(b), nil
}

// Feed takes the next bytes of the text.
func (m *Matcher) Feed(b []byte) {
	for len(b) > 0 && m.missing > 0 {
		take := b[:min(len(b), matchChunk)]
		b = b[len(take):]
		if len(m.partial) > 0 {
			take = append(m.partial, take...)
		}
		whole := wholeRunes(take)
		m.fold(whole)
		m.partial = append([]byte(nil), take[len(whole):]...)
		m.search()
	}
}

// Break ends a text: nothing is found that begins before it and ends after it.
func (m *Matcher) Break() {
	if len(m.partial) > 0 {
		m.fold(m.partial)
		m.search()
	}
	m.buf, m.partial = m.buf[:0], m.partial[:0]
}

func (m *Matcher) fold(b []byte) {
	if over := len(m.buf) - m.overlap; over > 0 {
		m.buf = m.buf[:copy(m.buf, m.buf[over:])]
	}
	m.buf = AppendFolded(m.buf, b)
}

func (m *Matcher) search() {
	for i, n := range m.needles {
		if !m.found[i] && bytes.Contains(m.buf, n) {
			m.found[i] = true
			m.missing--
		}
	}
}

// FieldContains reports whether the text of a header field contains needle without regard to case, and to white space as
// AppendFoldedField has it.
func FieldContains(text, needle []byte) bool {
	var a, b [512]byte
	return bytes.Contains(AppendFoldedField(a[:0], text), AppendFoldedField(b[:0], needle))
}

// AppendFoldedField is AppendFolded for texts of header fields and what is looked for in them: each run of white space is
// one space too. Where a field is folded, with a tab or many spaces, is not to be seen where it is read (RFC 5322 §2.2.3).
func AppendFoldedField(dst, text []byte) []byte {
	start := len(dst)
	dst = AppendFolded(dst, text)
	return dst[:start+len(joinSpaces(dst[start:]))]
}

// joinSpaces makes each run of white space in text one space, in place.
func joinSpaces(text []byte) []byte {
	out, gap := text[:0], false
	for _, c := range text {
		space := c == ' ' || c == '\t' || c == '\r' || c == '\n'
		switch {
		case !space:
			out = append(out, c)
		case !gap:
			out = append(out, ' ')
		}
		gap = space
	}
	return out
}

// AppendFolded appends text with each character replaced by the one that stands for all
// that differ from it in case only. Bytes that are no UTF-8 stay.
func AppendFolded(dst, text []byte) []byte {
	dst = slices.Grow(dst, len(text))
	for i := 0; i < len(text); {
		if len(text)-i >= 8 {
			if eight := binary.LittleEndian.Uint64(text[i:]); eight&notASCII == 0 {
				dst = binary.LittleEndian.AppendUint64(dst, lowerEight(eight))
				i += 8
				continue
			}
		}
		if c := text[i]; c < utf8.RuneSelf {
			dst = append(dst, lowerASCII(c))
			i++
			continue
		}
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 {
			dst = append(dst, text[i])
			i++
			continue
		}
		dst = utf8.AppendRune(dst, foldRune(r))
		i += n
	}
	return dst
}

const (
	eachOctet = 0x0101010101010101
	notASCII  = 0x80 * eachOctet
)

// lowerEight is lowerASCII of eight ASCII characters at a time. The high bit of each is free, and tells
// whether a sum has passed it.
func lowerEight(eight uint64) uint64 {
	fromA := eight + (0x80-'A')*eachOctet
	pastZ := eight + (0x7f-'Z')*eachOctet
	return eight | (fromA^pastZ)&notASCII>>2 // 'a'-'A' is 0x20
}

// foldRune returns the character that stands for all that differ from r in case only.
func foldRune(r rune) rune {
	switch {
	case r < rune(len(folded)):
		return rune(folded[r])
	case 0x2e80 <= r && r < 0xa640, 0xac00 <= r && r < 0xd7b0: // Chinese, Japanese, Korean: no case
		return r
	}
	return foldOrbit(r)
}

// folded is foldOrbit for Latin, Greek, Cyrillic, Armenian and Hebrew.
var folded = func() (t [0x600]uint16) {
	for r := range t {
		t[r] = uint16(foldOrbit(rune(r)))
	}
	return t
}()

// foldOrbit returns the smallest of the characters that differ from r in case only, in ASCII the lower case one.
func foldOrbit(r rune) rune {
	least := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		least = min(least, f)
	}
	if least < utf8.RuneSelf {
		return rune(lowerASCII(byte(least)))
	}
	return least
}
