package imapwire

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// newTestDecoder decodes input and says yes to every synchronizing literal.
func newTestDecoder(input string) *Decoder {
	d := NewDecoder(strings.NewReader(input), Limits{})
	d.Continue = func(Literal) error { return nil }
	return d
}

// bothWays runs the test with the input whole and byte by byte.
func bothWays(t *testing.T, input string, test func(*testing.T, *Decoder)) {
	t.Helper()
	for name, r := range map[string]io.Reader{
		"whole":     strings.NewReader(input),
		"bytewise":  iotest.OneByteReader(strings.NewReader(input)),
		"data+EOF":  iotest.DataErrReader(strings.NewReader(input)),
		"halfreads": iotest.HalfReader(strings.NewReader(input)),
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDecoder(r, Limits{})
			d.Continue = func(Literal) error { return nil }
			test(t, d)
		})
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	bothWays(t, "a001 LOGIN mrc {6}\r\nsecret\r\na2 uid fetch 1:* flags\r\n\"x\" NOOP\r\na3 noop\nA4\r\na5 NOOP\r\n", func(t *testing.T, d *Decoder) {
		tag, name, err := d.Command()
		if tag != "a001" || name != "LOGIN" || err != nil {
			t.Fatalf("Command = %q %q %v", tag, name, err)
		}
		if l := d.Login(); l != (Login{"mrc", "secret"}) {
			t.Errorf("Login = %+v", l)
		}
		if err := d.End(); err != nil {
			t.Fatal(err)
		}
		if tag, name, err = d.Command(); tag != "a2" || name != "UID FETCH" || err != nil {
			t.Fatalf("Command = %q %q %v", tag, name, err)
		}
		// The rest is discarded by the next Command.
		var syntax *SyntaxError
		if _, _, err = d.Command(); !errors.As(err, &syntax) || d.Tag() != "" {
			t.Fatalf("quoted tag: %v, tag %q", err, d.Tag())
		}
		if _, name, err = d.Command(); name != "NOOP" || err != nil || d.End() != nil {
			t.Fatalf("bare LF: %q %v %v", name, err, d.Err())
		}
		if _, _, err = d.Command(); !errors.As(err, &syntax) || d.Tag() != "A4" {
			t.Fatalf("tag alone: %v, tag %q", err, d.Tag())
		}
		if _, name, err = d.Command(); name != "NOOP" || err != nil || d.End() != nil {
			t.Fatalf("after errors: %q %v %v", name, err, d.Err())
		}
		if _, _, err = d.Command(); err != io.EOF {
			t.Fatalf("at the end: %v", err)
		}
	})
}

// outcome is how a test's command ended.
func outcome(d *Decoder, parse func(*Decoder)) error {
	if _, _, err := d.Command(); err != nil {
		return err
	}
	if parse != nil {
		parse(d)
	}
	return d.End()
}

