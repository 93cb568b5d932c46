package message

import (
	"bytes"
	"testing"
)

// Whatever the bytes: no panic, offsets that make a tree, the same summary however the bytes come and
// after it was stored.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "\n", "\r", "a", "Subject: x\r\n\r\nbody\r\n", searchMail, sectionMail,
		"Content-Type: multipart/digest; boundary=b\n\n--b\n\nFrom: a\n--b\n\n\n--b--\n--b\n",
		"Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\n--b\r\n\r\n-\r\n--\r\r\n--b--x\r\n--b --\r\n",
		"Content-Type: message/rfc822\n\nContent-Type: multipart/x\n\nx",
		"Content-Type: message/global; x*0*=a; x*1=b\nContent-Transfer-Encoding: base64\n\nYQ==",
		"To: \"a\x00\r\n b\" <[c\r\n d]@[e\r\n\x00]>\r\nSubject: \x00\r\nContent-Type: a/b; x=\"\x00\"\r\n\r\n",
		"To: g:a@b,<@c:d@e>;(\r\n Cc: x\r\nFrom:\"\\\r\n\r\n",
		"Content-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n<p>a&amp;=\nb<style>x</style><!-- -->=C3=A4",
	} {
		f.Add([]byte(seed), 1)
		f.Add(crlf(seed), 7)
	}
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		s := parse(in)
		checkTree(t, s, len(in))
		want := dumpAll(s)
		size = 1 + (size%64+64)%64
		p := NewParser()
		for rest := in; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			p.Write(rest[:min(size, len(rest))])
		}
		if got := dumpAll(p.Close()); got != want {
			t.Fatalf("by %d:\n%s\nat once:\n%s", size, got, want)
		}
		b, err := s.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var again Summary
		if err := again.Unmarshal(b); err != nil {
			t.Fatal(err)
		}
		if got := dumpAll(&again); got != want {
			t.Fatalf("read:\n%s\nstored:\n%s", got, want)
		}
		for i := range s.Parts {
			p := &s.Parts[i]
			n := bytes.Count(in[p.BodyStart:p.End], []byte{'\n'})
			if (p.IsText() || p.IsMessage()) && int64(n) != p.Lines {
				t.Fatalf("part %d has %d lines, not %d", i, n, p.Lines)
			}
		}
		for i := range s.Parts {
			checkText(t, s.Parts[i].texts())
		}
		for i := range s.Envelopes {
			checkText(t, s.Envelopes[i].texts())
		}
		if _, err := SearchText(bytes.NewReader(in), s, [][]byte{[]byte("needle")}, true); err != nil {
			t.Fatal(err)
		}
		s.SentDate()
		s.ThreadIDs()
	})
}

// checkText fails on what no IMAP string or literal can hold, and on line ends.
func checkText(t *testing.T, texts [][]byte) {
	t.Helper()
	for _, b := range texts {
		if bytes.ContainsAny(b, "\x00\n") {
			t.Fatalf("%q has NUL or a line end", b)
		}
	}
}

func (p *Part) texts() [][]byte {
	out := append([][]byte{p.Type, p.Subtype, p.ID, p.Description, p.Encoding, p.MD5, p.Disposition, p.Location}, p.Language...)
	for _, param := range append(append([]Param{}, p.Params...), p.DispositionParams...) {
		out = append(out, param.Name, param.Value)
	}
	return out
}

func (e *Envelope) texts() [][]byte {
	out := [][]byte{e.Date, e.Subject, e.InReplyTo, e.MessageID}
	for _, list := range [][]Address{e.From, e.Sender, e.ReplyTo, e.To, e.Cc, e.Bcc} {
		for _, a := range list {
			out = append(out, a.Name, a.Route, a.Mailbox, a.Host)
		}
	}
	return out
}

// Stored bytes that are wrong give an error or a tree, never a panic.
func FuzzUnmarshal(f *testing.F) {
	for _, mail := range []string{"", searchMail, sectionMail} {
		s := parse(crlf(mail))
		b, err := s.MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(append([]byte{formatVersion, dictPlain}, s.appendPayload(nil)...))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var s Summary
		if err := s.Unmarshal(in); err != nil {
			return
		}
		checkTree(t, &s, int(s.Size()))
		dumpAll(&s)
		b, err := s.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var again Summary
		if err := again.Unmarshal(b); err != nil {
			t.Fatalf("stored again: %v", err)
		}
		if dumpAll(&again) != dumpAll(&s) {
			t.Fatal("stored again it differs")
		}
	})
}
