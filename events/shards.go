package events

import (
	"math/bits"
	"sync"
)

// shards counts who wants which shard, and knows which are joined.
type shards struct {
	wake chan struct{}

	mu     sync.Mutex
	wanted [Shards]int // subscriptions that follow something there
	joined shardSet    // or being joined
	idle   shardSet    // joined, and not wanted at the last look
	// active has the shards whose numbers are watched: from the moment they are wanted, so that what comes before they are joined is a hole.
	active shardSet
}

func (s *shards) want(shard Shard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted[shard]++
	s.active.add(shard)
	if !s.joined.has(shard) {
		signal(s.wake)
	}
}

func (s *shards) unwant(shard Shard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted[shard]--
}

// toJoin returns what is wanted and not joined, and takes it as joined.
func (s *shards) toJoin() []Shard {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Shard
	for i, n := range s.wanted {
		if shard := Shard(i); n > 0 && !s.joined.has(shard) {
			s.joined.add(shard)
			list = append(list, shard)
		}
	}
	return list
}

// toLeave returns what was not wanted at this look and the one before.
func (s *shards) toLeave() []Shard {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Shard
	var idle shardSet
	for i, n := range s.wanted {
		shard := Shard(i)
		switch {
		case n > 0 || !s.joined.has(shard):
		case s.idle.has(shard):
			s.joined.remove(shard)
			s.active.remove(shard)
			list = append(list, shard)
		default:
			idle.add(shard)
		}
	}
	s.idle = idle
	return list
}

// watched returns the active shards.
func (s *shards) watched() shardSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active
}

// shardSet is a set of shards.
type shardSet [Shards / 64]uint64

var everyShard = shardSet{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}

func (s *shardSet) add(shard Shard)      { s[shard/64] |= 1 << (shard % 64) }
func (s *shardSet) remove(shard Shard)   { s[shard/64] &^= 1 << (shard % 64) }
func (s *shardSet) has(shard Shard) bool { return s[shard/64]&(1<<(shard%64)) != 0 }
func (s *shardSet) empty() bool          { return *s == shardSet{} }

func (s *shardSet) and(other shardSet) shardSet {
	for i, word := range s {
		other[i] &= word
	}
	return other
}

func (s *shardSet) len() int {
	n := 0
	for _, word := range s {
		n += bits.OnesCount64(word)
	}
	return n
}

func (s *shardSet) list() []Shard {
	var list []Shard
	for i, word := range s {
		for ; word != 0; word &= word - 1 {
			list = append(list, Shard(i*64+bits.TrailingZeros64(word)))
		}
	}
	return list
}
