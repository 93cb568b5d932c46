package message

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestSummaryRoundTrip(t *testing.T) {
	t.Parallel()
	var again Summary // reused: what one message leaves must not show in the next
	for _, path := range corpus(t) {
		s := parse(readFile(t, path))
		b, err := s.AppendBinary([]byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Unmarshal(b[1:]); err != nil {
			t.Fatalf("%s: %v", filepath.Base(path), err)
		}
		if got, want := dumpAll(&again), dumpAll(s); got != want {
			t.Fatalf("%s: stored:\n%s\nread:\n%s", filepath.Base(path), want, got)
		}
	}
}

func TestSummarySize(t *testing.T) {
	t.Parallel()
	var sizes []int
	total := 0
	for _, path := range corpus(t) {
		b, err := parse(readFile(t, path)).MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(b))
		total += len(b)
	}
	slices.Sort(sizes)
	mean, median := total/len(sizes), sizes[len(sizes)/2]
	t.Logf("mean %d, median %d, 90%% %d, largest %d", mean, median, sizes[len(sizes)*9/10], sizes[len(sizes)-1])
	if median > 250 {
		t.Errorf("median %d octets a mail, want at most 250", median)
	}
}

func stored(b *testing.B) [][]byte {
	var out [][]byte
	for _, path := range corpus(b) {
		s, err := parse(readFile(b, path)).MarshalBinary()
		if err != nil {
			b.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

func BenchmarkUnmarshal(b *testing.B) {
	all := stored(b)
	var s Summary
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if err := s.Unmarshal(all[i%len(all)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkMarshal(b *testing.B) {
	var all []*Summary
	for _, path := range corpus(b) {
		all = append(all, parse(readFile(b, path)))
	}
	var buf []byte
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		buf, _ = all[i%len(all)].AppendBinary(buf[:0])
		i++
	}
}

func BenchmarkParse(b *testing.B) {
	var all []byte
	for _, path := range corpus(b)[:200] {
		all = append(all, readFile(b, path)...)
	}
	mail := append([]byte("Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n"), bytes.ReplaceAll(all, []byte("\n--"), []byte("\n"))...)
	b.SetBytes(int64(len(mail)))
	b.ReportAllocs()
	for b.Loop() {
		parse(mail)
	}
}

func BenchmarkParseCorpus(b *testing.B) {
	var all [][]byte
	total := 0
	for _, path := range corpus(b) {
		all = append(all, readFile(b, path))
		total += len(all[len(all)-1])
	}
	b.SetBytes(int64(total / len(all)))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		parse(all[i%len(all)])
		i++
	}
}

// One encoder and one decoder serve all.
func TestSummaryConcurrently(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var again Summary
			for _, mail := range []string{searchMail, sectionMail, "", "Subject: x\n\n"} {
				s := parse(crlf(mail))
				b, err := s.MarshalBinary()
				if err != nil {
					t.Error(err)
					return
				}
				if err := again.Unmarshal(b); err != nil || dumpAll(&again) != dumpAll(s) {
					t.Errorf("read differs from stored, %v", err)
				}
			}
		})
	}
	wg.Wait()
}

// The largest summary that a message can have is read: parameters that have to be encoded to be joined take three
// times their octets, in as many parts as there may be.
func TestLargestSummary(t *testing.T) {
	t.Parallel()
	var in strings.Builder
	in.WriteString("Content-Type: multipart/mixed; boundary=b\n")
	for _, name := range []string{"To", "Cc"} {
		in.WriteString(name + ": " + strings.Repeat("x", 62<<10) + "\n")
	}
	for i := range maxParts {
		piece := ";n*1=\"" + strings.Repeat("%", 465) + "\""
		if i < 16 {
			piece = strings.Repeat(piece, 17)
		}
		in.WriteString("\n--b\nContent-Type: a/b;n*0*=a" + piece + "\n\nx")
	}
	s := parse([]byte(in.String()))
	if n := len(s.appendPayload(nil)); n < maxPayload/2 || n > maxPayload {
		t.Errorf("payload of %d octets", n)
	}
	stored, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var again Summary
	if err := again.Unmarshal(stored); err != nil {
		t.Fatal(err)
	}
	if dumpAll(&again) != dumpAll(s) {
		t.Error("read differs from stored")
	}
	plain, err := Decompress(stored)
	if err != nil || cap(plain) > 2*len(plain) {
		t.Errorf("decompressed: %v, %d octets take %d", err, len(plain), cap(plain))
	}
}

func TestUnmarshalErrors(t *testing.T) {
	t.Parallel()
	good, err := parse(crlf(sectionMail)).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing":         nil,
		"one octet":       good[:1],
		"another version": append([]byte{99}, good[1:]...),
		"another dict":    append([]byte{formatVersion, 99}, good[2:]...),
		"cut":             good[:len(good)-1],
		"more":            append(bytes.Clone(good), 0),
		"no parts":        {formatVersion, dictPlain, 0, 0, 0, 0},
	} {
		var s Summary
		if err := s.Unmarshal(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