// TestBadInput holds that each malformed command is a syntax error with its tag, and that the next is in step.
func TestBadInput(t *testing.T) {
	t.Parallel()
	nested := strings.Repeat("(", 10_000)
	for _, test := range []struct {
		name, input, message string
		tooBig               bool
		parse                func(*Decoder)
	}{
		{"no argument", "a LOGIN", "expected a space, found the end of the line", false, func(d *Decoder) { d.Login() }},
		{"extra argument", "a NOOP x {5+}\r\nabcde y", "expected the end of the line, found a space", false, nil},
		{"line too long", "a LOGIN " + strings.Repeat("x", 70_000), "command line too long", true, func(d *Decoder) { d.Login() }},
		{"quoted too long", `a LOGIN "` + strings.Repeat("x", 70_000), "command line too long", true, func(d *Decoder) { d.Login() }},
		{"NUL in atom", "a LOGIN a\x00b c", "expected a space, found byte 0x0", false, func(d *Decoder) { d.Login() }},
		{"NUL in quoted", "a LOGIN \"a\x00b\" c", "expected the end of the quoted string, found byte 0x0", false, func(d *Decoder) { d.Login() }},
		{"NUL in literal", "a LOGIN {3+}\r\na\x00b c", "NUL in a literal", false, func(d *Decoder) { d.Login() }},
		{"NUL in sync literal", "a LOGIN {3}\r\na\x00b c", "NUL in a literal", false, func(d *Decoder) { d.Login() }},
		{"bare CR", "a LOGIN a\rb c", "expected a space, found the end of the line", false, func(d *Decoder) { d.Login() }},
		{"bare CR at the end", "a NOOP\r", "expected a line feed after the carriage return, found the end of the line", false, nil},
		{"open quote", `a LOGIN "a`, "expected the end of the quoted string, found the end of the line", false, func(d *Decoder) { d.Login() }},
		{"open quote before literal", "a LOGIN \"a{4+}\r\nb NO c", "expected the end of the quoted string, found the end of the line", false, func(d *Decoder) { d.Login() }},
		{"bad escape", `a LOGIN "a\b" c`, `expected '"' or '\' after '\', found 'b'`, false, func(d *Decoder) { d.Login() }},
		{"bad UTF-8", "a LOGIN \"a\xff\" c", "invalid UTF-8 in a quoted string", false, func(d *Decoder) { d.Login() }},
		{"nested", "a SEARCH " + nested, "nested too deep", true, func(d *Decoder) { d.SearchArgs() }},
		{"nested NOT", "a SEARCH " + strings.Repeat("NOT ", 10_000) + "ALL", "nested too deep", true, func(d *Decoder) { d.SearchArgs() }},
		{"nested OR", "a SEARCH " + strings.Repeat("OR ALL ", 1000) + "ALL", "nested too deep", true, func(d *Decoder) { d.SearchArgs() }},
		{"keys", "a SEARCH" + strings.Repeat(" 1", maxSearchKeys+1), "too many search keys", true, func(d *Decoder) { d.SearchArgs() }},
		{"keys in lists", "a SEARCH" + strings.Repeat(" (1 (OR 1 1))", maxSearchKeys/5), "too many search keys", true, func(d *Decoder) { d.SearchArgs() }},
		{"items", "a FETCH (UID" + strings.Repeat(" UID", maxFetchItems) + ")", "too many FETCH items", true, func(d *Decoder) { d.SP(); d.FetchArgs() }},
		{"literal too big", "a LOGIN {70000}", "literal too big", true, func(d *Decoder) { d.Login() }},
		{"literal+ too big", "a LOGIN {70000+}\r\n" + strings.Repeat("x\n", 35_000) + " {3+}\r\nabc", "literal too big", true, func(d *Decoder) { d.Login() }},
		{"literals too big", "a LOGIN {40000+}\r\n" + strings.Repeat("x\n", 20_000) + " {40000+}\r\n" + strings.Repeat("x\n", 20_000), "literal too big", true, func(d *Decoder) { d.Login() }},
		{"literal of no size", "a LOGIN {+}", "expected the size of the literal, found '+'", false, func(d *Decoder) { d.Login() }},
		{"half a header", "a LOGIN {3+ }", "expected '}', found a space", false, func(d *Decoder) { d.Login() }},
		{"text after the header", "a LOGIN {3+}x{4+}\r\n\r\n\r\n", "expected the end of the line after the literal's size, found 'x'", false, func(d *Decoder) { d.Login() }},
		{"literal of minus", "a LOGIN {-3}", "expected the size of the literal, found '-'", false, func(d *Decoder) { d.Login() }},
		{"endless size", "a LOGIN {99999999999999999999}", "literal size out of range", true, func(d *Decoder) { d.Login() }},
		{"number of 33 bits", "a X 4294967296", "a number is out of range", false, func(d *Decoder) { d.SP(); d.Number() }},
		{"number of 64 bits", "a X 9223372036854775808", "a number is out of range", false, func(d *Decoder) { d.SP(); d.Number64() }},
		{"8-bit atom", "a SELECT \xe9", "expected a mailbox name, found byte 0xe9", false, func(d *Decoder) { d.SP(); d.Mailbox() }},
		{"bad UTF-7", "a SELECT &xx", "mailbox name is not valid modified UTF-7", false, func(d *Decoder) { d.SP(); d.Mailbox() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bothWays(t, test.input+"\r\nb NOOP\r\n", func(t *testing.T, d *Decoder) {
				err := outcome(d, test.parse)
				var syntax *SyntaxError
				if !errors.As(err, &syntax) || syntax.Message != test.message || syntax.TooBig != test.tooBig {
					t.Errorf("error = %v", err)
				}
				if d.Tag() != "a" {
					t.Errorf("tag = %q", d.Tag())
				}
				if err := d.Discard(); err != nil {
					t.Fatalf("Discard: %v", err)
				}
				if tag, name, err := d.Command(); tag != "b" || name != "NOOP" || err != nil || d.End() != nil {
					t.Errorf("out of step: %q %q %v", tag, name, err)
				}
			})
		})
	}
}

