package imap

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"starling/frontend/imapwire"
	mail "starling/frontend/message"
)

// strict reads what the grammar of RFC 9051 §9 allows for an envelope and a body, and no more.
type strict struct {
	s    string
	utf8 bool // quoted strings may have UTF-8
	bad  string
}

func (r *strict) fail(what string) {
	if r.bad == "" {
		r.bad = fmt.Sprintf("%s at %.40q", what, r.s)
	}
	r.s = ""
}

func (r *strict) peek(prefix string) bool { return strings.HasPrefix(r.s, prefix) }

func (r *strict) take(text string) {
	if !r.peek(text) {
		r.fail("no " + text)
		return
	}
	r.s = r.s[len(text):]
}

func (r *strict) try(text string) bool {
	if !r.peek(text) {
		return false
	}
	r.s = r.s[len(text):]
	return true
}

func (r *strict) number() uint64 {
	n := 0
	for n < len(r.s) && '0' <= r.s[n] && r.s[n] <= '9' {
		n++
	}
	v, err := strconv.ParseUint(r.s[:n], 10, 63)
	if err != nil {
		r.fail("no number")
		return 0
	}
	r.s = r.s[n:]
	return v
}

func (r *strict) str() string {
	if r.try("{") {
		n := r.number()
		r.take("}\r\n")
		if r.bad != "" || n > uint64(len(r.s)) {
			r.fail("literal too long")
			return ""
		}
		v := r.s[:n]
		r.s = r.s[n:]
		return v
	}
	r.take(`"`)
	var v []byte
	for r.bad == "" {
		if r.s == "" {
			r.fail("string without an end")
			break
		}
		c := r.s[0]
		r.s = r.s[1:]
		switch {
		case c == '"':
			if !utf8.Valid(v) {
				r.fail("quoted string is no UTF-8")
			}
			return string(v)
		case c == '\\' && r.s != "" && (r.s[0] == '"' || r.s[0] == '\\'):
			c = r.s[0]
			r.s = r.s[1:]
		case c == '\\', c == '\r', c == '\n', c == 0, c >= 0x80 && !r.utf8:
			r.fail("wrong character in a quoted string")
		}
		v = append(v, c)
	}
	return ""
}

func (r *strict) nstr() {
	if !r.try("NIL") {
		r.str()
	}
}

// list reads NIL, or one item or more in parentheses.
func (r *strict) list(item func(), between string) {
	if r.try("NIL") {
		return
	}
	r.take("(")
	item()
	for r.bad == "" && !r.peek(")") {
		r.take(between)
		item()
	}
	r.take(")")
}

func (r *strict) envelope() {
	r.take("(")
	r.nstr()
	r.take(" ")
	r.nstr()
	for range 6 {
		r.take(" ")
		r.list(func() {
			r.take("(")
			r.nstr()
			for range 3 {
				r.take(" ")
				r.nstr()
			}
			r.take(")")
		}, "")
	}
	r.take(" ")
	r.nstr()
	r.take(" ")
	r.nstr()
	r.take(")")
}

func (r *strict) params() {
	r.list(func() {
		r.str()
		r.take(" ")
		r.str()
	}, " ")
}

func (r *strict) body(extended bool) (parts int) {
	r.take("(")
	if r.peek("(") {
		for r.bad == "" && r.peek("(") {
			parts += r.body(extended)
		}
		r.take(" ")
		r.str()
		if extended {
			r.take(" ")
			r.params()
		}
	} else {
		parts = r.leaf(extended)
	}
	if extended {
		r.take(" ")
		if !r.try("NIL") {
			r.take("(")
			r.str()
			r.take(" ")
			r.params()
			r.take(")")
		}
		r.take(" ")
		r.list(func() { r.str() }, " ")
		r.take(" ")
		r.nstr()
	}
	r.take(")")
	return parts + 1
}

func (r *strict) leaf(extended bool) (parts int) {
	main := strings.ToLower(r.str())
	r.take(" ")
	sub := strings.ToLower(r.str())
	r.take(" ")
	r.params()
	r.take(" ")
	r.nstr()
	r.take(" ")
	r.nstr()
	r.take(" ")
	r.str()
	r.take(" ")
	r.number()
	switch {
	case main == "text":
		r.take(" ")
		r.number()
	case main == "message" && (sub == "rfc822" || sub == "global"):
		r.take(" ")
		r.envelope()
		r.take(" ")
		parts = r.body(extended)
		r.take(" ")
		r.number()
	}
	if extended {
		r.take(" ")
		r.nstr()
	}
	return parts
}

// checkStructure holds all that is written of a message's structure to the grammar.
func checkStructure(t *testing.T, name string, s *mail.Summary) {
	t.Helper()
	for i := range 4 {
		utf8, extended := i&1 != 0, i&2 != 0
		r := strict{utf8: utf8}
		r.s = written(utf8, func(e *imapwire.Encoder) { writeEnvelope(e, s.Envelope()) })
		r.envelope()
		if r.bad != "" || r.s != "" {
			t.Fatalf("%s: envelope: %s; left %.40q", name, r.bad, r.s)
		}
		text := written(utf8, func(e *imapwire.Encoder) { writeStructure(e, s, 0, extended) })
		r.s = text
		parts := r.body(extended)
		if r.bad != "" || r.s != "" {
			t.Fatalf("%s: body: %s; left %.40q", name, r.bad, r.s)
		}
		if parts != len(s.Parts) {
			t.Fatalf("%s: %d parts, want %d", name, parts, len(s.Parts))
		}
	}
}

func TestStructureGrammar(t *testing.T) {
	t.Parallel()
	for _, file := range corpus(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		checkStructure(t, filepath.Base(file), summaryOf(string(text)))
	}
}

func FuzzStructure(f *testing.F) {
	f.Add(nested)
	f.Add("Content-Type: message/rfc822\n\nContent-Type: multipart/digest; boundary=b\n\n--b\n\nFrom: x@y\n\nz\n--b--")
	f.Add("Content-Type: text/plain; a*0*=''%41; a*1=\"b\\\"\"; c=\x80\x00\nFrom: g: a@b, \"c\r\" <@x,@y:d>;\nSubject: \xff\n\n")
	f.Fuzz(func(t *testing.T, text string) { checkStructure(t, "fuzzed", summaryOf(text)) })
}
