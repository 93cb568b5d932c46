package message

import (
	"bytes"
	"fmt"
	"net/mail"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestParseDate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		// RFC 5322 appendix A, and obsolete forms
		{"Fri, 21 Nov 1997 09:55:06 -0600", "1997-11-21T09:55:06-06:00"},
		{"Thu,\r\n      13\r\n        Feb\r\n          1969\r\n      23:32\r\n               -0330 (Newfoundland Time)", "1969-02-13T23:32:00-03:30"},
		{"21 Nov 97 09:55:06 GMT", "1997-11-21T09:55:06Z"},
		{"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)", "1996-07-17T02:23:25-07:00"},
		{"Mon, 1 Jan 24 00:00 EST", "2024-01-01T00:00:00-05:00"},
		{"Thu Aug 22 15:01:33 2002", "2002-08-22T15:01:33Z"},
		{"Thu Aug 22 15:01:33 PDT 2002", "2002-08-22T15:01:33-07:00"},
		{"22-Aug-2002 15:01:33 +0100", "2002-08-22T15:01:33+01:00"},
		{"2002-08-22T15:01:33.5+01:00", "2002-08-22T15:01:33+01:00"},
		{"2002-08-22 15:01:33", "2002-08-22T15:01:33Z"},
		{"22-08-2002", "2002-08-22T00:00:00Z"},
		{"22 August 2002 15:01:33+0200", "2002-08-22T15:01:33+02:00"},
		{"Sat, 31 Dec 2016 23:59:60 +0000", "2016-12-31T23:59:59Z"},
		{"Fri, 21 Nov 100 09:55:06 -0600", "2000-11-21T09:55:06-06:00"},
		{"", ""},
		{"yesterday", ""},
		{"31 Feb 2002 10:00:00 +0000", ""},
		{"32 Jan 2002 10:00:00 +0000", ""},
		{"1 Jan 2002 25:00:00 +0000", ""},
		{"1-2-", ""},
		{"- -1- :", ""},
	} {
		got, ok := ParseDate([]byte(tt.in))
		if s := got.Format(time.RFC3339); ok != (tt.want != "") || ok && s != tt.want {
			t.Errorf("%q: %s %v, want %s", tt.in, s, ok, tt.want)
		}
	}
	n := 0
	for _, path := range corpus(t) {
		s := parse(readFile(t, path))
		want, err := mail.ParseDate(string(s.Envelope().Date))
		if err != nil {
			continue
		}
		n++
		const wall = "2006-01-02 15:04:05"
		numeric := bytes.ContainsAny(s.Envelope().Date, "+-") // net/mail knows few zones by name
		if got, ok := s.SentDate(); !ok || numeric && !got.Equal(want) || got.Format(wall) != want.Format(wall) {
			t.Errorf("%s: %q: %v, net/mail has %v", path, s.Envelope().Date, got, want)
		}
	}
	if n < 1000 {
		t.Errorf("compared %d dates only", n)
	}
}

func FuzzParseDate(f *testing.F) {
	f.Add([]byte("Fri, 21 Nov 1997 09:55:06 -0600"))
	f.Add([]byte("2002-08-22T15:01:33.5+01:00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if got, ok := ParseDate(in); ok && (got.Year() < 0 || got.Year() > 999999) {
			t.Fatalf("%q is %v", in, got)
		}
		AppendMessageIDs(nil, in)
	})
}

func TestReferences(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, id, references, thread string }{
		{"Message-ID: <a@b>\n", "a@b", "", "a@b"},
		{"Message-ID: <\"01KF8JCEOCBS0045PS\"@xxx.yyy.com>\n", "01KF8JCEOCBS0045PS@xxx.yyy.com", "", "01KF8JCEOCBS0045PS@xxx.yyy.com"},
		{"Message-ID  : <1234   @   local(blah)  .machine .example>\n", "1234@local.machine.example", "", "1234@local.machine.example"},
		{"Message-ID: <1(@x>\n", "1", "", "1"},
		{"Message-ID: <3@x>\nReferences: <1@x>\n <2@x>\nIn-Reply-To: <2@x>\n", "3@x", "1@x 2@x", "1@x 2@x 3@x"},
		{"Message-ID: <3@x>\nIn-Reply-To: your mail <2@x> of <1@x>\n", "3@x", "2@x", "2@x 1@x 3@x"},
		{"References: <1@x><2@x>,<3@x\n", "", "1@x 2@x 3@x", "1@x 2@x 3@x"},
		{"References: <1@\n x> <>\n", "", "1@x", "1@x"},
		{"Message-ID: 1@x\nReferences: no ids 2@x here\n", "1@x", "2@x", "2@x 1@x"},
		{"Subject: x\n", "", "", ""},
	} {
		s := parse(crlf(tt.in + "\n"))
		if got := string(s.MessageID()); got != tt.id {
			t.Errorf("%q: id %q", tt.in, got)
		}
		refs, rooted := s.References()
		if got := string(bytes.Join(refs, []byte{' '})); got != tt.references {
			t.Errorf("%q: references %q", tt.in, got)
		}
		if want := !strings.Contains(tt.in, "In-Reply-To:") || strings.Contains(tt.in, "References:"); rooted != want {
			t.Errorf("%q: rooted is %v", tt.in, rooted)
		}
		if got := string(bytes.Join(s.ThreadIDs(), []byte{' '})); got != tt.thread {
			t.Errorf("%q: thread %q", tt.in, got)
		}
	}
}

