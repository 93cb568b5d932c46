package message

import (
	"bytes"
	"slices"
	"strconv"
)

const maxParams = 64 // parameters kept of one field

// describe fills the MIME fields of p from its header (RFC 2045, RFC 2183, RFC 3282).
// Of several fields of one name the first counts.
func (s *Summary) describe(p *Part, header []byte, inDigest bool) {
	var seen [fNamed]bool
	for it := (fieldIter{rest: header}); it.next(); {
		f := lookupField(it.name())
		if f < 0 || fields[f].roles&inPart == 0 || seen[f] {
			continue
		}
		seen[f] = true
		v := s.mem.unfold(it.value())
		switch f {
		case fContentType:
			s.contentType(p, v)
		case fEncoding:
			sc := scanner{b: v}
			p.Encoding = s.mem.hold(sc.token(""))
		case fContentID:
			p.ID = s.mem.hold(v)
		case fDescription:
			p.Description = s.mem.hold(v)
		case fMD5:
			p.MD5 = s.mem.hold(v)
		case fLocation:
			p.Location = s.mem.hold(v)
		case fDisposition:
			sc := scanner{b: v}
			if t := sc.token(""); len(t) > 0 {
				p.Disposition = s.mem.hold(t)
				p.DispositionParams = s.scanParams(&sc)
			}
		case fLanguage:
			p.Language = s.scanLanguages(v)
		}
	}
	s.defaults(p, inDigest)
}

// defaults fills in what RFC 2045 §5.2, §6.1 and RFC 2046 §5.1.5 say of absent fields.
func (s *Summary) defaults(p *Part, inDigest bool) {
	if len(p.Encoding) == 0 {
		p.Encoding = []byte("7bit")
	}
	switch {
	case len(p.Type) > 0:
	case inDigest:
		p.Type, p.Subtype = []byte("message"), []byte("rfc822")
	default:
		p.Type, p.Subtype = []byte("text"), []byte("plain")
	}
	if p.IsText() && p.Param("charset") == nil && p.Param("charset*") == nil {
		n := len(s.params)
		s.params = append(s.params, p.Params...)
		s.params = append(s.params, Param{[]byte("charset"), []byte("us-ascii")})
		p.Params = s.params[n:len(s.params):len(s.params)]
	}
}

// contentType reads a Content-Type. One without a subtype is text/plain, as
// RFC 2045 §5.2 proposes for what is not valid, or multipart/mixed.
func (s *Summary) contentType(p *Part, v []byte) {
	sc := scanner{b: v}
	typ := sc.token("/")
	sc.space()
	var sub []byte
	if sc.take('/') {
		sub = sc.token("/")
	}
	switch {
	case len(typ) > 0 && len(sub) > 0:
		p.Type, p.Subtype = s.mem.hold(typ), s.mem.hold(sub)
	case equalFold(typ, "multipart"):
		p.Type, p.Subtype = s.mem.hold(typ), []byte("mixed")
	case len(v) > 0:
		p.Type, p.Subtype = []byte("text"), []byte("plain")
	default:
		return
	}
	p.Params = s.scanParams(&sc)
}

func (s *Summary) scanLanguages(v []byte) [][]byte {
	n := len(s.langs)
	sc := scanner{b: v}
	for sc.i < len(v) && len(s.langs)-n < maxParams {
		sc.space()
		if t := sc.token(","); len(t) > 0 {
			s.langs = append(s.langs, s.mem.hold(t))
		} else if !sc.take(',') {
			sc.i++
		}
	}
	if len(s.langs) == n {
		return nil
	}
	return s.langs[n:len(s.langs):len(s.langs)]
}

// scanParams reads parameters up to the end, and joins continuations.
func (s *Summary) scanParams(sc *scanner) []Param {
	n := len(s.params)
	split := false
	for len(s.params)-n < maxParams {
		sc.until(';')
		if !sc.take(';') {
			break
		}
		sc.space()
		name := sc.token("=")
		sc.space()
		if len(name) == 0 || !sc.take('=') {
			continue
		}
		s.params = append(s.params, Param{s.mem.hold(name), sc.value(&s.mem)})
		split = split || bytes.IndexByte(name, '*') > 0
	}
	if len(s.params) == n {
		return nil
	}
	if split {
		s.params = append(s.params[:n], s.join(s.params[n:])...)
	}
	return s.params[n:len(s.params):len(s.params)]
}

// segment is a piece of a continued parameter (RFC 2231 §3).
type segment struct {
	base     []byte
	number   int
	extended bool
	value    []byte
}

// join puts the pieces of continued parameters together, each where its first piece stood.
func (s *Summary) join(params []Param) []Param {
	out := make([]Param, 0, len(params))
	var segments []segment
	for _, p := range params {
		if seg, ok := parseSegment(p); ok {
			segments = append(segments, seg)
		}
	}
	slices.SortStableFunc(segments, func(a, b segment) int { return a.number - b.number })
	for _, p := range params {
		first, ok := parseSegment(p)
		if !ok {
			out = append(out, p)
			continue
		}
		var run []segment
		rest := segments[:0:0]
		for _, seg := range segments {
			if bytes.EqualFold(seg.base, first.base) {
				run = append(run, seg)
			} else {
				rest = append(rest, seg)
			}
		}
		segments = rest
		if len(run) > 0 {
			out = append(out, s.joined(run))
		}
	}
	return out
}

