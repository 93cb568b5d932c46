package events

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestSequence(t *testing.T) {
	t.Parallel()
	const grace = time.Second
	type step struct {
		at     time.Duration
		number uint64 // arrives; 0: none
		reach  uint64 // or is said to have been given out
		as     arrival
		lost   bool // what lost returns then
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"in order", []step{{number: 1}, {number: 2}, {at: time.Hour, number: 3}}},
		{"doubled", []step{{number: 1}, {number: 1, as: doubled}, {at: time.Hour}}},
		{"a hole stays", []step{{number: 1}, {number: 3}, {at: grace - 1}, {at: grace, lost: true}, {at: 2 * grace}}},
		{"a hole closes", []step{{number: 1}, {number: 3}, {at: grace - 1, number: 2, as: late}, {at: grace}}},
		{"a hole closes bit by bit", []step{
			{number: 6},
			{number: 3, as: late},
			{number: 1, as: late},
			{number: 5, as: late},
			{number: 2, as: late},
			{number: 4, as: late},
			{at: grace},
		}},
		{"a part of a hole stays", []step{{number: 5}, {number: 2, as: late}, {number: 4, as: late}, {at: grace, lost: true}}},
		{"the last is missing", []step{{number: 1}, {reach: 2}, {at: grace, lost: true}}},
		{"the last comes behind the beat", []step{{number: 1}, {reach: 2}, {at: 1, number: 2, as: late}, {at: grace}}},
		{"a beat of before", []step{{number: 5}, {number: 1, as: late}, {reach: 3}, {at: grace, lost: true}}},
		{"the second hole is younger", []step{{number: 2}, {at: grace / 2, number: 4}, {at: grace - 1, number: 1, as: late}, {at: grace}, {at: 2 * grace, lost: true}}},
		{"too late", []step{{number: 2}, {at: grace, lost: true}, {at: grace, number: 1, as: doubled}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			var s sequence
			for i, step := range test.steps {
				now := start.Add(step.at)
				if step.number > 0 {
					if as := s.arrive(step.number, now); as != step.as {
						t.Errorf("step %d: arrived as %d, want %d", i, as, step.as)
					}
				}
				s.reach(step.reach, now)
				if lost := s.lost(grace, now); lost != step.lost {
					t.Errorf("step %d: lost is %t, want %t", i, lost, step.lost)
				}
			}
		})
	}
}

// However numbers are shuffled, doubled and left out, holes are exactly what did not arrive.
func TestSequenceAgainstSet(t *testing.T) {
	t.Parallel()
	const most = 40
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 1))
		var s sequence
		arrived := make(map[uint64]bool)
		for range 60 {
			number := random.Uint64N(most) + 1
			want := doubled
			switch {
			case number > s.top:
				want = inOrder
			case !arrived[number]:
				want = late
			}
			if got := s.arrive(number, time.Time{}); got != want {
				t.Fatalf("seed %d: %d arrived as %d, want %d", seed, number, got, want)
			}
			arrived[number] = true
			holes := make(map[uint64]bool)
			for _, h := range s.holes {
				for n := h.first; n <= h.last; n++ {
					holes[n] = true
				}
			}
			for n := uint64(1); n <= most; n++ {
				if missing := n <= s.top && !arrived[n]; missing != holes[n] {
					t.Fatalf("seed %d: top %d, arrived %v, holes %v: %d", seed, s.top, arrived, s.holes, n)
				}
			}
		}
	}
}

func TestTooManyHolesAreLost(t *testing.T) {
	t.Parallel()
	var s sequence
	now := time.Now()
	for i := range uint64(maxHoles) {
		s.arrive(2*i+2, now)
	}
	if s.lost(time.Hour, now) {
		t.Error("lost too early")
	}
	s.arrive(2*maxHoles+2, now)
	if !s.lost(time.Hour, now) || len(s.holes) > 0 {
		t.Error("more holes than are remembered are not lost")
	}
}