func TestInputEnds(t *testing.T) {
	t.Parallel()
	for _, input := range []string{"a", "a ", "a LOGIN", "a LOGIN \"x", "a LOGIN {", "a LOGIN {3}\r\nab", "a LOGIN {3+}\r\n", "a LOGIN {99+}\r\n\r\n", "a LOGIN x y\r"} {
		bothWays(t, input, func(t *testing.T, d *Decoder) {
			err := outcome(d, func(d *Decoder) { d.Login() })
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%q: %v", input, err)
			}
			if err := d.Discard(); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%q: Discard: %v", input, err)
			}
		})
	}
}

func TestDiscardGivesUp(t *testing.T) {
	t.Parallel()
	for _, input := range []string{
		"a NOOP {99999999999999999999+}\r\nabc",
		"a NOOP {20001+}\r\nabc",
		"a NOOP " + strings.Repeat("x", 30_000),
		"a NOOP " + strings.Repeat("{0+}\r\n", 10_000),
	} {
		d := NewDecoder(strings.NewReader(input), Limits{Skip: 20_000})
		if err := outcome(d, nil); err == nil {
			t.Errorf("%.20q: no error", input)
		}
		if err := d.Discard(); !errors.Is(err, ErrSkipLimit) {
			t.Errorf("%.20q: Discard: %v", input, err)
		}
	}
}

func TestRefusedLiteral(t *testing.T) {
	t.Parallel()
	refusal := errors.New("no such mailbox")
	// A refused synchronizing literal is not sent: what follows its header is the next command.
	d := NewDecoder(strings.NewReader("a APPEND x {3}\r\nb NOOP\r\n"), Limits{})
	d.Continue = func(lit Literal) error {
		if lit != (Literal{Size: 3}) {
			t.Errorf("literal = %+v", lit)
		}
		return refusal
	}
	if _, _, err := d.Command(); err != nil {
		t.Fatal(err)
	}
	d.SP()
	d.Mailbox()
	d.AppendMessage()
	if _, err := d.OpenLiteral(); !errors.Is(err, refusal) || !errors.Is(d.Err(), refusal) {
		t.Errorf("OpenLiteral: %v, Err: %v", err, d.Err())
	}
	if tag, _, err := d.Command(); tag != "b" || err != nil {
		t.Errorf("after a refused literal: %q %v", tag, err)
	}

	// A non-synchronizing one is on its way, and skipped.
	d = NewDecoder(strings.NewReader("a APPEND x {3+}\r\na\r\n {4+}\r\nabcd\r\nb NOOP\r\n"), Limits{})
	if _, _, err := d.Command(); err != nil {
		t.Fatal(err)
	}
	d.SP()
	d.Mailbox()
	if m := d.AppendMessage(); m.Literal != (Literal{Size: 3, NonSync: true}) {
		t.Errorf("literal = %+v", m.Literal)
	}
	if tag, _, err := d.Command(); tag != "b" || err != nil {
		t.Errorf("after a skipped literal: %q %v", tag, err)
	}
}

