package imapwire

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"sort"
	"strconv"
)

// A Range is the numbers from Lo to Hi, both included; 1 <= Lo <= Hi.
type Range struct{ Lo, Hi uint32 }

// A NumSet is a set of UIDs or sequence numbers (sequence-set, RFC 9051 §9). The zero value is empty. What depends on
// the mailbox, "*" and "$", is kept apart: Resolve replaces "*", and Saved says that "$" was named (RFC 5182 §2.1). Copies
// share their numbers: only one of them may be added to.
type NumSet struct {
	Saved bool // "$" is in the set: the result that SEARCH saved, which the caller adds

	ranges []Range // ascending, disjoint, not adjacent; without "*"
	// Every range with "*" holds the highest number M, so their union is one range from min(starLo, M) to max(starHi, M).
	star   bool
	starLo uint32
	starHi uint32
}

// NumSetOf returns the set of these numbers. 0 is left out.
func NumSetOf(nums ...uint32) NumSet {
	var s NumSet
	for _, n := range nums {
		s.Add(n)
	}
	return s
}

// Add puts n into the set. It costs constant time when n is above or next to the highest number in the set. 0 is no
// number, and ignored.
func (s *NumSet) Add(n uint32) { s.AddRange(n, n) }

// AddRange puts the numbers from lo to hi into the set, in either order.
func (s *NumSet) AddRange(lo, hi uint32) {
	if lo > hi {
		lo, hi = hi, lo
	}
	lo = max(lo, 1)
	if hi == 0 {
		return
	}
	last := len(s.ranges) - 1
	switch {
	case last < 0 || lo > s.ranges[last].Hi && lo-1 > s.ranges[last].Hi:
		s.ranges = append(s.ranges, Range{lo, hi})
	case lo >= s.ranges[last].Lo:
		s.ranges[last].Hi = max(s.ranges[last].Hi, hi)
	default:
		s.insert(lo, hi)
	}
}

// insert adds a range that begins below the last.
func (s *NumSet) insert(lo, hi uint32) {
	// The ranges from i up to j touch or overlap the new one.
	i := sort.Search(len(s.ranges), func(i int) bool { return s.ranges[i].Hi >= lo-1 })
	j := i + sort.Search(len(s.ranges)-i, func(j int) bool {
		r := s.ranges[i+j]
		return r.Lo > hi && r.Lo-1 > hi
	})
	if i < j {
		lo = min(lo, s.ranges[i].Lo)
		hi = max(hi, s.ranges[j-1].Hi)
	}
	s.ranges = slices.Replace(s.ranges, i, j, Range{lo, hi})
}

// addStar puts the range from n to "*" into the set; the range is "*" alone when n is 0.
func (s *NumSet) addStar(n uint32) {
	if !s.star {
		s.star, s.starLo, s.starHi = true, math.MaxUint32, 0
	}
	if n > 0 {
		s.starLo = min(s.starLo, n)
		s.starHi = max(s.starHi, n)
	}
}

// Star reports whether "*" is in the set.
func (s NumSet) Star() bool { return s.star }

// Empty reports whether the set names nothing, neither numbers nor "*" nor "$".
func (s NumSet) Empty() bool { return len(s.ranges) == 0 && !s.star && !s.Saved }

// Ranges returns the numbers in ascending, disjoint ranges that do not touch. "*" and "$" are not in them: Resolve
// first. The caller must not change them.
func (s NumSet) Ranges() []Range { return s.ranges }

// Highest is the highest number that the set names, 0 if none. "*" and "$" are not counted. A sequence number above
// that of the last message is an error of the client's (RFC 9051 §9, seq-number).
func (s NumSet) Highest() uint32 {
	if len(s.ranges) == 0 {
		if s.star {
			return s.starHi
		}
		return 0
	}
	highest := s.ranges[len(s.ranges)-1].Hi
	if s.star {
		highest = max(highest, s.starHi)
	}
	return highest
}

// Resolve returns the numbers from 1 to highest that are in the set, where "*" stands for highest: the highest number in
// use. In an empty mailbox, of highest 0, there are none. Saved is kept. The result shares nothing with s.
func (s NumSet) Resolve(highest uint32) NumSet {
	out := NumSet{Saved: s.Saved}
	if highest == 0 {
		return out
	}
	n := sort.Search(len(s.ranges), func(i int) bool { return s.ranges[i].Lo > highest })
	out.ranges = slices.Clone(s.ranges[:n])
	if n > 0 {
		out.ranges[n-1].Hi = min(out.ranges[n-1].Hi, highest)
	}
	if s.star {
		out.AddRange(min(s.starLo, highest), highest)
	}
	return out
}

