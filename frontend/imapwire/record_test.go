package imapwire

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// What is recorded is what was sent, without the bytes of literals, however it comes in and
// whether it was understood or not.
func TestRecorded(t *testing.T) {
	t.Parallel()
	const sent = "a NOOP\r\nb LOGIN {3+}\r\nann {6+}\r\nsecret\r\nc NONSENSE (x {4+}\r\nbody y)\r\nd APPEND x {5+}\r\nhello\r\ne NOOP\r\n"
	for name, r := range map[string]io.Reader{
		"whole": strings.NewReader(sent), "bytes": iotest.OneByteReader(strings.NewReader(sent)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := NewDecoder(r, Limits{})
			d.Record(true)
			next := func(parse func(), want string) {
				t.Helper()
				if err := d.Wait(); err != nil {
					t.Fatal(err)
				}
				if _, _, err := d.Command(); err != nil {
					t.Fatal(err)
				}
				parse()
				if err := d.Discard(); err != nil {
					t.Fatal(err)
				}
				if got := string(d.Recorded()); got != want {
					t.Errorf("recorded %q, want %q", got, want)
				}
			}
			next(func() { _ = d.End() }, "a NOOP\r\n")
			next(func() { d.Login(); _ = d.End() }, "b LOGIN {3+}\r\n {6+}\r\n\r\n")
			next(func() {}, "c NONSENSE (x {4+}\r\n y)\r\n")
			next(func() {
				d.SP()
				d.Mailbox()
				m := d.AppendMessage()
				literal, err := d.OpenLiteral()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, literal); err != nil {
					t.Fatal(err)
				}
				d.AppendMessageEnd(m)
				_ = d.End()
			}, "d APPEND x {5+}\r\n\r\n")
			d.Record(false)
			next(func() { _ = d.End() }, "")
		})
	}
}
