package message

import (
	"bytes"
	"unicode"
	"unicode/utf8"
)

const (
	previewChars = 200 // RFC 8970 §3
	plainSample  = 8 << 10
	htmlSample   = 48 << 10
)

// sample is the beginning of a text part, as encoded.
type sample struct {
	raw               []byte
	limit             int
	taken             bool
	encoding, charset []byte
}

// previewer keeps the beginning of the first plain text and of the first HTML, and of a multipart's body as long as no delimiter
// was seen in it.
type previewer struct {
	plain, html, preamble sample
	cur                   *sample
}

// begin is told of each leaf when its body begins. Attachments and forwarded messages are no preview.
func (v *previewer) begin(p *Part, nested int) {
	v.cur = nil
	if nested > 0 || p.IsAttachment() || !p.IsText() {
		return
	}
	var s *sample
	switch {
	case equalFold(p.Subtype, "html"):
		s = &v.html
		s.limit = htmlSample
	case equalFold(p.Subtype, "plain"):
		s = &v.plain
		s.limit = plainSample
	default:
		return
	}
	if !s.taken {
		s.taken, s.encoding, s.charset = true, p.Encoding, p.Param("charset")
		v.cur = s
	}
}

// beginPreamble is told when the body of a multipart that is the message begins.
func (v *previewer) beginPreamble() {
	v.preamble.limit = plainSample
	v.cur = &v.preamble
}

// end is told of each delimiter.
func (v *previewer) end() { v.cur, v.preamble.raw = nil, nil }

func (v *previewer) write(b []byte) {
	if v.cur != nil {
		v.cur.raw = append(v.cur.raw, b[:min(len(b), v.cur.limit-len(v.cur.raw))]...)
	}
}

// text returns the preview.
func (v *previewer) text() []byte {
	if t := preview(v.plain.decoded()); len(t) > 0 {
		return t
	}
	if t := preview(htmlText(v.html.decoded())); len(t) > 0 {
		return t
	}
	return preview(v.preamble.decoded())
}

func (s *sample) decoded() []byte {
	b := s.raw
	if d, err := newTransferDecoder(s.encoding); err == nil && d != nil {
		b = d.decode(nil, b, true)
	}
	if len(s.raw) == s.limit {
		b = wholeRunes(b)
	}
	return toUTF8(b, s.charset)
}

// wholeRunes takes off a UTF-8 sequence that the end of b cuts.
func wholeRunes(b []byte) []byte {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if utf8.RuneStart(b[len(b)-n]) {
			if !utf8.FullRune(b[len(b)-n:]) {
				return b[:len(b)-n]
			}
			break
		}
	}
	return b
}

// preview returns the first characters of text on one line. Quoted lines are left out, unless there is nothing else.
func preview(text []byte) []byte {
	if t := squeeze(text, true); len(t) > 0 {
		return t
	}
	return squeeze(text, false)
}

func squeeze(text []byte, unquoted bool) []byte {
	var out []byte
	chars := 0
	for len(text) > 0 && chars < previewChars {
		line := firstLine(text)
		text = text[min(len(line)+1, len(text)):]
		if unquoted && bytes.HasPrefix(bytes.TrimLeft(line, " \t"), []byte{'>'}) {
			continue
		}
		gap := chars > 0
		for _, r := range string(line) {
			switch {
			case unicode.IsSpace(r):
				gap = chars > 0
				continue
			case !unicode.IsPrint(r):
				continue // controls, zero-width padding of newsletters
			}
			if gap && chars < previewChars {
				out = append(out, ' ')
				chars++
				gap = false
			}
			if chars >= previewChars {
				return bytes.TrimRight(out, " ")
			}
			out = utf8.AppendRune(out, r)
			chars++
		}
	}
	return bytes.TrimRight(out, " ")
}
