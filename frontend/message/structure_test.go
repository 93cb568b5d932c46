package message

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// A table of messages and what BODYSTRUCTURE says of them.
func TestBodyStructure(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, in, want string }{
		{
			"RFC 3501 §8: the example's message", `Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)
From: Terry Gray <gray@cac.washington.edu>
Subject: IMAP4rev1 WG mtg summary and minutes
To: imap@cac.washington.edu
Message-Id: <B27397-0100000@cac.washington.edu>
MIME-Version: 1.0
Content-Type: TEXT/PLAIN; CHARSET=US-ASCII

` + strings.Repeat("0123456789012345678901234567890\n", 92), `("TEXT" "PLAIN" ("CHARSET" "US-ASCII") NIL NIL "7bit" 3036 92 NIL NIL NIL NIL)`,
		},
		{
			"RFC 9051 §7.5.2: two texts", `Content-Type: multipart/mixed; boundary=b

--b
Content-Type: TEXT/PLAIN; CHARSET=US-ASCII
Content-Transfer-Encoding: 7BIT

` + strings.Repeat("x\n", 23) + `
--b
Content-Type: TEXT/PLAIN; CHARSET=US-ASCII; NAME="cc.diff"
Content-ID: <960723163407.20117h@cac.washington.edu>
Content-Description: Compiler diff
Content-Transfer-Encoding: BASE64

` + strings.Repeat("abcd\n", 73) + `
--b--
`, `(("TEXT" "PLAIN" ("CHARSET" "US-ASCII") NIL NIL "7BIT" 69 23 NIL NIL NIL NIL)` +
				`("TEXT" "PLAIN" ("CHARSET" "US-ASCII" "NAME" "cc.diff") "<960723163407.20117h@cac.washington.edu>" "Compiler diff" "BASE64" 438 73 NIL NIL NIL NIL)` +
				` "mixed" ("boundary" "b") NIL NIL NIL)`,
		},
		{"no header", "\nbody\n", `("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 6 1 NIL NIL NIL NIL)`},
		{"empty", "", `("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL)`},
		{"header only", "Subject: x\n", `("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL)`},
		{"type without subtype", "Content-Type: text\n\n", `("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL)`},
		{"not a type", "Content-Type: foo; name=x\n\n", `("text" "plain" ("name" "x" "charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL)`},
		{"empty type", "Content-Type:\n\n", `("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL)`},
		{
			"all fields", `Content-Type: image/png (a picture); name="a \"b\".png"; x=
Content-Disposition: ATTACHMENT; filename=a b.png; size=3
Content-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==
Content-Language: en, de (German) , fr
Content-Location: http://example.org/a
 /b.png
Content-Description: a
	folded text

abc`, `("image" "png" ("name" "a \"b\".png" "x" "") NIL "a\tfolded text" "7bit" 3 "Q2hlY2sgSW50ZWdyaXR5IQ==" ("ATTACHMENT" ("filename" "a b.png" "size" "3")) ("en" "de" "fr") "http://example.org/a /b.png")`,
		},
		{
			"nested message", `Content-Type: multipart/digest; boundary="x y"

preamble
--x y

From: a@b
Subject: in

text
--x y
Content-Type: text/plain

two
--x y--
epilogue
`, `(("message" "rfc822" NIL NIL NIL "7bit" 30 (NIL "in" ((NIL NIL "a" "b")) ((NIL NIL "a" "b")) ((NIL NIL "a" "b")) NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 4 0 NIL NIL NIL NIL) 3 NIL NIL NIL NIL)` +
				`("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 0 NIL NIL NIL NIL) "digest" ("boundary" "x y") NIL NIL NIL)`,
		},
		{
			"encoded nested message is opaque", "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nRnJvbTogYUBiDQo=\n",
			`("message" "rfc822" NIL NIL NIL "base64" 18 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) ("application" "octet-stream" NIL NIL NIL "base64" 18 NIL NIL NIL NIL) 1 NIL NIL NIL NIL)`,
		},
		{
			"multipart without boundary", "Content-Type: multipart/mixed\n\ntext\n",
			`(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 6 1 NIL NIL NIL NIL) "mixed" NIL NIL NIL NIL)`,
		},
		{
			"multipart without delimiter", "Content-Type: multipart/mixed; boundary=b\n\ntext\n",
			`(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 6 1 NIL NIL NIL NIL) "mixed" ("boundary" "b") NIL NIL NIL)`,
		},
		{
			"multipart never closed", "Content-Type: multipart/mixed; boundary=b\n\n--b\n\ntext\n",
			`(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 6 1 NIL NIL NIL NIL) "mixed" ("boundary" "b") NIL NIL NIL)`,
		},
		{
			"boundary that begins another", "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/alternative; boundary=b-1\n\n--b-1\n\n1\n--b-1--\n--b\n\n2\n--b--\n",
			`((("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 1 0 NIL NIL NIL NIL) "alternative" ("boundary" "b-1") NIL NIL NIL)("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 1 0 NIL NIL NIL NIL) "mixed" ("boundary" "b") NIL NIL NIL)`,
		},
		{
			"outer delimiter ends inner parts", "Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: multipart/mixed; boundary=i\n\n--i\n\nx\n--o\n\ny\n--o--",
			`((("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 1 0 NIL NIL NIL NIL) "mixed" ("boundary" "i") NIL NIL NIL)("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 1 0 NIL NIL NIL NIL) "mixed" ("boundary" "o") NIL NIL NIL)`,
		},
		{
			"delimiter in a header", "Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: text/html\n--o\n--o--\n",
			`(("text" "html" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL)("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL) "mixed" ("boundary" "o") NIL NIL NIL)`,
		},
		{
			"white space after a delimiter", "Content-Type: multipart/mixed; boundary=\"b \"\n\n--b \t\n\nx\n--b--  \nend",
			`(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 1 0 NIL NIL NIL NIL) "mixed" ("boundary" "b ") NIL NIL NIL)`,
		},
		{
			"no delimiter but its like", "Content-Type: multipart/mixed; boundary=b\n\n--b\n\n--bx\n-- b\n--\n--b--",
			`(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 14 2 NIL NIL NIL NIL) "mixed" ("boundary" "b") NIL NIL NIL)`,
		},
	} {
		in := crlf(tt.in)
		s := parse(in)
		checkTree(t, s, len(in))
		var w strings.Builder
		if dump(s, 0, &w); w.String() != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, w.String(), tt.want)
		}
	}
}

