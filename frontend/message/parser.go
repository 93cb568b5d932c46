package message

import "bytes"

const (
	maxParts    = 500
	maxDepth    = 50
	maxBoundary = 200 // octets; a longer boundary is none
	lookahead   = 512 // octets of a line that are looked at to tell what it is

	headerRoom = 128 << 10 // octets kept of the message's own header
	nestedRoom = 128 << 10 // octets kept of the headers of all parts
	leastRoom  = 512       // octets that a part's header is always given
)

// Parser reads a message in one pass. It takes the bytes in chunks of any
// size, never fails, and keeps a bounded amount of memory whatever the message is.
type Parser struct {
	s    *Summary
	open []entity // from the message down to the part being read

	off    int64 // offset of the next byte
	lines  int64 // line ends before off
	eol    int   // length of the line end just before off: 0, 1 or 2
	last   byte
	start  bool   // off is at the start of a line
	header bool   // in the header of the innermost open entity
	middle bool   // in the rest of a header line longer than lookahead
	skip   bool   // in the rest of a delimiter line longer than lookahead
	deaf   bool   // the bound of parts was reached: no more delimiters
	bounds int    // open multiparts whose delimiters count
	line   []byte // the beginning of a line that is not decided yet

	fields  collector
	room    int
	preview previewer
}

// entity is a part that is being read.
type entity struct {
	part     int
	boundary []byte // of a multipart whose delimiters are awaited
	lines    int64  // line ends before its body
	nested   int    // how many messages it is inside of
}

// NewParser returns a parser at the start of a message.
func NewParser() *Parser {
	p := &Parser{s: &Summary{}, room: nestedRoom, start: true}
	p.push(false)
	return p
}

// Write takes the next bytes of the message. It implements [io.Writer]; the error is always nil.
func (p *Parser) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		switch {
		case p.skip:
			b = p.skipLine(b)
		case p.header:
			b = p.readHeader(b)
		default:
			b = p.readBody(b)
		}
	}
	return n, nil
}

// Close ends the message and returns its summary. The parser must not be used afterwards.
func (p *Parser) Close() *Summary {
	if len(p.line) > 0 {
		if p.header {
			p.headerLine(p.line)
		} else {
			p.bodyLine(p.line)
		}
	}
	p.endHeaders()
	p.closeDown(0, p.off)
	p.s.link()
	p.s.derive()
	p.s.ReadEnvelope()
	p.s.Preview = p.preview.text()
	return p.s
}

// push opens an entity whose header begins here.
func (p *Parser) push(digest bool) {
	depth := len(p.open)
	nested := 0
	want := inHeader | inEnvelope | inPart
	room := headerRoom
	if depth > 0 {
		nested = p.open[depth-1].nested
		want, room = inPart, max(min(p.room, headerRoom), leastRoom)
		if p.s.Parts[p.open[depth-1].part].kind == kindMessage {
			want |= inEnvelope
			nested++
		}
	}
	if depth > 0 {
		p.s.Parts[p.open[depth-1].part].Children++
	}
	p.open = append(p.open, entity{part: len(p.s.Parts), nested: nested})
	p.deaf = p.deaf || len(p.s.Parts) == maxParts-1
	part := Part{HeaderStart: p.off, BodyStart: -1, Parent: -1}
	if digest {
		part.Type = []byte("message")
	}
	p.s.Parts = append(p.s.Parts, part)
	p.fields.begin(want, room)
	p.header = true
}

// readHeader takes bytes of a header, a line at a time.
func (p *Parser) readHeader(b []byte) []byte {
	if p.middle {
		n, ended := lineLength(b)
		p.fields.more(b[:n])
		p.advance(b[:n])
		p.middle = !ended
		return b[n:]
	}
	b, whole := p.gather(b)
	if whole {
		p.headerLine(p.line)
		p.line = p.line[:0]
	}
	return b
}

// gather adds to p.line what belongs to it, and reports whether it can be decided on.
func (p *Parser) gather(b []byte) (rest []byte, whole bool) {
	n, ended := lineLength(b)
	if room := lookahead - len(p.line); n > room {
		n, ended = room, false
	}
	p.line = append(p.line, b[:n]...)
	return b[n:], ended || len(p.line) == lookahead
}

