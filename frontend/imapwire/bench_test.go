package imapwire

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

func BenchmarkEncodeFetchFlags(b *testing.B) {
	e := NewEncoder(io.Discard)
	flags := []string{FlagSeen}
	b.ReportAllocs()
	var n uint32
	for b.Loop() {
		n++
		e.FetchBegin(n).FetchUID(1_000_000 + n).FetchFlags(flags).FetchEnd()
	}
}

func BenchmarkEncodeString(b *testing.B) {
	e := NewEncoder(io.Discard)
	subject := []byte("Re: a subject of the usual length, with \"quotes\"")
	b.ReportAllocs()
	for b.Loop() {
		e.Bytes(subject).CRLF()
	}
}

func BenchmarkEncodeMailbox(b *testing.B) {
	e := NewEncoder(io.Discard)
	b.ReportAllocs()
	for b.Loop() {
		e.Mailbox("Entwürfe/2026").CRLF()
	}
}

func BenchmarkEncodeSearch(b *testing.B) {
	e := NewEncoder(io.Discard)
	var s NumSet
	for n := range uint32(100_000) {
		s.Add(1 + n*2)
	}
	b.ReportAllocs()
	for b.Loop() {
		e.Search(s, 0)
	}
}

func BenchmarkCopyN(b *testing.B) {
	e := NewEncoder(io.Discard)
	body := make([]byte, 1<<20)
	r := bytes.NewReader(body)
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(body)
		if err := e.CopyN(r, 1<<20); err != nil {
			b.Fatal(err)
		}
	}
}

// repeated is an endless stream of the same command.
type repeated struct {
	command string
	at      int
}

func (r *repeated) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		m := copy(p[n:], r.command[r.at:])
		n += m
		r.at = (r.at + m) % len(r.command)
	}
	return n, nil
}

func benchmarkDecode(b *testing.B, command string, parse func(*Decoder)) {
	d := NewDecoder(&repeated{command: command}, Limits{})
	b.ReportAllocs()
	b.SetBytes(int64(len(command)))
	for b.Loop() {
		if _, _, err := d.Command(); err != nil {
			b.Fatal(err)
		}
		if parse != nil {
			parse(d)
		}
		if err := d.End(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeNoop(b *testing.B) { benchmarkDecode(b, "a001 NOOP\r\n", nil) }

func BenchmarkDecodeFetch(b *testing.B) {
	benchmarkDecode(b, "a001 UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER.FIELDS (FROM TO SUBJECT DATE)])\r\n", func(d *Decoder) { parseFetch(d) })
}

func BenchmarkDecodeStore(b *testing.B) {
	benchmarkDecode(b, "a001 UID STORE 1:5,9 +FLAGS.SILENT (\\Seen \\Deleted)\r\n", func(d *Decoder) { parseStore(d) })
}

func BenchmarkDecodeLongSet(b *testing.B) {
	benchmarkDecode(b, "a001 UID FETCH "+strings.Repeat("1000000,5,", 3000)+"7 FLAGS\r\n", func(d *Decoder) { parseFetch(d) })
}

func BenchmarkDecodeAppend(b *testing.B) {
	benchmarkDecode(b, "a001 APPEND INBOX (\\Seen) {100000+}\r\n"+strings.Repeat("0123456789", 10_000)+"\r\n", parseAppend)
}