// joined makes one parameter of the pieces. If one of them is encoded all must be.
func (s *Summary) joined(run []segment) Param {
	extended := slices.ContainsFunc(run, func(seg segment) bool { return seg.extended })
	name := run[0].base
	if extended {
		name = append(slices.Clone(name), '*')
	}
	var value []byte
	if extended && !run[0].extended {
		value = append(value, "''"...)
	}
	for _, seg := range run {
		if !extended || seg.extended {
			value = append(value, seg.value...)
			continue
		}
		for _, c := range seg.value {
			if c <= ' ' || c >= 0x7f || bytes.IndexByte([]byte("*'%()<>@,;:\\\"/[]?="), c) >= 0 {
				value = append(value, '%', "0123456789ABCDEF"[c>>4], "0123456789ABCDEF"[c&15])
			} else {
				value = append(value, c)
			}
		}
	}
	return Param{s.mem.hold(name), s.mem.hold(value)}
}

// parseSegment takes a name like filename*2* apart.
func parseSegment(p Param) (segment, bool) {
	name, extended := p.Name, false
	if n := len(name); n > 0 && name[n-1] == '*' {
		name, extended = name[:n-1], true
	}
	i := bytes.LastIndexByte(name, '*')
	if i <= 0 {
		return segment{}, false
	}
	number, err := strconv.Atoi(string(name[i+1:]))
	if err != nil || number < 0 || number > 9999 {
		return segment{}, false
	}
	return segment{base: name[:i], number: number, extended: extended, value: p.Value}, true
}

// scanner reads the tokens of a structured field, and makes do with what it finds.
type scanner struct {
	b []byte
	i int
}

// space skips white space and comments.
func (sc *scanner) space() {
	for sc.i < len(sc.b) {
		switch sc.b[sc.i] {
		case ' ', '\t', '\r', '\n':
			sc.i++
		case '(':
			sc.i = commentEnd(sc.b, sc.i)
		default:
			return
		}
	}
}

func (sc *scanner) take(c byte) bool {
	if sc.i < len(sc.b) && sc.b[sc.i] == c {
		sc.i++
		return true
	}
	return false
}

// token reads up to white space, ';', '(' or one of stop. A quoted token loses its quotes.
func (sc *scanner) token(stop string) []byte {
	sc.space()
	if sc.i < len(sc.b) && sc.b[sc.i] == '"' {
		if end := bytes.IndexByte(sc.b[sc.i+1:], '"'); end >= 0 {
			t := sc.b[sc.i+1 : sc.i+1+end]
			sc.i += end + 2
			return t
		}
	}
	start := sc.i
	for sc.i < len(sc.b) {
		switch c := sc.b[sc.i]; {
		case c == ' ', c == '\t', c == '\r', c == '\n', c == ';', c == '(':
			return sc.b[start:sc.i]
		case len(stop) > 0 && c == stop[0]:
			return sc.b[start:sc.i]
		}
		sc.i++
	}
	return sc.b[start:]
}

// until moves to the next c that is neither quoted nor in a comment.
func (sc *scanner) until(c byte) {
	for sc.i < len(sc.b) && sc.b[sc.i] != c {
		switch sc.b[sc.i] {
		case '"':
			sc.i = quoteEnd(sc.b, sc.i)
		case '(':
			sc.i = commentEnd(sc.b, sc.i)
		default:
			sc.i++
		}
	}
}

// value reads a parameter's value: a quoted string without its quoting, or else what
// stands before the next ';' or comment, spaces within included, which many senders do not quote.
func (sc *scanner) value(mem *arena) []byte {
	sc.space()
	if sc.i < len(sc.b) && sc.b[sc.i] == '"' {
		start := sc.i + 1
		sc.i = quoteEnd(sc.b, sc.i)
		end := sc.i
		if end > start && sc.b[end-1] == '"' {
			end--
		}
		return mem.unquote(sc.b[start:end])
	}
	start := sc.i
	for sc.i < len(sc.b) && sc.b[sc.i] != ';' {
		if sc.b[sc.i] == '(' && sc.i > start && (sc.b[sc.i-1] == ' ' || sc.b[sc.i-1] == '\t') {
			break
		}
		sc.i++
	}
	return mem.hold(bytes.TrimRight(sc.b[start:sc.i], " \t\r\n"))
}

// unquote holds the content of a quoted string without its backslashes.
func (a *arena) unquote(b []byte) []byte {
	out := a.hold(b)
	if bytes.IndexByte(b, '\\') < 0 {
		return out
	}
	n := 0
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+1 < len(b) {
			i++
		}
		out[n] = b[i]
		n++
	}
	return out[:n]
}

// quoteEnd returns the index after the quoted string that begins at i; the end of b if it is not closed.
func quoteEnd(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// commentEnd returns the index after the comment that begins at i; the end of b if it is not closed.
func commentEnd(b []byte, i int) int {
	depth := 0
	for ; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(b)
}
