package message

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// The tree of RFC 9051 §6.4.5.1, with texts that say where they stand.
const sectionMail = `Subject: top
Content-Type: multipart/mixed; boundary=a

--a
X: 1

text 1
--a
Content-Type: application/octet-stream

bytes 2
--a
Content-Type: message/rfc822

Subject: in 3
Content-Type: multipart/mixed; boundary=b

--b

text 3.1
--b
Content-Type: application/octet-stream

bytes 3.2
--b--
--a
Content-Type: multipart/mixed; boundary=c

--c
Content-Type: image/gif

gif 4.1
--c
Content-Type: message/rfc822

Subject: in 4.2
Content-Type: multipart/mixed; boundary=d

--d

text 4.2.1
--d
Content-Type: multipart/alternative; boundary=e

--e

text 4.2.2.1
--e
Content-Type: text/richtext

text 4.2.2.2
--e--
--d--
--c--
--a--
`

func TestFindSection(t *testing.T) {
	t.Parallel()
	in := crlf(sectionMail)
	single := crlf("Subject: x\n\nbody\n")
	wrapped := crlf("Subject: out\nContent-Type: message/rfc822\n\nSubject: in\n\nbody\n")
	const none = "\x00"
	for _, tt := range []struct {
		in   []byte
		spec Specifier
		path []int
		want string // the whole section, or with … its beginning
	}{
		{in, Whole, nil, sectionMail},
		{in, Header, nil, "Subject: top\nContent-Type: multipart/mixed; boundary=a\n\n"},
		{in, HeaderFields, nil, "Subject: top\nContent-Type: multipart/mixed; boundary=a\n\n"},
		{in, Text, nil, "--a\nX: 1\n…"},
		{in, Whole, []int{1}, "text 1"},
		{in, MIME, []int{1}, "X: 1\n\n"},
		{in, Header, []int{1}, none},
		{in, Text, []int{1}, none},
		{in, Whole, []int{1, 1}, none},
		{in, Whole, []int{2}, "bytes 2"},
		{in, Whole, []int{3}, "Subject: in 3\n…"},
		{in, MIME, []int{3}, "Content-Type: message/rfc822\n\n"},
		{in, Header, []int{3}, "Subject: in 3\nContent-Type: multipart/mixed; boundary=b\n\n"},
		{in, Text, []int{3}, "--b\n\ntext 3.1\n--b\nContent-Type: application/octet-stream\n\nbytes 3.2\n--b--"},
		{in, Whole, []int{3, 1}, "text 3.1"},
		{in, MIME, []int{3, 1}, "\n"},
		{in, Whole, []int{3, 2}, "bytes 3.2"},
		{in, Whole, []int{3, 3}, none},
		{in, Whole, []int{4}, "--c\n…"},
		{in, Header, []int{4}, none},
		{in, MIME, []int{4}, "Content-Type: multipart/mixed; boundary=c\n\n"},
		{in, Whole, []int{4, 1}, "gif 4.1"},
		{in, MIME, []int{4, 1}, "Content-Type: image/gif\n\n"},
		{in, Header, []int{4, 2}, "Subject: in 4.2\nContent-Type: multipart/mixed; boundary=d\n\n"},
		{in, Text, []int{4, 2}, "--d\n…"},
		{in, Whole, []int{4, 2, 1}, "text 4.2.1"},
		{in, Whole, []int{4, 2, 2}, "--e\n…"},
		{in, Whole, []int{4, 2, 2, 1}, "text 4.2.2.1"},
		{in, Whole, []int{4, 2, 2, 2}, "text 4.2.2.2"},
		{in, MIME, []int{4, 2, 2, 2}, "Content-Type: text/richtext\n\n"},
		{in, Whole, []int{4, 2, 2, 2, 1}, none},
		{in, Whole, []int{5}, none},
		{in, Whole, []int{0}, none},
		{single, Whole, []int{1}, "body\n"},
		{single, MIME, []int{1}, "Subject: x\n\n"},
		{single, MIME, nil, none},
		{single, Text, nil, "body\n"},
		{single, Whole, []int{2}, none},
		{single, Whole, []int{1, 1}, none},
		{wrapped, Whole, []int{1}, "Subject: in\n\nbody\n"},
		{wrapped, Header, []int{1}, "Subject: in\n\n"},
		{wrapped, Text, []int{1}, "body\n"},
		{wrapped, Whole, []int{1, 1}, "body\n"},
		{wrapped, Whole, []int{1, 2}, none},
		{wrapped, Whole, []int{1, 1, 1}, none},
	} {
		s := parse(tt.in)
		start, end, ok := s.Find(Section{Path: tt.path, Specifier: tt.spec})
		if ok != (tt.want != none) {
			t.Errorf("%v %v: ok is %v", tt.path, tt.spec, ok)
			continue
		}
		if !ok {
			continue
		}
		got := string(tt.in[start:end])
		want := string(crlf(tt.want))
		if head, cut := strings.CutSuffix(want, "…"); got != want && !(cut && strings.HasPrefix(got, head)) {
			t.Errorf("%v %v: %q, want %q", tt.path, tt.spec, got, want)
		}
	}
}

