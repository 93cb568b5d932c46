package message

import "bytes"

// MessageID returns the message's own id in normal form: without angle brackets, white
// space, comments and quoting (RFC 5256 §3). nil if it has none.
func (s *Summary) MessageID() []byte {
	ids := AppendMessageIDs(nil, s.Envelope().MessageID)
	if len(ids) == 0 {
		return nil
	}
	return ids[0]
}

// References returns the ids of the messages before this one in its thread, the
// oldest first: those of References, or if there are none the first of In-Reply-To (RFC 5256 §3).
// Of a References field longer than 8 KiB the first ones are known. rooted says that the first is the one that the
// thread began with, as far as the sender knew: of In-Reply-To that cannot be said.
func (s *Summary) References() (ids [][]byte, rooted bool) {
	if ids := s.fieldIDs(fReferences); len(ids) > 0 {
		return ids, true
	}
	ids = s.fieldIDs(fInReplyTo)
	return ids[:min(len(ids), 1)], len(ids) == 0
}

// ThreadIDs returns all ids that tie the message to a thread: those of References and In-Reply-To and its own,
// each once.
func (s *Summary) ThreadIDs() [][]byte {
	var out [][]byte
	for _, row := range [...]int{fReferences, fInReplyTo, fMessageID} {
	next:
		for _, id := range s.fieldIDs(row) {
			for _, old := range out {
				if bytes.Equal(id, old) {
					continue next
				}
			}
			out = append(out, id)
		}
	}
	return out
}

func (s *Summary) fieldIDs(row int) [][]byte {
	var out [][]byte
	for it := (fieldIter{rest: s.Header}); it.next(); {
		if equalFold(it.name(), fields[row].name) {
			out = AppendMessageIDs(out, it.value())
		}
	}
	return out
}

const maxIDs = 256 // message ids read of a field

// AppendMessageIDs appends the message ids of a field's value in normal form. In a value without any
// angle bracket, words with an '@' are ids.
func AppendMessageIDs(dst [][]byte, value []byte) [][]byte {
	bare := bytes.IndexByte(value, '<') < 0
	for n := 0; n < maxIDs && len(value) > 0; n++ {
		var id []byte
		if bare {
			value = bytes.TrimLeft(value, " \t\r\n,;")
			end := bytes.IndexAny(value, " \t\r\n,;")
			if end < 0 {
				end = len(value)
			}
			id, value = value[:end], value[end:]
			if bytes.IndexByte(id, '@') < 0 {
				continue
			}
		} else {
			i := bytes.IndexByte(value, '<')
			if i < 0 {
				break
			}
			value = value[i+1:]
			end := idEnd(value)
			id, value = value[:end], value[end:]
		}
		if id = normalID(id); len(id) > 0 {
			dst = append(dst, id)
		}
	}
	return dst
}

// idEnd returns where an id ends: at '>', or where another begins.
func idEnd(b []byte) int {
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			if end := quoteEnd(b, i); end < len(b) {
				i = end - 1
			}
		case '>', '<':
			return i
		}
	}
	return len(b)
}

// normalID takes white space, comments and quoting out of an id.
func normalID(id []byte) []byte {
	if !bytes.ContainsAny(id, " \t\r\n\"\\(\x00") {
		return id
	}
	out := make([]byte, 0, len(id))
	for i := 0; i < len(id); i++ {
		switch c := id[i]; {
		case c == ' ', c == '\t', c == '\r', c == '\n', c == '"', c == 0:
		case c == '(':
			i = commentEnd(id, i) - 1
		case c == '\\' && i+1 < len(id):
			i++
			out = append(out, id[i])
		default:
			out = append(out, c)
		}
	}
	return out
}
