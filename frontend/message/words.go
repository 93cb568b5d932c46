package message

import (
	"bytes"
	"iter"
)

// Fields yields the fields of a header in their order: the name in its own spelling, and the
// value unfolded, encoded words still encoded, valid until the next. header may have its empty line.
func Fields(header []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		var mem arena
		for it := (fieldIter{rest: header}); it.next(); {
			mem.reset()
			if !yield(it.name(), mem.unfold(it.value())) {
				return
			}
		}
	}
}

// AppendDecoded appends the text of an unfolded field value in UTF-8, its encoded words
// (RFC 2047) decoded. White space between two of them vanishes; a character that is
// split between two is put together. What is not valid, or in an unknown charset, stays as it is.
func AppendDecoded(dst, value []byte) []byte {
	if !bytes.Contains(value, []byte("=?")) {
		return append(dst, value...)
	}
	// No word ends behind the last "?=". What is there is left alone, or each "=?" would be read on to the end.
	end := 0
	if i := bytes.LastIndex(value, []byte("?=")); i >= 0 {
		end = i + 2
	}
	value, tail := value[:end], value[end:]
	var run wordRun
	for len(value) > 0 {
		i := bytes.Index(value, []byte("=?"))
		if i < 0 {
			break
		}
		w, n := parseWord(value[i:])
		if n == 0 {
			dst = run.flush(dst)
			dst = append(dst, value[:i+2]...)
			value = value[i+2:]
			continue
		}
		between := value[:i]
		if !run.open || len(bytes.Trim(between, " \t\r\n")) > 0 {
			dst = run.flush(dst)
			dst = append(dst, between...)
		} else if !bytes.EqualFold(run.charset, w.charset) {
			dst = run.flush(dst)
		}
		run.add(w)
		value = value[i+n:]
	}
	dst = append(run.flush(dst), value...)
	return append(dst, tail...)
}

// word is an encoded word.
type word struct {
	charset, text []byte
	base64        bool
}

// parseWord takes an encoded word apart and returns its length, 0 if b begins with none. Spaces in the text, which many
// senders leave there, are let pass.
func parseWord(b []byte) (w word, n int) {
	rest := b[2:]
	i := bytes.IndexByte(rest, '?')
	if i <= 0 || i > 64 || len(rest) < i+3 || rest[i+2] != '?' || bytes.IndexByte(rest[:i], ' ') >= 0 {
		return word{}, 0
	}
	w.charset = rest[:i]
	switch rest[i+1] {
	case 'B', 'b':
		w.base64 = true
	case 'Q', 'q':
	default:
		return word{}, 0
	}
	text := rest[i+3:]
	end := bytes.Index(text, []byte("?="))
	if end < 0 {
		return word{}, 0
	}
	w.text = text[:end]
	return w, 2 + i + 3 + end + 2
}

// wordRun gathers the bytes of words in one charset that stand next to each other.
type wordRun struct {
	open    bool
	charset []byte
	bytes   []byte
}

func (r *wordRun) add(w word) {
	r.open, r.charset = true, w.charset
	if w.base64 {
		r.bytes = (&base64Decoder{}).decode(r.bytes, w.text, true)
		return
	}
	for i := 0; i < len(w.text); i++ {
		c := w.text[i]
		switch {
		case c == '_':
			c = ' '
		case c == '=' && i+2 < len(w.text) && unhex(w.text[i+1]) >= 0 && unhex(w.text[i+2]) >= 0:
			c = byte(unhex(w.text[i+1])<<4 | unhex(w.text[i+2]))
			i += 2
		}
		r.bytes = append(r.bytes, c)
	}
}

func (r *wordRun) flush(dst []byte) []byte {
	if !r.open {
		return dst
	}
	text := r.bytes
	if e := lookupCharset(r.charset); e != nil {
		if out, err := e.NewDecoder().Bytes(text); err == nil {
			text = out
		}
	}
	dst = append(dst, text...)
	r.open, r.bytes = false, r.bytes[:0]
	return dst
}
