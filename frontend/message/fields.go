package message

import "bytes"

// role says what a header field is for.
type role uint8

const (
	inHeader   role = 1 << iota // kept in Summary.Header
	inEnvelope                  // part of the envelope, of nested messages too
	inPart                      // describes a MIME part
)

// fieldSpec is a row of the table of header fields.
type fieldSpec struct {
	name  string // lower case
	limit int    // octets kept of all fields of this name in one header
	roles role
}

// Indexes of the rows that code names. They are stored in bit sets: rows are only ever added at the end, at most 64.
const (
	fDate = iota
	fSubject
	fFrom
	fSender
	fReplyTo
	fTo
	fCc
	fBcc
	fInReplyTo
	fMessageID
	fReferences
	fContentType
	fMIMEVersion
	fEncoding
	fContentID
	fDescription
	fDisposition
	fMD5
	fLanguage
	fLocation
	fNamed // rows from here on are known by name only
)

const (
	addressLimit = 64 << 10
	textLimit    = 8 << 10
	otherLimit   = 1 << 10
)

// fields are the header fields that a summary knows. A field of a row with
// inHeader is either wholly in Summary.Header, or absent from the message, or marked as cut.
var fields = [...]fieldSpec{
	fDate:        {"date", otherLimit, inHeader | inEnvelope},
	fSubject:     {"subject", textLimit, inHeader | inEnvelope},
	fFrom:        {"from", addressLimit, inHeader | inEnvelope},
	fSender:      {"sender", addressLimit, inHeader | inEnvelope},
	fReplyTo:     {"reply-to", addressLimit, inHeader | inEnvelope},
	fTo:          {"to", addressLimit, inHeader | inEnvelope},
	fCc:          {"cc", addressLimit, inHeader | inEnvelope},
	fBcc:         {"bcc", addressLimit, inHeader | inEnvelope},
	fInReplyTo:   {"in-reply-to", textLimit, inHeader | inEnvelope},
	fMessageID:   {"message-id", textLimit, inHeader | inEnvelope},
	fReferences:  {"references", textLimit, inHeader},
	fContentType: {"content-type", textLimit, inHeader | inPart},
	fMIMEVersion: {"mime-version", otherLimit, inHeader},
	fEncoding:    {"content-transfer-encoding", otherLimit, inPart},
	fContentID:   {"content-id", otherLimit, inPart},
	fDescription: {"content-description", textLimit, inPart},
	fDisposition: {"content-disposition", textLimit, inPart},
	fMD5:         {"content-md5", otherLimit, inPart},
	fLanguage:    {"content-language", otherLimit, inPart},
	fLocation:    {"content-location", textLimit, inPart},

	fNamed:      {"importance", otherLimit, inHeader},
	fNamed + 1:  {"x-priority", otherLimit, inHeader},
	fNamed + 2:  {"priority", otherLimit, inHeader},
	fNamed + 3:  {"x-msmail-priority", otherLimit, inHeader},
	fNamed + 4:  {"list-id", otherLimit, inHeader},
	fNamed + 5:  {"list-post", otherLimit, inHeader},
	fNamed + 6:  {"list-unsubscribe", otherLimit, inHeader},
	fNamed + 7:  {"list-unsubscribe-post", otherLimit, inHeader},
	fNamed + 8:  {"newsgroups", otherLimit, inHeader},
	fNamed + 9:  {"followup-to", otherLimit, inHeader},
	fNamed + 10: {"delivered-to", otherLimit, inHeader},
	fNamed + 11: {"return-path", otherLimit, inHeader},
	fNamed + 12: {"return-receipt-to", otherLimit, inHeader},
	fNamed + 13: {"disposition-notification-to", otherLimit, inHeader},
	fNamed + 14: {"mail-followup-to", otherLimit, inHeader},
	fNamed + 15: {"mail-reply-to", otherLimit, inHeader},
	fNamed + 16: {"resent-from", otherLimit, inHeader},
	fNamed + 17: {"resent-to", otherLimit, inHeader},
	fNamed + 18: {"resent-cc", otherLimit, inHeader},
	fNamed + 19: {"resent-date", otherLimit, inHeader},
	fNamed + 20: {"resent-message-id", otherLimit, inHeader},
	fNamed + 21: {"auto-submitted", otherLimit, inHeader},
	fNamed + 22: {"precedence", otherLimit, inHeader},
	fNamed + 23: {"x-spam-flag", otherLimit, inHeader},
	fNamed + 24: {"x-spam-status", otherLimit, inHeader},
	fNamed + 25: {"x-draft-info", otherLimit, inHeader},
	fNamed + 26: {"x-identity-key", otherLimit, inHeader},
	fNamed + 27: {"x-k9mail-identity", otherLimit, inHeader},
	fNamed + 28: {"x-universally-unique-identifier", otherLimit, inHeader},
	fNamed + 29: {"x-uniform-type-identifier", otherLimit, inHeader},
	fNamed + 30: {"x-tuid", otherLimit, inHeader},
	fNamed + 31: {"autocrypt", otherLimit, inHeader},
}

// lookupField returns the row of a field's name, -1 if there is none.
func lookupField(name []byte) int {
	for i := range fields {
		if equalFold(name, fields[i].name) {
			return i
		}
	}
	return -1
}