// RFC 2231 §3 and §4, and what senders make of it.
func TestParameters(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{`text/plain; charset=us-ascii (Plain text)`, `("charset" "us-ascii")`},
		{`text/plain; charset="us-ascii"`, `("charset" "us-ascii")`},
		{`message/external-body; access-type=URL; URL*0="ftp://"; URL*1="cs.utk.edu/pub/moore/bulk-mailer/bulk-mailer.tar"`, `("access-type" "URL" "URL" "ftp://cs.utk.edu/pub/moore/bulk-mailer/bulk-mailer.tar")`},
		{`application/x-stuff; title*=us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A`, `("title*" "us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A")`},
		{`application/x-stuff; title*0*=us-ascii'en'This%20is%20even%20more%20; title*1*=%2A%2A%2Afun%2A%2A%2A%20; title*2="isn't it!"`, `("title*" "us-ascii'en'This%20is%20even%20more%20%2A%2A%2Afun%2A%2A%2A%20isn%27t%20it!")`},
		{`a/b; t*1=two; x=y; t*0="one "`, `("t" "one two" "x" "y")`},
		{`a/b; name=my file.pdf ; x=1`, `("name" "my file.pdf" "x" "1")`},
		{`a/b; name="unclosed; x=1`, `("name" "unclosed; x=1")`},
		{`a/b; name = spaced`, `("name" "spaced")`},
		{`a/b name=x`, `NIL`},
		{`a/b;; ; name=x;`, `("name" "x")`},
		{`a/b; novalue; name=x`, `("name" "x")`},
		{`a/b; name="=?utf-8?B?YQ==?="`, `("name" "=?utf-8?B?YQ==?=")`},
		{`a/b; name==?utf-8?Q?a?=`, `("name" "=?utf-8?Q?a?=")`},
	} {
		var w strings.Builder
		if dumpParams(parse([]byte("Content-Type: " + tt.in + "\r\n\r\n")).Parts[0].Params, &w); w.String() != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.in, w.String(), tt.want)
		}
	}
}

