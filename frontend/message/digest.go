package message

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Digest is what searches ask of a summary most, made so that it is small and quickly
// looked through: the day that the message was sent, and the texts of a few header fields,
// decoded and folded (see [AppendFoldedField]). It lives in memory alone; what makes it up may change.
//
// It is the day, a set of two bits for each of digestFields, the lengths of the
// texts that it has, and the texts.
type Digest []byte

// DigestField is a header field of which a Digest has the text.
type DigestField int8

// digestFields are the rows of fields that a DigestField counts in.
var digestFields = [...]int{fFrom, fTo, fSubject, fCc, fBcc, fMessageID}

// States of a field in a digest.
const (
	digestAbsent  = iota // the message has no such field
	digestText           // it has one, and here is its text
	digestUnknown        // it has several, or a long one, or it is not known: somebody else has to be asked
)

const (
	// maxDigestText bounds what of one field is kept, in octets.
	maxDigestText = 1 << 10
	noDay         = -1 << 31
	digestHead    = 4 + 2
)

// LookupDigestField finds a field by its name, which is compared without regard to case.
func LookupDigestField(name []byte) (DigestField, bool) {
	for i, row := range digestFields {
		if equalFold(name, fields[row].name) {
			return DigestField(i), true
		}
	}
	return 0, false
}

// Sent is the day that [Summary.SentDate] is in its own zone, counted from 1 January
// 1970. ok is false if there is none.
func (d Digest) Sent() (day int64, ok bool) {
	n := int32(binary.LittleEndian.Uint32(d)) //nolint:gosec // as it was written
	return int64(n), n != noDay
}

// Contains says whether the message has the field with needle, which is folded, in its decoded
// text. known is false if the digest cannot tell.
func (d Digest) Contains(f DigestField, needle []byte) (found, known bool) {
	states := binary.LittleEndian.Uint16(d[4:])
	switch states >> (2 * f) & 3 {
	case digestAbsent:
		return false, true
	case digestText:
	default:
		return false, false
	}
	rest, start, length := []byte(d[digestHead:]), 0, 0
	for i := range DigestField(len(digestFields)) {
		if states>>(2*i)&3 != digestText {
			continue
		}
		n := int(rest[0])
		if rest = rest[1:]; n >= 0x80 {
			n = n&0x7f | int(rest[0])<<7
			rest = rest[1:]
		}
		switch {
		case i < f:
			start += n
		case i == f:
			length = n
		}
	}
	return bytes.Contains(rest[start:start+length], needle), true
}

// Digester makes digests. It has one user at a time, and keeps memory for the next.
type Digester struct {
	summary Summary
	decoded []byte
	texts   []byte
	seen    [len(digestFields)]int
	ends    [len(digestFields)]struct{ from, to int }
}

// Append appends the digest of a summary in its stored form, of which it looks at the header
// alone. Errors are [ErrCorrupt].
func (g *Digester) Append(dst, stored []byte) ([]byte, error) {
	s := &g.summary
	s.mem.reset()
	if err := s.unpack(stored); err != nil {
		return dst, err
	}
	d := payload{b: s.raw}
	s.cut, s.Header = d.uvarint(), d.bytes()
	if d.bad {
		return dst, fmt.Errorf("read header: %w", ErrCorrupt)
	}
	return g.append(dst), nil
}

// append appends the digest of the header that was read.
func (g *Digester) append(dst []byte) []byte {
	s := &g.summary
	g.texts, g.seen = g.texts[:0], [len(digestFields)]int{}
	day, dated := int32(noDay), false
	for it := (fieldIter{rest: s.Header}); it.next(); {
		name := it.name()
		if !dated && equalFold(name, fields[fDate].name) {
			dated = true // the first counts, as in an envelope
			if t, ok := ParseDate(s.mem.unfold(it.value())); ok {
				day = int32(civilDay(t)) //nolint:gosec // a year has six digits at most
			}
			continue
		}
		if f, ok := LookupDigestField(name); ok {
			g.field(f, s.mem.unfold(it.value()))
		}
	}
	states := uint16(0)
	for i, row := range digestFields {
		states |= g.state(i, s.cut&(1<<row) != 0) << (2 * i)
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(day)) //nolint:gosec // read back as it was
	dst = binary.LittleEndian.AppendUint16(dst, states)
	for i := range digestFields {
		if states>>(2*i)&3 == digestText {
			dst = binary.AppendUvarint(dst, uint64(g.ends[i].to-g.ends[i].from)) //nolint:gosec // not negative
		}
	}
	for i := range digestFields {
		if states>>(2*i)&3 == digestText {
			dst = append(dst, g.texts[g.ends[i].from:g.ends[i].to]...)
		}
	}
	return dst
}

// field takes the value of a field.
func (g *Digester) field(f DigestField, value []byte) {
	if g.seen[f]++; g.seen[f] > 1 {
		return
	}
	g.decoded = AppendDecoded(g.decoded[:0], value)
	from := len(g.texts)
	g.texts = AppendFoldedField(g.texts, g.decoded)
	g.ends[f].from, g.ends[f].to = from, len(g.texts)
}

func (g *Digester) state(field int, cut bool) uint16 {
	switch {
	case cut, g.seen[field] > 1, g.seen[field] == 1 && g.ends[field].to-g.ends[field].from > maxDigestText:
		return digestUnknown
	case g.seen[field] == 0:
		return digestAbsent
	default:
		return digestText
	}
}
