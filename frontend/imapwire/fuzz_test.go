package imapwire

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// parsers read the arguments of the commands that fuzzing may call.
var parsers = map[string]func(*Decoder){
	"LOGIN":        func(d *Decoder) { d.Login() },
	"AUTHENTICATE": func(d *Decoder) { d.SASLMechanism() },
	"ID":           func(d *Decoder) { d.ID() },
	"ENABLE":       func(d *Decoder) { d.Enable() },
	"SELECT":       func(d *Decoder) { parseSelect(d) },
	"CREATE":       func(d *Decoder) { parseCreate(d) },
	"LIST":         func(d *Decoder) { d.ListArgs() },
	"LSUB":         func(d *Decoder) { d.LSubArgs() },
	"STATUS":       func(d *Decoder) { parseStatus(d) },
	"SEARCH":       func(d *Decoder) { d.SearchArgs() },
	"FETCH":        func(d *Decoder) { parseFetch(d) },
	"UID FETCH":    func(d *Decoder) { parseFetch(d) },
	"STORE":        func(d *Decoder) { parseStore(d) },
	"APPEND":       parseAppend,
}

func parseAppend(d *Decoder) {
	d.SP()
	d.Mailbox()
	for more := true; more; more = d.Peek() == ' ' {
		m := d.AppendMessage()
		r, err := d.OpenLiteral()
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r)
		d.AppendMessageEnd(m)
	}
}

var literalHeader = regexp.MustCompile(`\{([0-9]+)\+\}\r?\n$`)

// frame is the length of the first command in b when no synchronizing literal is accepted: its line, and the literals
// that it announces with the lines that follow them. It is 0 when b ends before.
func frame(b []byte) int {
	n := 0
	for {
		i := bytes.IndexByte(b[n:], '\n')
		if i < 0 {
			return 0
		}
		line := b[n : n+i+1]
		n += i + 1
		m := literalHeader.FindSubmatch(line)
		if m == nil {
			return n
		}
		size, err := strconv.Atoi(string(m[1]))
		if err != nil || size >= len(b)-n {
			return 0
		}
		n += size
	}
}

// FuzzCommands holds that the decoder neither panics nor falls out of step, whatever comes: with synchronizing literals
// refused each command ends where frame says, however the bytes come in.
func FuzzCommands(f *testing.F) {
	for _, test := range commandExamples {
		f.Add([]byte(test.input+"\r\n"), false)
	}
	for _, seed := range []string{
		"a APPEND x (\\Seen) \" 7-Feb-1994 21:52:25 -0800\" {3+}\r\nabc\r\n",
		"a APPEND x {3}\r\nabc\r\nb NOOP\r\n",
		"a APPEND x UTF8 (~{3+}\r\nabc)\r\n",
		"a LOGIN \"x{3+}\r\nabc\r\nb NOOP\r\n",
		"a NOOP x{3+}\nabc {0+}\r\n\r\nb NOOP\n",
		"a LOGIN {2+}\r\na\x00 b\r\n",
		"\r\n\x00\r\na SEARCH ((((NOT (((",
	} {
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, input []byte, accept bool) {
		limits := Limits{Line: 4 << 10, Literal: 4 << 10, Depth: 10, Skip: 1 << 20}
		var whole []string
		for _, r := range []io.Reader{bytes.NewReader(input), iotest.OneByteReader(bytes.NewReader(input))} {
			counted := &countingReader{r: r}
			d := NewDecoder(counted, limits)
			if accept {
				d.Continue = func(Literal) error { return nil }
			}
			var seen []string
			start := 0
			for {
				tag, name, err := d.Command()
				if err == nil {
					if parse := parsers[name]; parse != nil {
						parse(d)
					}
					err = d.End()
				}
				what := tag + " " + name
				if err != nil {
					what += ": " + err.Error()
				}
				seen = append(seen, what)
				if err := d.Discard(); err != nil || d.broken || start >= len(input) {
					break
				}
				end := counted.n - len(d.Buffered())
				if want := frame(input[start:]); !accept && end-start != want {
					t.Fatalf("command at %d ends after %d bytes, want %d (%v)", start, end-start, want, seen)
				}
				if end == start {
					break
				}
				start = end
				if cap(d.tok) > 64<<10 {
					t.Fatalf("%d bytes are held for a token", cap(d.tok))
				}
			}
			if whole == nil {
				whole = seen
			} else if strings.Join(whole, "\n") != strings.Join(seen, "\n") {
				t.Fatalf("whole %q, bytewise %q", whole, seen)
			}
		}
	})
}

type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// decoded reads what write sends.
func decoded(t *testing.T, utf8 bool, write func(*Encoder)) *Decoder {
	t.Helper()
	d := newTestDecoder(encoded(t, utf8, func(e *Encoder) { write(e); e.CRLF() }))
	d.UTF8 = utf8
	d.SetLimits(Limits{Line: 1 << 20, Literal: 1 << 20})
	if err := d.begin(); err != nil {
		t.Fatal(err)
	}
	return d
}

func FuzzString(f *testing.F) {
	for _, seed := range []string{"", "a b", `\"`, "ü", "\xff", "a\r\n", "NIL", "a\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, utf8 := range []bool{false, true} {
			d := decoded(t, utf8, func(e *Encoder) { e.Bytes8([]byte(s)) })
			if got := d.String8(); got != s || d.End() != nil {
				t.Fatalf("String8 %q = %q, %v", s, got, d.Err())
			}
			if strings.IndexByte(s, 0) >= 0 {
				continue
			}
			d = decoded(t, utf8, func(e *Encoder) { e.String(s).SP().AString(s).SP().NString(s) })
			got := []string{d.String()}
			d.SP()
			got = append(got, d.AString())
			d.SP()
			n, ok := d.NString()
			if d.End() != nil || got[0] != s || got[1] != s || n != s || ok != (s != "") {
				t.Fatalf("%q = %q %q, %v", s, got, n, d.Err())
			}
		}
	})
}

func FuzzMailbox(f *testing.F) {
	for _, seed := range []string{"INBOX", "Entwürfe", "a&b", "~peter/mail/台北", "e\u0301", "a\nb", "😀"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if !utf8.ValidString(name) || strings.IndexByte(name, 0) >= 0 {
			return
		}
		want := FoldInbox(norm.NFC.String(name))
		for _, utf8 := range []bool{false, true} {
			d := decoded(t, utf8, func(e *Encoder) { e.Mailbox(name) })
			if got := d.Mailbox(); got != want || d.End() != nil {
				t.Fatalf("%q = %q, %v", name, got, d.Err())
			}
		}
	})
}

// TestRefusalIsTheErrorOfTheCommand holds that a decoder without Continue refuses, and stays in step.
func TestRefusalIsTheErrorOfTheCommand(t *testing.T) {
	t.Parallel()
	d := NewDecoder(strings.NewReader("a LOGIN {3}\r\nb NOOP\r\n"), Limits{})
	if err := outcome(d, func(d *Decoder) { d.Login() }); !errors.Is(err, errNoContinue) {
		t.Errorf("error = %v", err)
	}
	if tag, _, err := d.Command(); tag != "b" || err != nil {
		t.Errorf("then %q %v", tag, err)
	}
}