func lineLength(b []byte) (n int, ended bool) {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return i + 1, true
	}
	return len(b), false
}

func (p *Parser) headerLine(line []byte) {
	if p.delimiter(line) {
		return
	}
	switch {
	case line[0] == '\n', len(line) == 2 && line[0] == '\r' && line[1] == '\n':
		p.advance(line)
		p.endHeader()
		return
	case line[0] == ' ', line[0] == '\t':
		p.fields.more(line)
	default:
		p.fields.field(line)
	}
	p.advance(line)
	p.middle = !p.start
}

// endHeader ends the header of the innermost entity at off, and begins its body.
func (p *Parser) endHeader() {
	p.fields.end()
	p.header, p.middle = false, false
	depth := len(p.open)
	e := &p.open[depth-1]
	part := &p.s.Parts[e.part]
	part.BodyStart, e.lines = p.off, p.lines
	digest := part.Type != nil
	part.Type = nil
	p.s.describe(part, p.fields.buf, digest)
	switch {
	case depth == 1:
		p.s.Header = appendFields(nil, p.fields.buf, inHeader)
		p.s.cut = p.fields.cut
	case p.fields.want&inEnvelope != 0:
		part.header = appendFields([]byte{}, p.fields.buf, inEnvelope)
	}
	if depth > 1 {
		p.room -= len(p.fields.buf)
	}
	p.enter(e, part, depth)
}

// enter decides how the body of a part is read.
func (p *Parser) enter(e *entity, part *Part, depth int) {
	container := equalFold(part.Type, "multipart") || isMessageType(part)
	if e.part == maxParts-1 || container && depth >= maxDepth {
		part.Type, part.Subtype, part.Params = []byte("application"), []byte("octet-stream"), nil
		container = false
	}
	switch {
	case !container:
		p.preview.begin(part, e.nested)
	case equalFold(part.Type, "multipart"):
		part.kind = kindMultipart
		if b := bytes.TrimRight(part.Param("boundary"), " \t"); len(b) > 0 && len(b) <= maxBoundary {
			e.boundary = b
			p.bounds++
			if depth == 1 {
				p.preview.beginPreamble()
			}
			return
		}
		p.push(false)
		p.endHeader()
	default:
		part.kind = kindMessage
		encoded := isEncoded(part.Encoding)
		encoding := part.Encoding
		p.push(false)
		if encoded {
			p.endHeader()
			inner := &p.s.Parts[len(p.s.Parts)-1]
			inner.Type, inner.Subtype, inner.Params = []byte("application"), []byte("octet-stream"), nil
			inner.Encoding = encoding
			p.preview.end()
		}
	}
}

func isMessageType(p *Part) bool {
	return equalFold(p.Type, "message") && (equalFold(p.Subtype, "rfc822") || equalFold(p.Subtype, "global"))
}

// isEncoded reports whether bytes in that transfer encoding differ from what they encode.
func isEncoded(encoding []byte) bool {
	return equalFold(encoding, "base64") || equalFold(encoding, "quoted-printable")
}

// appendFields appends the fields of header that have one of the roles.
func appendFields(dst, header []byte, want role) []byte {
	for it := (fieldIter{rest: header}); it.next(); {
		if i := lookupField(it.name()); i >= 0 && fields[i].roles&want != 0 {
			dst = append(dst, it.raw...)
		}
	}
	return dst
}

// readBody takes bytes of a body. Lines that may be delimiters are gathered; all else passes through.
func (p *Parser) readBody(b []byte) []byte {
	if len(p.line) > 0 || p.start && b[0] == '-' && p.bounds > 0 && !p.deaf {
		b, whole := p.gather(b)
		if len(p.line) > 1 && p.line[1] != '-' {
			whole = true
		}
		if whole {
			p.bodyLine(p.line)
			p.line = p.line[:0]
		}
		return b
	}
	n := len(b)
	if p.bounds > 0 && !p.deaf {
		if i := bytes.Index(b, []byte("\n-")); i >= 0 {
			n = i + 1
		}
	}
	p.content(b[:n])
	return b[n:]
}

