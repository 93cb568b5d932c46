package imapwire

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestNumSet(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		in, out  string
		highest  uint32 // of the mailbox
		resolved string
	}{
		{"1", "1", 9, "1"},
		{"2,4:7,9,12:*", "2,4:7,9,12:*", 15, "2,4:7,9,12:15"}, // RFC 9051 §9
		{"*:4,5:7", "5:7,4:*", 10, "4:10"},                    // RFC 9051 §9
		{"*:4,5:7", "5:7,4:*", 5, "4:5"},
		{"*", "*", 9, "9"},
		{"*:*", "*", 9, "9"},
		{"*", "*", 0, ""},
		{"1:*", "1:*", 0, ""},
		{"559:*", "559:*", 558, "558"},     // RFC 9051 §6.4.9
		{"5:*,7:*,6:*", "5:*,7:*", 3, "3"}, // 3:5, 3:7 and 3:6, of which there is 3,
		{"3:1", "1:3", 9, "1:3"},
		{"5,3,1", "1,3,5", 9, "1,3,5"},
		{"1,2,3,5", "1:3,5", 9, "1:3,5"},
		{"5:9,1:6,20", "1:9,20", 7, "1:7"},
		{"20,1", "1,20", 7, "1"},
		{"$", "$", 7, "$"},
		{"$,4", "$,4", 7, "$,4"},
		{"1:4294967295", "1:4294967295", 7, "1:7"},
		{"4294967295,4294967294", "4294967294:4294967295", math.MaxUint32, "4294967294:4294967295"},
		{"1:2,4294967295,1", "1:2,4294967295", 7, "1:2"},
	} {
		bothWays(t, test.in+"\r\n", func(t *testing.T, d *Decoder) {
			if err := d.begin(); err != nil {
				t.Fatal(err)
			}
			s := d.NumSet()
			if err := d.End(); err != nil {
				t.Fatalf("%s: %v", test.in, err)
			}
			if s.String() != test.out {
				t.Errorf("%s = %s, want %s", test.in, s, test.out)
			}
			resolved := s.Resolve(test.highest)
			if resolved.String() != test.resolved {
				t.Errorf("%s of %d = %s, want %s", test.in, test.highest, resolved, test.resolved)
			}
		})
	}
}

func TestNumSetErrors(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"", "0", "1:0", "a", "1,", ",1", "1:", ":1", "1:2:3", "**", "-1", "4294967296", "1 ,2", "$:1"} {
		d := newTestDecoder(in + "\r\n")
		if err := d.begin(); err != nil {
			t.Fatal(err)
		}
		s := d.NumSet()
		if err := d.End(); err == nil {
			t.Errorf("%q = %s", in, s)
		}
	}
	for _, in := range []string{"*", "1:*", "$", "1,$"} {
		d := newTestDecoder(in + "\r\n")
		if err := d.begin(); err != nil {
			t.Fatal(err)
		}
		if s := d.PlainNumSet(); d.Err() == nil {
			t.Errorf("%q = %s", in, s)
		}
	}
}

// TestNumSetAdd compares with a map, for numbers in any order.
func TestNumSetAdd(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var s NumSet
		model := map[uint32]bool{}
		for range rnd.IntN(40) {
			lo := rnd.Uint32N(60)
			hi := lo + rnd.Uint32N(4)
			s.AddRange(lo, hi)
			for n := max(lo, 1); n <= hi; n++ {
				model[n] = true
			}
		}
		for n := range uint32(70) {
			if s.Contains(n) != model[n] {
				t.Fatalf("%s: Contains(%d) = %v", s, n, s.Contains(n))
			}
		}
		if s.Len() != len(model) || len(slices.Collect(s.All())) != len(model) {
			t.Fatalf("%s: %d numbers, want %d", s, s.Len(), len(model))
		}
		for i, r := range s.Ranges() {
			if r.Lo > r.Hi || i > 0 && r.Lo <= s.Ranges()[i-1].Hi+1 {
				t.Fatalf("ranges are not normal: %v", s.Ranges())
			}
		}
		for n := range s.All() {
			if !model[n] {
				t.Fatalf("%s: %d", s, n)
			}
		}
	}
	top := NumSetOf(math.MaxUint32, 0, 1)
	top.Add(math.MaxUint32)
	if top.String() != "1,4294967295" || top.Highest() != math.MaxUint32 || len(slices.Collect(top.All())) != 2 {
		t.Errorf("top = %s", top)
	}
}

func TestResolveKeepsTheSet(t *testing.T) {
	t.Parallel()
	s := NumSetOf(1, 2, 5, 6, 9)
	a := s.Resolve(7)
	a.Add(7)
	a.Add(8)
	b := s.Resolve(5)
	if s.String() != "1:2,5:6,9" || a.String() != "1:2,5:8" || b.String() != "1:2,5" {
		t.Errorf("s = %s, a = %s, b = %s", s, a, b)
	}
	whole := s.Resolve(100)
	whole.Add(10)
	if s.String() != "1:2,5:6,9" {
		t.Errorf("adding to the resolved set changed s to %s", s)
	}
}

func FuzzNumSet(f *testing.F) {
	for _, seed := range []string{"1", "2,4:7,9,12:*", "*:4,5:7", "$,3:*,7:*", "4294967295,1:3,2"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if strings.ContainsAny(in, "\r\n") {
			return
		}
		d := newTestDecoder(in + "\r\n")
		if d.begin() != nil {
			return
		}
		s := d.NumSet()
		if d.End() != nil {
			return
		}
		again := newTestDecoder(s.String() + "\r\n")
		if err := again.begin(); err != nil {
			t.Fatal(err)
		}
		s2 := again.NumSet()
		if err := again.End(); err != nil || s2.String() != s.String() {
			t.Fatalf("%q became %s, and that %s (%v)", in, s, s2, err)
		}
		for _, highest := range []uint32{0, 1, 5, math.MaxUint32} {
			if a, b := s.Resolve(highest), s2.Resolve(highest); a.String() != b.String() || a.Highest() > highest {
				t.Fatalf("%s of %d: %s and %s", s, highest, a, b)
			}
		}
	})
}
