package message

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// TestLiterals stores summaries whose literals are few and many, and of every octet: what is
// read again is the same, and the dictionary's table is used where there is something to gain.
func TestLiterals(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	text := func(n, octets int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(' ' + random.IntN(octets))
		}
		return b
	}
	const repeats = "Content-Type: multipart/alternative; charset=utf-8; "
	for _, n := range []int{0, 1, 10, 31, 32, 33, 100, 1000, 1023, 1024, 1025, 5000, 16_000, 17_000, 40_000} {
		for _, octets := range []int{1, 26, 90, 256} {
			s := &Summary{Header: append(text(n, octets), bytes.Repeat([]byte(repeats), 1+n/100)...), Parts: []Part{{Type: []byte("text")}}}
			b, err := s.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			var again Summary
			if err := again.unpack(b); err != nil || !bytes.Equal(again.raw, s.appendPayload(nil)) {
				t.Fatalf("%d literals of %d octets: read differs from stored, %v", n, octets, err)
			}
			if n < 100 || octets != 26 {
				continue
			}
			if b[1] != dictFirst || b[2+frameHeader(b[2])+frameBlock]&3 != treeless {
				t.Errorf("%d literals of %d octets are not coded by the dictionary's table", n, octets)
			}
		}
	}
}

// TestLiteralsOfBefore reads what was stored when each frame had a table of its own.
func TestLiteralsOfBefore(t *testing.T) {
	t.Parallel()
	e, err := zstd.NewWriter(nil, zstd.WithEncoderDict(firstDict), zstd.WithEncoderCRC(false), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	older, newer, mails := 0, 0, 0
	var again Summary
	for _, path := range corpus(t) {
		s := parse(readFile(t, path))
		frame := e.EncodeAll(s.appendPayload(nil), nil)[len(zstdMagic):]
		if err := again.Unmarshal(append([]byte{formatVersion, dictFirst}, frame...)); err != nil || dumpAll(&again) != dumpAll(s) {
			t.Fatalf("%s: read differs from stored, %v", path, err)
		}
		b, err := s.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		older, newer, mails = older+len(frame)+2, newer+len(b), mails+1
	}
	t.Logf("%d octets on average, before %d", newer/mails, older/mails)
	if newer >= older*19/20 {
		t.Errorf("%d octets on average, before %d", newer/mails, older/mails)
	}
}