func TestFilterHeader(t *testing.T) {
	t.Parallel()
	const header = "From: a\r\nX-Y : b\r\n c\r\njunk\r\n more\r\nfrom:d\nTo: e\r\n\tf\r\n\r\nFrom: body\r\n"
	for _, tt := range []struct {
		fields string
		not    bool
		want   string
	}{
		{"FROM", false, "From: a\r\nfrom:d\n\r\n"},
		{"x-y to", false, "X-Y : b\r\n c\r\nTo: e\r\n\tf\r\n\r\n"},
		{"Fro", false, "\r\n"},
		{"", false, "\r\n"},
		{"from x-y", true, "junk\r\n more\r\nTo: e\r\n\tf\r\n\r\n"},
		{"", true, header[:len(header)-len("From: body\r\n")]},
	} {
		var names [][]byte
		for _, f := range strings.Fields(tt.fields) {
			names = append(names, []byte(f))
		}
		if got := FilterHeader([]byte("x"), []byte(header), NewFieldNames(names), tt.not); string(got) != "x"+tt.want {
			t.Errorf("%q %v: %q, want %q", tt.fields, tt.not, got[1:], tt.want)
		}
	}
	if got := FilterHeader(nil, []byte("A: b"), NewFieldNames([][]byte{[]byte("a")}), false); string(got) != "A: b\r\n\r\n" {
		t.Errorf("without a line end: %q", got)
	}
}

// Thousands of names are looked up at once: one after the other, a header of a million fields would take minutes.
func TestFilterHeaderByManyNames(t *testing.T) {
	t.Parallel()
	var names [][]byte
	for i := range 16_000 {
		names = append(names, fmt.Appendf(nil, "x%05d", i))
	}
	header := []byte("\u00c9t\u00e9: 1\nFrom: a\n" + strings.Repeat("y00000:\n", 1_000_000) + "X15999: b\n")
	for _, all := range [][][]byte{names, append(names, []byte("from")), append(names, []byte("\u00e9t\u00e9"))} {
		want := "X15999: b\n\r\n"
		switch string(all[len(all)-1]) {
		case "from":
			want = "From: a\n" + want
		case "\u00e9t\u00e9":
			want = "\u00c9t\u00e9: 1\n" + want
		}
		if got := FilterHeader(nil, header, NewFieldNames(all), false); string(got) != want {
			t.Errorf("%d names: %.100q", len(all), got)
		}
	}
	if got := FilterHeader(nil, header, NewFieldNames(names), true); len(got) != len(header)+2-len("X15999: b\n") {
		t.Errorf("the others: %d octets of %d", len(got), len(header))
	}
}

// Fields named and fields not named together are the header.
func FuzzFilterHeader(f *testing.F) {
	f.Add([]byte("From: a\r\nTo: b\r\n c\r\n\r\n"), []byte("from"))
	f.Add([]byte(" x\r\n:\n\ry: z"), []byte("y"))
	f.Fuzz(func(t *testing.T, header, name []byte) {
		names := NewFieldNames([][]byte{name})
		in := FilterHeader(nil, header, names, false)
		out := FilterHeader(nil, header, names, true)
		if !bytes.HasSuffix(in, []byte("\r\n")) || !bytes.HasSuffix(out, []byte("\r\n")) {
			t.Fatalf("%q and %q do not end with an empty line", in, out)
		}
		all := FilterHeader(nil, header, nil, true)
		if len(in)+len(out) != len(all)+2 && len(in)+len(out) != len(all)+2+2 {
			t.Fatalf("%q and %q are not together %q", in, out, all)
		}
		if again := FilterHeader(nil, in, names, false); !bytes.Equal(again, in) {
			t.Fatalf("filtered again: %q, want %q", again, in)
		}
	})
}

func BenchmarkHeaderFields(b *testing.B) {
	s := parse(crlf("Date: Wed, 17 Jul 1996 02:23:25 -0700\nFrom: Terry Gray <gray@cac.washington.edu>\nSubject: summary\nTo: imap@cac.washington.edu\nMessage-Id: <B27397-0100000@cac.washington.edu>\nMIME-Version: 1.0\nContent-Type: text/plain\n\n"))
	var names [][]byte
	for _, n := range strings.Fields("From To Cc Bcc Subject Date Message-ID Priority X-Priority References Newsgroups In-Reply-To Content-Type Reply-To") {
		names = append(names, []byte(n))
	}
	var buf []byte
	set := NewFieldNames(names)
	b.ReportAllocs()
	for b.Loop() {
		if !s.CompleteFor(set) {
			b.Fatal("not complete")
		}
		buf = FilterHeader(buf[:0], s.Header, set, false)
	}
}