func (p *Parser) bodyLine(line []byte) {
	if !p.delimiter(line) {
		p.content(line)
	}
}

// content takes bytes of the body of the innermost entity.
func (p *Parser) content(b []byte) {
	p.preview.write(b)
	p.advance(b)
}

// advance counts bytes.
func (p *Parser) advance(b []byte) {
	p.off += int64(len(b))
	p.lines += int64(bytes.Count(b, []byte{'\n'}))
	n := len(b)
	if p.start = b[n-1] == '\n'; p.start {
		before := p.last
		if n > 1 {
			before = b[n-2]
		}
		if p.eol = 1; before == '\r' {
			p.eol = 2
		}
	} else {
		p.eol = 0
	}
	p.last = b[n-1]
}

func (p *Parser) skipLine(b []byte) []byte {
	n, ended := lineLength(b)
	p.advance(b[:n])
	if p.skip = !ended; ended {
		p.afterDelimiter()
	}
	return b[n:]
}

// delimiter reports whether line is a delimiter of an open multipart, and if so ends and begins what it says.
func (p *Parser) delimiter(line []byte) bool {
	if p.bounds == 0 || p.deaf || !p.start || len(line) < 3 || line[0] != '-' || line[1] != '-' {
		return false
	}
	depth, last := p.match(line[2:])
	if depth < 0 {
		return false
	}
	p.endHeaders()
	p.closeDown(depth+1, p.off-int64(p.eol))
	p.preview.end()
	if last {
		p.open[depth].boundary = nil
		p.bounds--
	}
	p.advance(line)
	if p.skip = !p.start; p.start {
		p.afterDelimiter()
	}
	return true
}

// match finds the open multipart whose delimiter begins with line (without its two hyphens), and whether it is the last
// one. What fits to the end of the line is preferred to what has something behind it.
func (p *Parser) match(line []byte) (depth int, last bool) {
	depth = -1
	for i := len(p.open) - 1; i >= 0; i-- {
		b := p.open[i].boundary
		if b == nil || !bytes.HasPrefix(line, b) {
			continue
		}
		tail := line[len(b):]
		closing := bytes.HasPrefix(tail, []byte("--"))
		if closing {
			tail = tail[2:]
		}
		switch {
		case len(bytes.TrimLeft(tail, " \t\r\n")) == 0:
			return i, closing
		case depth < 0 && (closing || tail[0] == ' ' || tail[0] == '\t'):
			depth, last = i, closing
		}
	}
	return depth, last
}

// afterDelimiter begins the part that a delimiter line announced.
func (p *Parser) afterDelimiter() {
	top := &p.open[len(p.open)-1]
	if top.boundary != nil {
		p.push(equalFold(p.s.Parts[top.part].Subtype, "digest"))
	}
}

// endHeaders ends headers that the end of their part cuts off.
func (p *Parser) endHeaders() {
	for p.header {
		p.endHeader()
	}
}

// closeDown ends all entities below depth. Their bodies end at end, or at off where that is their start.
func (p *Parser) closeDown(depth int, end int64) {
	for i := len(p.open) - 1; i >= depth; i-- {
		e := &p.open[i]
		if e.boundary != nil {
			p.bounds--
		}
		part := &p.s.Parts[e.part]
		end = max(end, part.BodyStart)
		part.End = end
		if part.kind == kindMessage || part.IsText() {
			part.Lines = p.lines - e.lines
			if end < p.off {
				part.Lines--
			}
		}
		switch {
		case part.kind != kindMultipart || part.Children > 0:
		case len(p.s.Parts) >= maxParts-1: // room is left for one part only, which may follow
			part.kind = kindLeaf
			part.Type, part.Subtype, part.Params = []byte("application"), []byte("octet-stream"), nil
		default:
			part.Children = 1
			child := Part{HeaderStart: part.BodyStart, BodyStart: part.BodyStart, End: end, Lines: p.lines - e.lines}
			if end < p.off {
				child.Lines--
			}
			p.s.describe(&child, nil, false)
			p.s.Parts = append(p.s.Parts, child)
		}
	}
	p.open = p.open[:depth]
}