// Complete reports whether Header answers for the field: it then has all fields of
// that name that the message has, which may be none. When it is false the message's own
// header must be read. The name is compared without regard to case.
func (s *Summary) Complete(name []byte) bool {
	i := lookupField(name)
	return i >= 0 && fields[i].roles&inHeader != 0 && s.cut&(1<<i) == 0
}

// collector gathers the wanted fields of one header.
type collector struct {
	buf  []byte
	want role
	room int // octets left for the whole header
	used [len(fields)]int
	cur  int // row of the field that is being read, -1 for one not wanted
	cut  uint64
}

// begin makes the collector ready for a header.
func (c *collector) begin(want role, room int) {
	c.buf, c.want, c.room, c.cur, c.cut = c.buf[:0], want, room, -1, 0
	c.used = [len(fields)]int{}
}

// field takes the first line of a field, or its first piece.
func (c *collector) field(line []byte) {
	c.end()
	c.cur = -1
	name, ok := fieldName(line)
	if !ok {
		return
	}
	if i := lookupField(name); i >= 0 && fields[i].roles&c.want != 0 {
		c.cur = i
		c.more(line)
	}
}

// more takes a further piece of the field.
func (c *collector) more(b []byte) {
	if c.cur < 0 {
		return
	}
	if n := min(fields[c.cur].limit-c.used[c.cur], c.room); len(b) > n {
		b = b[:max(n, 0)]
		c.cut |= 1 << c.cur
	}
	c.used[c.cur] += len(b)
	c.room -= len(b)
	c.buf = append(c.buf, b...)
}

// end closes the field: one that was cut, or that the message ends in, gets a line end.
func (c *collector) end() {
	if n := len(c.buf); c.cur >= 0 && n > 0 && c.buf[n-1] != '\n' {
		c.buf = append(c.buf, "\r\n"...)
	}
	c.cur = -1
}

// fieldName returns the name that a header line begins with. White space before the
// colon is allowed (RFC 5322 §4.5).
func fieldName(line []byte) ([]byte, bool) {
	i := bytes.IndexByte(line, ':')
	if i < 0 {
		return nil, false
	}
	name := bytes.TrimRight(line[:i], " \t")
	return name, len(name) > 0
}

// fieldIter walks over the fields of a header.
type fieldIter struct {
	rest []byte
	raw  []byte // the whole field with its line ends
}

// next moves to the next field and reports whether there is one. Fields
// have a colon in their first line; other lines are passed over, and so is
// what follows an empty line.
func (it *fieldIter) next() bool {
	for len(it.rest) > 0 {
		if it.rest[0] == '\n' || it.rest[0] == '\r' && len(it.rest) > 1 && it.rest[1] == '\n' {
			return false
		}
		n := fieldEnd(it.rest)
		it.raw, it.rest = it.rest[:n], it.rest[n:]
		if it.raw[0] == ' ' || it.raw[0] == '\t' {
			continue
		}
		if bytes.IndexByte(firstLine(it.raw), ':') > 0 {
			return true
		}
	}
	return false
}

// name returns the field's name, in its own spelling.
func (it *fieldIter) name() []byte {
	name, _ := fieldName(it.raw)
	return name
}

// value returns what stands after the colon, line ends included.
func (it *fieldIter) value() []byte { return it.raw[bytes.IndexByte(it.raw, ':')+1:] }

// fieldEnd returns the length of the line that b begins with and its continuations.
func fieldEnd(b []byte) int {
	n := 0
	for {
		i := bytes.IndexByte(b[n:], '\n')
		if i < 0 {
			return len(b)
		}
		n += i + 1
		if n == len(b) || b[n] != ' ' && b[n] != '\t' {
			return n
		}
	}
}

func firstLine(b []byte) []byte {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i]
	}
	return b
}

// appendUnfolded appends a field's value with its line ends taken out (RFC 5322
// §2.2.3), white space around it trimmed, and NUL as a space.
func appendUnfolded(dst, value []byte) []byte {
	value = bytes.Trim(value, " \t\r\n")
	for len(value) > 0 {
		i := bytes.IndexAny(value, "\n\x00")
		if i < 0 {
			return append(dst, value...)
		}
		line := value[:i]
		if value[i] == '\n' && i > 0 && line[i-1] == '\r' {
			line = line[:i-1]
		}
		dst = append(dst, line...)
		if value[i] == 0 {
			dst = append(dst, ' ')
		}
		value = value[i+1:]
	}
	return dst
}

// unfold is appendUnfolded without a copy where none is needed.
func (a *arena) unfold(value []byte) []byte {
	if value = bytes.Trim(value, " \t\r\n"); value == nil {
		return []byte{} // empty is not absent
	}
	if bytes.IndexByte(value, '\n') < 0 && bytes.IndexByte(value, 0) < 0 {
		return value[:len(value):len(value)]
	}
	if len(value) > cap(a.buf)-len(a.buf) {
		a.buf = make([]byte, 0, max(len(value), min(2*cap(a.buf), arenaChunk), 512))
	}
	n := len(a.buf)
	a.buf = appendUnfolded(a.buf, value)
	return a.buf[n:len(a.buf):len(a.buf)]
}
