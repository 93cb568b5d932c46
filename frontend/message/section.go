package message

import "bytes"

// Specifier is what of a part a section names (RFC 9051 §6.4.5.1).
type Specifier uint8

// The specifiers of a section.
const (
	Whole           Specifier = iota // BODY[], BODY[1]: the message, or the body of a part
	Header                           // HEADER: the header of a message, with its empty line
	HeaderFields                     // HEADER.FIELDS: as HEADER, to be filtered by FilterHeader
	HeaderFieldsNot                  // HEADER.FIELDS.NOT: the same
	Text                             // TEXT: a message without its header
	MIME                             // MIME: the header of a part
)

// Section names a piece of a message.
type Section struct {
	// Path has the numbers of the parts, from 1; empty for the message itself.
	Path []int
	// Specifier is what of that part is meant. MIME needs a Path.
	Specifier Specifier
}

// Find returns the range of the message that sec names. ok is false if there is no such part; a client is then sent an
// empty string or NIL. For HeaderFields and HeaderFieldsNot it is the header
// that is to be filtered. Header and Text of a part that is no message/rfc822 name nothing.
func (s *Summary) Find(sec Section) (start, end int64, ok bool) {
	i := 0
	if len(sec.Path) > 0 {
		if i = s.PartAt(sec.Path); i < 0 {
			return 0, 0, false
		}
	}
	p := &s.Parts[i]
	switch sec.Specifier {
	case Whole:
		if len(sec.Path) == 0 {
			return p.HeaderStart, p.End, true
		}
		return p.BodyStart, p.End, true
	case MIME:
		return p.HeaderStart, p.BodyStart, len(sec.Path) > 0
	}
	if len(sec.Path) > 0 {
		if !p.IsMessage() {
			return 0, 0, false
		}
		p = &s.Parts[i+1]
	}
	if sec.Specifier == Text {
		return p.BodyStart, p.End, true
	}
	return p.HeaderStart, p.BodyStart, true
}

// PartAt returns the index of the part that a path of numbers names, -1 if there is none. Part 1 of a message that is no
// multipart is its body; numbers below a message/rfc822 are those of the message in it.
func (s *Summary) PartAt(path []int) int {
	at := 0
	for depth, n := range path {
		inside := depth == 0
		if depth > 0 && s.Parts[at].IsMessage() {
			at, inside = at+1, true
		}
		switch {
		case s.Parts[at].IsMultipart():
			if at = s.Child(at, n); at < 0 {
				return -1
			}
		case !inside || n != 1:
			return -1
		}
	}
	return at
}

// FilterHeader appends the fields of header that are named in fields, or with not those that are
// not, as they are, folding included, and then an empty line (RFC 9051 §6.4.5.1). Names are compared without
// regard to case. header is a header with or without its empty line. Lines that are no field
// and their continuations belong to no name: they are left out, or kept with not. A last line that the
// message ends in gets a line end.
func FilterHeader(dst, header []byte, fields [][]byte, not bool) []byte {
	start := len(dst)
	for rest := header; len(rest) > 0; {
		if rest[0] == '\n' || rest[0] == '\r' && len(rest) > 1 && rest[1] == '\n' {
			break
		}
		n := fieldEnd(rest)
		raw := rest[:n]
		rest = rest[n:]
		name, ok := fieldName(firstLine(raw))
		ok = ok && raw[0] != ' ' && raw[0] != '\t'
		if (ok && named(name, fields)) != not {
			dst = append(dst, raw...)
		}
	}
	if n := len(dst); n > start && dst[n-1] != '\n' {
		dst = append(dst, "\r\n"...)
	}
	return append(dst, "\r\n"...)
}

func named(name []byte, fields [][]byte) bool {
	for _, f := range fields {
		if len(f) == len(name) && bytes.EqualFold(f, name) {
			return true
		}
	}
	return false
}

// HeaderFields appends what BODY[HEADER.FIELDS (fields)] of the message is, from what the summary kept. ok is false if
// it does not know all of the fields; then the message's header must be read.
func (s *Summary) HeaderFields(dst []byte, fields [][]byte) (out []byte, ok bool) {
	for _, f := range fields {
		if !s.Complete(f) {
			return dst, false
		}
	}
	return FilterHeader(dst, s.Header, fields, false), true
}
