package events

import (
	"context"
	"sync"
)

// subscription is an inbox: bounded, so that the bus never waits for the one who reads it.
type subscription struct {
	node  *Node
	limit int
	wake  chan struct{} // one token: there may be news
	stop  func() bool   // takes back the watch on the subscriber's context

	mu       sync.Mutex
	follows  map[int64]int // account → calls of Follow
	followed [Shards]int   // accounts followed in each shard
	events   []Event
	index    map[subject]int // into events
	suspect  shardSet
	up, told bool // connected, as it is and as Next last said
	closed   bool
}

// subject is what an event is about.
type subject struct {
	account, mailbox int64
	kind             Kind
}

func newSubscription(n *Node) *subscription {
	return &subscription{
		node: n, limit: n.options.Pending, wake: make(chan struct{}, 1),
		follows: make(map[int64]int), index: make(map[subject]int), up: true, told: true,
	}
}

func (s *subscription) Follow(account int64) {
	shard := ShardOf(account)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.follows[account]++
	if s.follows[account] > 1 {
		return
	}
	s.followed[shard]++
	if s.followed[shard] == 1 {
		s.node.shards.want(shard)
	}
}

func (s *subscription) Unfollow(account int64) {
	shard := ShardOf(account)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.follows[account] {
	case 0:
		return
	case 1:
		delete(s.follows, account)
	default:
		s.follows[account]--
		return
	}
	s.followed[shard]--
	if s.followed[shard] == 0 {
		s.node.shards.unwant(shard)
	}
}

func (s *subscription) Next(ctx context.Context) (News, error) {
	for {
		if err := ctx.Err(); err != nil {
			return News{}, err
		}
		news, ok, err := s.take()
		if ok || err != nil {
			return news, err
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
		}
	}
}

// take empties the inbox.
func (s *subscription) take() (News, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return News{}, false, ErrClosed
	}
	if len(s.events) == 0 && s.suspect.empty() && s.up == s.told {
		return News{}, false, nil
	}
	news := News{Events: s.events, Suspect: s.suspect.list(), Connected: s.up}
	s.events, s.suspect, s.told = nil, shardSet{}, s.up
	if len(s.index) > 1024 {
		s.index = make(map[subject]int) // a map does not shrink
	} else {
		clear(s.index)
	}
	return news, true, nil
}

func (s *subscription) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	for shard, n := range s.followed {
		if n > 0 {
			s.node.shards.unwant(Shard(shard))
		}
	}
	s.follows, s.index, s.events = nil, nil, nil
	stop := s.stop
	s.mu.Unlock()
	s.ring()
	if stop != nil {
		stop()
	}
	s.node.receiver.drop(s)
	return nil
}

// put adds hints of one account, if it is followed.
func (s *subscription) put(account int64, hints []Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.follows[account] == 0 {
		return
	}
	for _, e := range hints {
		key := subject{e.Account, e.Mailbox, e.Kind}
		i, found := s.index[key]
		switch {
		case found:
			s.events[i] = e.merged(s.events[i])
		case len(s.events) >= s.limit:
			s.node.counters.overflows.Add(1)
			s.suspect.add(ShardOf(account))
		default:
			s.index[key] = len(s.events)
			s.events = append(s.events, e)
		}
	}
	s.ring()
}

// doubt makes those of the shards suspect in which something is followed.
func (s *subscription) doubt(shards *shardSet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for shard, n := range s.followed {
		if n > 0 && shards.has(Shard(shard)) {
			s.suspect.add(Shard(shard))
		}
	}
	if !s.suspect.empty() {
		s.ring()
	}
}

func (s *subscription) setConnected(up bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up = up
	if s.up != s.told {
		s.ring()
	}
}

func (s *subscription) ring() { signal(s.wake) }