func TestEnvelope(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, in, want string }{
		{
			"RFC 9051 §7.5.2", `Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)
From: Terry Gray <gray@cac.washington.edu>
Subject: IMAP4rev1 WG mtg summary and minutes
To: imap@cac.washington.edu
cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>
Message-Id: <B27397-0100000@cac.washington.edu>

`, `("Wed, 17 Jul 1996 02:23:25 -0700 (PDT)" "IMAP4rev1 WG mtg summary and minutes" (("Terry Gray" NIL "gray" "cac.washington.edu")) (("Terry Gray" NIL "gray" "cac.washington.edu")) (("Terry Gray" NIL "gray" "cac.washington.edu")) ((NIL NIL "imap" "cac.washington.edu")) ((NIL NIL "minutes" "CNRI.Reston.VA.US")("John Klensin" NIL "KLENSIN" "MIT.EDU")) NIL NIL "<B27397-0100000@cac.washington.edu>")`,
		},
		{"nothing", "\n", `(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)`},
		{"empty fields", "Date:\nSubject: \nFrom:\nTo: \nIn-Reply-To:\nMessage-ID:\n\n", `("" "" NIL NIL NIL NIL NIL NIL "" "")`},
		{"folded and encoded", "Subject: =?utf-8?Q?a?=\n =?utf-8?Q?b?=\n\n", `(NIL "=?utf-8?Q?a?= =?utf-8?Q?b?=" NIL NIL NIL NIL NIL NIL NIL NIL)`},
		{"repeated", "Subject: 1\nTo: a@b\nSubject: 2\nTo: c@d\n\n", `(NIL "1" NIL NIL NIL ((NIL NIL "a" "b")(NIL NIL "c" "d")) NIL NIL NIL NIL)`},
		{"sender and reply-to", "Sender: s@x\nReply-To: r@x\nFrom: f@x\n\n", `(NIL NIL ((NIL NIL "f" "x")) ((NIL NIL "s" "x")) ((NIL NIL "r" "x")) NIL NIL NIL NIL NIL)`},
		{"odd names and lines", "subject : x\nno colon here\n continued\n: y\nto\t:a@b\n\n", `(NIL "x" NIL NIL NIL ((NIL NIL "a" "b")) NIL NIL NIL NIL)`},
		{"continuation first", " x: y\nSubject: z\n\n", `(NIL "z" NIL NIL NIL NIL NIL NIL NIL NIL)`},
		{"NUL and bare CR", "Subject: a\x00b\rc\n\n", `(NIL "a b\rc" NIL NIL NIL NIL NIL NIL NIL NIL)`},
		{"8-bit", "Subject: \xe9\xff\n\n", `(NIL "\xe9\xff" NIL NIL NIL NIL NIL NIL NIL NIL)`},
		{"white space line goes on", "Subject: a\n \t\n b\n\n", `(NIL "a \t b" NIL NIL NIL NIL NIL NIL NIL NIL)`},
	} {
		for _, eol := range []string{"\r\n", "\n"} {
			var w strings.Builder
			dumpEnvelope(parse([]byte(strings.ReplaceAll(tt.in, "\n", eol))).Envelope(), &w)
			if w.String() != tt.want {
				t.Errorf("%s:\n got %s\nwant %s", tt.name, w.String(), tt.want)
			}
		}
	}
}

