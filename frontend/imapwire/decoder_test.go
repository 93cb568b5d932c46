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