func TestLiteralMinus(t *testing.T) {
	t.Parallel()
	d := NewDecoder(strings.NewReader("a APPEND x {4097+}\r\n"+strings.Repeat("\n", 4097)+"\r\nb APPEND x {4096+}\r\n"), Limits{NonSync: 4096})
	err := outcome(d, func(d *Decoder) { d.SP(); d.Mailbox(); d.AppendMessage() })
	var syntax *SyntaxError
	if !errors.As(err, &syntax) || !syntax.TooBig {
		t.Errorf("4097 bytes: %v", err)
	}
	if tag, _, err := d.Command(); tag != "b" || err != nil {
		t.Fatalf("after 4097 bytes: %q %v", tag, err)
	}
	d.SP()
	d.Mailbox()
	if d.AppendMessage(); d.Err() != nil {
		t.Errorf("4096 bytes: %v", d.Err())
	}
}

func TestContinueComesAfterTheHeader(t *testing.T) {
	t.Parallel()
	client, server := io.Pipe()
	asked := make(chan struct{})
	go func() {
		_, _ = io.WriteString(server, "a LOGIN {2}\r\n")
		<-asked
		_, _ = io.WriteString(server, "me {0}\r\n")
		<-asked
		_, _ = io.WriteString(server, "\r\n")
	}()
	d := NewDecoder(client, Limits{})
	d.Continue = func(Literal) error { asked <- struct{}{}; return nil }
	var login Login
	if err := outcome(d, func(d *Decoder) { login = d.Login() }); err != nil || login != (Login{"me", ""}) {
		t.Errorf("Login = %+v, %v", login, err)
	}
}

// A wait that ended in vain leaves no buffer, so that who goes on waiting elsewhere holds none.
func TestWaitLeavesNoBuffer(t *testing.T) {
	t.Parallel()
	client, server := io.Pipe()
	d := NewDecoder(client, Limits{})
	go func() {
		_, _ = io.WriteString(server, "a NOOP\r\nb NO")
		_, _ = io.WriteString(server, "OP\r\n")
		_ = server.Close()
	}()
	for _, want := range []string{"a", "b"} {
		if err := d.Wait(); err != nil {
			t.Fatal(err)
		}
		if tag, _, err := d.Command(); tag != want || err != nil || d.End() != nil {
			t.Fatalf("Command = %q %v", tag, err)
		}
	}
	if !d.Release() || d.buf != nil || d.Buffered() != nil {
		t.Error("a buffer is held while nothing is in it")
	}
	if err := d.Wait(); err != io.EOF || d.buf != nil {
		t.Errorf("Wait at the end: %v; a buffer is held: %t", err, d.buf != nil)
	}
}

func TestResetForgetsWhatCameBefore(t *testing.T) {
	t.Parallel()
	d := NewDecoder(strings.NewReader("a STARTTLS\r\nevil LOGIN a b\r\n"), Limits{})
	if err := outcome(d, nil); err != nil {
		t.Fatal(err)
	}
	if got := string(d.Buffered()); got != "evil LOGIN a b\r\n" {
		t.Errorf("Buffered = %q", got)
	}
	if d.Release() {
		t.Error("Release gave away what was received")
	}
	d.Reset(strings.NewReader("b NOOP\r\n"))
	if tag, _, err := d.Command(); tag != "b" || err != nil {
		t.Errorf("Command = %q %v", tag, err)
	}
}

func TestDeadlineBetweenCommands(t *testing.T) {
	t.Parallel()
	errTimeout := errors.New("deadline")
	d := NewDecoder(iotest.ErrReader(errTimeout), Limits{})
	if _, _, err := d.Command(); !errors.Is(err, errTimeout) {
		t.Fatal(err)
	}
	d.r = strings.NewReader("a NOOP\r\n")
	if tag, _, err := d.Command(); tag != "a" || err != nil {
		t.Errorf("Command = %q %v", tag, err)
	}
}