// Contains reports whether n is one of the numbers; "*" and "$" are not looked at.
func (s NumSet) Contains(n uint32) bool {
	i := sort.Search(len(s.ranges), func(i int) bool { return s.ranges[i].Hi >= n })
	return i < len(s.ranges) && s.ranges[i].Lo <= n
}

// Len is how many numbers the ranges hold; "*" and "$" are not counted.
func (s NumSet) Len() int {
	n := 0
	for _, r := range s.ranges {
		n += int(r.Hi-r.Lo) + 1
	}
	return n
}

// All yields the numbers in ascending order; "*" and "$" are not in them.
func (s NumSet) All() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for _, r := range s.ranges {
			for n := uint64(r.Lo); n <= uint64(r.Hi); n++ {
				if !yield(uint32(n)) {
					return
				}
			}
		}
	}
}

// String is the set as it is written on the wire, with ranges in ascending order.
func (s NumSet) String() string { return string(s.AppendTo(nil)) }

// AppendTo appends the set as it is written on the wire. An empty set appends nothing, which no response may contain.
func (s NumSet) AppendTo(b []byte) []byte {
	start := len(b)
	comma := func() {
		if len(b) > start {
			b = append(b, ',')
		}
	}
	if s.Saved {
		b = append(b, '$')
	}
	for _, r := range s.ranges {
		comma()
		b = strconv.AppendUint(b, uint64(r.Lo), 10)
		if r.Hi > r.Lo {
			b = append(b, ':')
			b = strconv.AppendUint(b, uint64(r.Hi), 10)
		}
	}
	if !s.star {
		return b
	}
	comma()
	if s.starHi == 0 {
		return append(b, '*')
	}
	b = strconv.AppendUint(b, uint64(s.starLo), 10)
	b = append(b, ":*"...)
	if s.starHi > s.starLo {
		b = append(b, ',')
		b = strconv.AppendUint(b, uint64(s.starHi), 10)
		b = append(b, ":*"...)
	}
	return b
}

// NumSet reads a sequence-set: numbers, ranges, "*" and "$" (RFC 9051 §9, RFC 5182 §2.1).
func (d *Decoder) NumSet() NumSet {
	var s NumSet
	for d.err == nil {
		if d.TryByte('$') {
			s.Saved = true
		} else {
			d.numRange(&s)
		}
		if !d.TryByte(',') {
			break
		}
	}
	if d.err != nil {
		return NumSet{}
	}
	s.normalize()
	return s
}

// numRange appends a range to s, out of order if it comes so.
func (d *Decoder) numRange(s *NumSet) {
	lo, star := d.seqNumber()
	hi := lo
	if d.TryByte(':') {
		var starHi bool
		hi, starHi = d.seqNumber()
		if starHi && !star {
			hi = lo
		}
		if star && !starHi {
			lo = hi
		}
		star = star || starHi
	}
	switch {
	case d.err != nil:
	case star:
		s.addStar(lo)
	default:
		s.ranges = append(s.ranges, Range{min(lo, hi), max(lo, hi)})
	}
}

// seqNumber reads a number or "*", which is 0.
func (d *Decoder) seqNumber() (n uint32, star bool) {
	if d.TryByte('*') {
		return 0, true
	}
	if c := d.Peek(); c < '0' || c > '9' {
		d.expected("a number or '*'")
		return 0, false
	}
	return d.NZNumber(), false
}

// normalize brings ranges into order. It takes n log n, however the client orders them.
func (s *NumSet) normalize() {
	ascending := slices.IsSortedFunc(s.ranges, func(a, b Range) int { return cmp.Compare(a.Lo, b.Lo) })
	if !ascending {
		slices.SortFunc(s.ranges, func(a, b Range) int { return cmp.Compare(a.Lo, b.Lo) })
	}
	parsed := s.ranges
	s.ranges = s.ranges[:0]
	for _, r := range parsed {
		s.AddRange(r.Lo, r.Hi)
	}
}

// PlainNumSet reads a sequence-set without "*" and "$" (known-uids, RFC 7162 §7).
func (d *Decoder) PlainNumSet() NumSet {
	s := d.NumSet()
	if s.star || s.Saved {
		d.Fail("expected numbers without '*' and '$'")
		return NumSet{}
	}
	return s
}
