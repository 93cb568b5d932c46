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
func FilterHeader(dst, header []byte, fields *FieldNames, not bool) []byte {
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
		if (ok && fields.has(name)) != not {
			dst = append(dst, raw...)
		}
	}
	if n := len(dst); n > start && dst[n-1] != '\n' {
		dst = append(dst, "\r\n"...)
	}
	return append(dst, "\r\n"...)
}

// FieldNames is a set of names of header fields, which are compared without regard to case. The nil pointer is the empty set.
type FieldNames struct {
	rows  uint64          // bit i: fields[i] is one of them
	other bool            // one of them is none that a Summary has
	few   [][]byte        // all of them, if they are few
	many  map[string]bool // folded, if they are many
}

// fewNames is how many names are compared one after the other. A client may ask for thousands, of a header of millions of fields.
const fewNames = 32

// NewFieldNames returns the set of names, which it keeps.
func NewFieldNames(names [][]byte) *FieldNames {
	n := &FieldNames{few: names}
	if len(names) > fewNames {
		n.few, n.many = nil, make(map[string]bool)
	}
	for _, name := range names {
		if i := lookupField(name); i >= 0 && fields[i].roles&inHeader != 0 {
			n.rows |= 1 << i
		} else {
			n.other = true
		}
		if n.many != nil {
			n.many[string(AppendFolded(nil, name))] = true
		}
	}
	return n
}

// Empty reports whether there is no name in the set.
func (n *FieldNames) Empty() bool { return n == nil || len(n.few)+len(n.many) == 0 }

func (n *FieldNames) has(name []byte) bool {
	if n == nil {
		return false
	}
	for _, f := range n.few {
		if len(f) == len(name) && bytes.EqualFold(f, name) {
			return true
		}
	}
	if n.many == nil {
		return false
	}
	var folded [64]byte
	return n.many[string(AppendFolded(folded[:0], name))]
}

// CompleteFor reports whether Header answers for all fields of a set, as [Summary.Complete] does for one.
func (s *Summary) CompleteFor(names *FieldNames) bool {
	return names.Empty() || !names.other && s.cut&names.rows == 0
}
