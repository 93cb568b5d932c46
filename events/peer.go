package events

import (
	"slices"
	"time"
)

// maxHoles is how many separate holes are remembered before they count as lost.
const maxHoles = 64

// peer is what is known of another process, by its incarnation.
type peer struct {
	heard    time.Time // last beat, or when it was first heard of
	patience time.Duration
	gone     bool // said goodbye
	silent   bool
	shards   [Shards]sequence
}

// sequence is what arrived of the numbers that a peer gave out in one shard: all up to top, but the holes.
type sequence struct {
	top   uint64
	holes []hole
}

// hole is a run of numbers that did not arrive, first and last included.
type hole struct {
	first, last uint64
	since       time.Time
}

// arrival is what a number that arrived turned out to be.
type arrival uint8

const (
	inOrder arrival = iota
	late            // it closed a hole, or a part of one
	doubled         // it was there before, or was given up
)

// arrive notes a number that came with a hint.
func (s *sequence) arrive(number uint64, now time.Time) arrival {
	if number > s.top {
		s.reach(number-1, now)
		s.top = number
		return inOrder
	}
	i, found := slices.BinarySearchFunc(s.holes, number, func(h hole, n uint64) int {
		switch {
		case h.last < n:
			return -1
		case h.first > n:
			return 1
		}
		return 0
	})
	if !found {
		return doubled
	}
	h := s.holes[i]
	var left []hole
	if h.first < number {
		left = append(left, hole{h.first, number - 1, h.since})
	}
	if number < h.last {
		left = append(left, hole{number + 1, h.last, h.since})
	}
	s.holes = slices.Replace(s.holes, i, i+1, left...)
	return late
}

// reach notes that numbers up to last were given out.
func (s *sequence) reach(last uint64, now time.Time) {
	if last > s.top {
		s.holes = append(s.holes, hole{s.top + 1, last, now})
		s.top = last
	}
}

// lost reports whether a hole is older than the grace, or there are too many to remember; then it gives up all holes: what comes
// to light by comparing with PostgreSQL from now on includes what the younger ones would have told.
func (s *sequence) lost(grace time.Duration, now time.Time) bool {
	if len(s.holes) == 0 || now.Sub(s.holes[0].since) < grace && len(s.holes) <= maxHoles {
		return false
	}
	s.holes = nil
	return true
}

// skip takes what was given out up to last as if it had arrived: nobody here follows the shard.
func (s *sequence) skip(last uint64) {
	s.top = max(s.top, last)
	s.holes = nil
}