func TestPreview(t *testing.T) {
	t.Parallel()
	part := func(header, body string) string { return "--b\n" + header + "\n\n" + body + "\n" }
	mixed := func(parts ...string) string {
		return "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Join(parts, "") + "--b--\n"
	}
	html := "Content-Type: text/html; charset=utf-8"
	for _, tt := range []struct{ in, want string }{
		{"\nHello,\n\n  world\t!\n", "Hello, world !"},
		{"\n> quoted\n>\nanswer\n > more\n", "answer"},
		{"\n> only\n> quoted\n", "> only > quoted"},
		{"Content-Transfer-Encoding: base64\n\nSGVsbG8=\n", "Hello"},
		{"Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nCaf=E9 =\nau lait", "Café au lait"},
		{"\nCaf\xe9 \x93x\x94", "Café “x”"},
		{"Content-Type: text/plain; charset=x-nobody\n\n\xe9", "é"},
		{html + "\n\n<html><head><title>t</title><style>p { x }</style></head><body><!-- c --><p>One<br>two&nbsp;&amp; <b>th</b>ree</p>4 < 5<script>s</script>", "One two & three 4 < 5"},
		{mixed(part(html, "<p>html"), part("Content-Type: text/plain", "plain")), "plain"},
		{mixed(part(html, "<p>html"), part("Content-Disposition: attachment", "attached")), "html"},
		{mixed(part("Content-Type: text/plain", " \n"), part(html, "<p>html")), "html"},
		{mixed(part(html, "<p>html"), part("Content-Type: message/rfc822", "\nnested")), "html"},
		{mixed(part("Content-Type: image/png", "binary")), ""},
		{"Content-Type: multipart/mixed\n\ntext\n", "text"},
		{"Content-Type: multipart/mixed; boundary=b\n\ntext\n", "text"},
		{"Content-Type: multipart/mixed; boundary=b\n\npreamble\n--b\n\n--b--\n", ""},
		{"Content-Transfer-Encoding: x-what\n\ntext\n", "text"},
		{"\n" + strings.Repeat("ä", 300), strings.Repeat("ä", 200)},
		{"\n" + strings.Repeat("1234567 ", 100), strings.TrimSpace(strings.Repeat("1234567 ", 25))},
		{"\nzero\u200b\u200cwidth\x01\n", "zerowidth"},
		{"", ""},
	} {
		if got := string(parse(crlf(tt.in)).Preview); got != tt.want {
			t.Errorf("%q:\n got %q\nwant %q", tt.in, got, tt.want)
		}
	}
	with := 0
	for _, path := range corpus(t) {
		p := parse(readFile(t, path)).Preview
		if !utf8.Valid(p) || utf8.RuneCount(p) > previewChars || bytes.ContainsAny(p, "\r\n\x00") {
			t.Errorf("%s: preview %q", path, p)
		}
		if len(p) > 0 {
			with++
		}
	}
	if with < 1300 {
		t.Errorf("%d mails have a preview", with)
	}
}

func ExampleParser() {
	p := NewParser()
	fmt.Fprint(p, "Subject: Hello\r\nFrom: Ann <ann@example.org>\r\n\r\nDear Bob,\r\n")
	s := p.Close()
	fmt.Printf("%s, %s, %d octets\n", s.Envelope().Subject, s.Preview, s.Parts[0].Size())
	// Output: Hello, Dear Bob,, 11 octets
}
