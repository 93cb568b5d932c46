package message

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

// digestOf is the digest of a message as it is stored.
func digestOf(t testing.TB, mail []byte) (Digest, *Summary) {
	t.Helper()
	stored, err := parse(mail).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var g Digester
	d, err := g.Append(nil, stored)
	if err != nil {
		t.Fatal(err)
	}
	s := new(Summary)
	if err := s.Unmarshal(stored); err != nil {
		t.Fatal(err)
	}
	return d, s
}

// compareDigest wants the digest to say what the summary says, or nothing.
func compareDigest(t testing.TB, d Digest, s *Summary) (told int) {
	t.Helper()
	sent, ok := s.SentDate()
	day, dated := d.Sent()
	if y, m, n := sent.Date(); dated != ok || ok && day*24*60*60 != time.Date(y, m, n, 0, 0, 0, 0, time.UTC).Unix() {
		t.Errorf("sent on day %d, %v; want %v, %v", day, dated, sent, ok)
	}
	for _, row := range digestFields {
		name := []byte(strings.ToUpper(fields[row].name))
		f, ok := LookupDigestField(name)
		if !ok {
			t.Fatalf("no field %s", name)
		}
		needles := [][]byte{nil, []byte("\U0001F9ED is nowhere")}
		var values [][]byte
		for field, value := range Fields(s.Header) {
			if !bytes.EqualFold(field, name) {
				continue
			}
			text := AppendDecoded(nil, value)
			values = append(values, text)
			needles = append(needles, text, text[len(text)/3:len(text)/3+len(text)/4], bytes.ToUpper(text))
		}
		for _, needle := range needles {
			found, known := d.Contains(f, AppendFoldedField(nil, needle))
			if !known {
				continue
			}
			told++
			want := false
			for _, value := range values {
				want = want || FieldContains(value, needle)
			}
			if !s.Complete(name) || found != want {
				t.Errorf("%s: %q found: %v, want %v (all of it kept: %v)", name, needle, found, want, s.Complete(name))
			}
		}
	}
	return told
}

func TestDigest(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxDigestText)
	for _, tt := range []struct {
		header string
		field  string
		needle string
		found  bool
		known  bool
	}{
		{"Subject: Hello\n", "Subject", "ELLO", true, true},
		{"Subject: Hello\n", "subject", "hallo", false, true},
		{"Subject: =?iso-8859-1?q?K=F6ln?= am\n  Rhein\n", "SUBJECT", "KÖLN AM  RHEIN", true, true},
		{"Subject: Köln am\n\tRhein\n", "SUBJECT", "köln am rhein", true, true},
		{"From: a@b\nTo: c@d\nCc: e@f\nMessage-ID: <g@h>\n", "Cc", "E@F", true, true},
		{"From: a@b\nTo: c@d\nCc: e@f\nMessage-ID: <g@h>\n", "Message-Id", "<g@h>", true, true},
		{"From: a@b\nTo: c@d\nCc: e@f\nMessage-ID: <g@h>\n", "To", "a@b", false, true},
		{"From: a@b\nTo: c@d\nCc: e@f\nMessage-ID: <g@h>\n", "Bcc", "", false, true},
		{"Subject:\n", "Subject", "", true, true},
		{"Subject: one\nSubject: two\n", "Subject", "one", false, false},
		{"To: " + long + "\nFrom: a\n", "To", "x", true, true},
		{"To: " + long + "\nFrom: abc\n", "From", "abc", true, true},
		{"To: x" + long + "\nFrom: abc\n", "To", "x", false, false},
		{"Subject: " + strings.Repeat(long, 9) + "\n", "Subject", "x", false, false},
	} {
		d, s := digestOf(t, crlf(tt.header+"\nbody\n"))
		compareDigest(t, d, s)
		f, _ := LookupDigestField([]byte(tt.field))
		if found, known := d.Contains(f, AppendFoldedField(nil, []byte(tt.needle))); found != tt.found || known != tt.known {
			t.Errorf("%.60q: %s %q: %v, %v", tt.header, tt.field, tt.needle, found, known)
		}
	}
	if _, ok := LookupDigestField([]byte("X-Other")); ok {
		t.Error("X-Other is in digests")
	}
	for date, want := range map[string]string{
		"Tue, 31 Dec 2024 23:59:59 -0800": "2024-12-31", "Wed, 1 Jan 2025 00:00:00 +1400": "2025-01-01",
		"1 Jan 1901 00:00:00 +0000": "1901-01-01", "31 Dec 1969 12:00:00 +0000": "1969-12-31",
	} {
		d, s := digestOf(t, crlf("Date: "+date+"\nDate: 5 May 2015 01:00:00 +0000\n\n"))
		compareDigest(t, d, s)
		if day, ok := d.Sent(); !ok || time.Unix(day*24*60*60, 0).UTC().Format(time.DateOnly) != want {
			t.Errorf("%s: day %d, %v", date, day, ok)
		}
	}
	if _, ok := digestFirst(digestOf(t, crlf("Date: soon\n\n"))).Sent(); ok {
		t.Error("a day without a date")
	}
	var g Digester
	if d, err := g.Append([]byte("before"), []byte("nonsense")); !errors.Is(err, ErrCorrupt) || string(d) != "before" {
		t.Errorf("nonsense: %q, %v", d, err)
	}
}

func digestFirst(d Digest, _ *Summary) Digest { return d }

func TestDigestOfCorpus(t *testing.T) {
	t.Parallel()
	octets, told, mails := 0, 0, 0
	for _, path := range corpus(t) {
		d, s := digestOf(t, readFile(t, path))
		told += compareDigest(t, d, s)
		octets += len(d)
		mails++
	}
	if told < mails*2*len(digestFields) {
		t.Errorf("digests answered %d times of %d mails", told, mails)
	}
	t.Logf("%d octets on average", octets/mails)
}

func FuzzDigest(f *testing.F) {
	f.Add([]byte("From: a\r\nTo: =?utf-8?b?eA==?=\r\nSubject: b\r\n c\r\nDate: 1 Jan 2020 00:00:00 +0100\r\nTo: d\r\n\r\n"))
	f.Fuzz(func(t *testing.T, mail []byte) {
		d, s := digestOf(t, mail)
		compareDigest(t, d, s)
	})
}

func BenchmarkDigest(b *testing.B) {
	all := stored(b)
	var g Digester
	var d []byte
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		var err error
		if d, err = g.Append(d[:0], all[i%len(all)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