// Whatever the message, what is kept of it is bounded and still makes a tree.
func TestBounds(t *testing.T) {
	t.Parallel()
	const mb = 1 << 20
	var nested strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&nested, "Content-Type: multipart/mixed; boundary=%d\n\n--%d\n", i, i)
	}
	for _, tt := range []struct {
		name string
		in   string
	}{
		{"one long line", strings.Repeat("x", 8*mb)},
		{"one long header line", "Subject: " + strings.Repeat("x", 8*mb) + "\n\n"},
		{"a long address list", "To: " + strings.Repeat("a,", 4*mb) + "\n\n"},
		{"domain literals", "To: " + strings.Repeat("[<@", 2*mb) + "\n\n"},
		{"many fields", strings.Repeat("To: a@b\nCc: <@c\nReferences: <d@e>\nX: y\n", mb/8)},
		{"many continuations", "To: a" + strings.Repeat("\n ,b", mb)},
		{"many parts", "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\nContent-Type: a/b; name="+strings.Repeat("n", 1000)+"\n\nx\n", 4000)},
		{"many multiparts without parts", "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\nContent-Type: multipart/x; boundary=c\n\n", 40000)},
		{"a part, and many multiparts without", "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n" + strings.Repeat("--b\nContent-Type: multipart/x; boundary=c\n\n", 40000)},
		{"many digests", "Content-Type: multipart/digest; boundary=b\n\n" + strings.Repeat("--b\n\nFrom: a@b\n\nx\n", 40000)},
		{"many parameters", "Content-Type: a/b" + strings.Repeat(";a*1=b", mb) + "\n\n"},
		{"deep multiparts", nested.String()},
		{"deep messages", strings.Repeat("Content-Type: message/rfc822\n\n", 40000)},
		{"deep and no boundary", strings.Repeat("Content-Type: multipart/mixed\n\n", 40000)},
		{"long delimiters", "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b"+strings.Repeat(" ", 5000)+"\n\nx\n", 200)},
		{"hyphens", "Content-Type: multipart/mixed; boundary=" + strings.Repeat("-", 180) + "\n\n" + strings.Repeat("-\n--\n---\n", mb)},
		{"unclosed styles", "Content-Type: text/html\n\n" + strings.Repeat("<style><!--</", mb)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := crlf(tt.in)
			s := parse(in)
			checkTree(t, s, len(in))
			if len(s.Parts) > maxParts {
				t.Errorf("%d parts", len(s.Parts))
			}
			addrs := 0
			for i := range s.Envelopes {
				e := &s.Envelopes[i]
				addrs += len(e.From) + len(e.To) + len(e.Cc)
			}
			if addrs > maxAddresses {
				t.Errorf("%d addresses", addrs)
			}
			payload := s.appendPayload(nil)
			if len(payload) > 640<<10 {
				t.Errorf("payload of %d octets", len(payload))
			}
			b, err := s.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			var again Summary
			if err := again.Unmarshal(b); err != nil {
				t.Fatal(err)
			}
			if dumpAll(&again) != dumpAll(s) {
				t.Error("read differs from stored")
			}
		})
	}
}

// What is cut from Header is known to be.
func TestComplete(t *testing.T) {
	t.Parallel()
	in := crlf("Subject: " + strings.Repeat("x", textLimit) + "\nFrom: a@b\nAutocrypt: " + strings.Repeat("k", otherLimit) + "\nX-Other: y\n\n")
	s := parse(in)
	for name, want := range map[string]bool{"SUBJECT": false, "from": true, "To": true, "autocrypt": false, "X-Other": false, "Content-Transfer-Encoding": false} {
		if got := s.Complete([]byte(name)); got != want {
			t.Errorf("Complete(%s) is %v", name, got)
		}
	}
	if !s.CompleteFor(NewFieldNames([][]byte{[]byte("FROM"), []byte("to")})) {
		t.Error("not complete for two fields that it has")
	}
	for _, name := range []string{"Subject", "X-Other"} {
		if s.CompleteFor(NewFieldNames([][]byte{[]byte("From"), []byte(name)})) {
			t.Errorf("complete for %s", name)
		}
	}
	if n := len(s.Envelope().Subject); n != textLimit-len("Subject: ") {
		t.Errorf("subject of %d octets", n)
	}
}

// What Header answers is what the message's own header does.
func TestHeaderFieldsOfCorpus(t *testing.T) {
	t.Parallel()
	for _, path := range corpus(t) {
		b := readFile(t, path)
		s := parse(b)
		header := b[:s.Parts[0].BodyStart]
		for i := range fields {
			name := NewFieldNames([][]byte{[]byte(fields[i].name)})
			got, want := FilterHeader(nil, s.Header, name, false), FilterHeader(nil, header, name, false)
			if s.CompleteFor(name) && !bytes.Equal(got, want) {
				t.Errorf("%s: %s: %q, want %q", path, fields[i].name, got, want)
			}
		}
	}
}
