package events

import (
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// remember is how long a peer is remembered that said goodbye or fell silent: for hints that come late, and for a route that
	// is mended. As long, a silent one counts as cut off.
	remember = time.Minute
	// maxPeers bounds memory, 8 KB each. Hints of further ones are delivered, and their numbers not watched.
	maxPeers = 4096
	// maxPatience bounds what a peer may ask for.
	maxPatience = time.Hour
)

// receiver takes what arrives, gives it to the subscriptions, and notices what did not arrive.
type receiver struct {
	node *Node

	mu            sync.Mutex
	closed        bool
	subscriptions []*subscription
	peers         map[uint64]*peer
	open          map[*sequence]Shard // those with holes
	missing       int                 // silent peers
	up, wasUp     bool                // the transport is connected, was before
	scratch       hints
}

// add begins to serve a subscription, unless the receiver is closed.
func (r *receiver) add(s *subscription) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	s.setConnected(r.isConnected())
	r.subscriptions = append(r.subscriptions, s)
	return true
}

func (r *receiver) drop(s *subscription) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, other := range r.subscriptions {
		if other == s {
			r.subscriptions = append(r.subscriptions[:i:i], r.subscriptions[i+1:]...)
			return
		}
	}
}

// close returns the subscriptions that there still were.
func (r *receiver) close() []*subscription {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return r.subscriptions
}

// receive takes a frame from the transport.
func (r *receiver) receive(frame []byte) {
	typ, incarnation, err := header(frame)
	if err != nil {
		r.refuse(err)
		return
	}
	if incarnation == r.node.incarnation {
		if typ == typeHints {
			r.node.counters.own.Add(1)
		}
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if typ == typeHints {
		if err = decodeHints(frame, &r.scratch); err == nil {
			r.takeHints(&r.scratch)
		}
	} else {
		var b beat
		if b, err = decodeBeat(frame); err == nil {
			r.takeBeat(b)
		}
	}
	if err != nil {
		r.refuse(err)
	}
}

func (r *receiver) refuse(err error) {
	if errors.Is(err, errVersion) {
		r.node.counters.unknown.Add(1)
	} else {
		r.node.counters.malformed.Add(1)
	}
}

func (r *receiver) takeHints(h *hints) {
	r.node.counters.received.Add(1)
	if p := r.peer(h.incarnation); p != nil {
		shard := ShardOf(h.account)
		s := &p.shards[shard]
		switch s.arrive(h.number, time.Now()) {
		case late:
			r.node.counters.late.Add(1)
		case doubled:
			r.node.counters.doubled.Add(1)
		case inOrder:
		}
		r.noteHoles(s, shard)
	}
	for _, s := range r.subscriptions {
		s.put(h.account, h.events)
	}
}

// peer returns what is known of a peer; of a new one, that nothing arrived yet: what it published before is a hole. It returns nil when there
// are too many.
func (r *receiver) peer(incarnation uint64) *peer {
	p := r.peers[incarnation]
	if p == nil && len(r.peers) < maxPeers {
		p = &peer{heard: time.Now(), patience: r.node.options.Silence}
		r.peers[incarnation] = p
	}
	return p
}

func (r *receiver) noteHoles(s *sequence, shard Shard) {
	if len(s.holes) > 0 {
		r.open[s] = shard
	} else {
		delete(r.open, s)
	}
}

func (r *receiver) takeBeat(b beat) {
	r.node.options.Learn(b.epoch)
	p := r.peer(b.incarnation)
	if p == nil {
		return
	}
	now := time.Now()
	p.heard = now
	p.gone = p.gone || b.goodbye
	if b.patience > 0 && b.patience < uint64(maxPatience/time.Millisecond) {
		p.patience = time.Duration(b.patience) * time.Millisecond
	}
	active := r.node.shards.watched()
	for _, l := range b.last {
		s := &p.shards[l.shard]
		if active.has(l.shard) {
			s.reach(l.number, now)
		} else {
			s.skip(l.number)
		}
		r.noteHoles(s, l.shard)
	}
	if p.silent {
		p.silent = false
		r.missing--
		r.tellConnected()
	}
}

// tick finds the holes that did not close and the peers that are silent.
func (r *receiver) tick(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var suspect shardSet
	for s, shard := range r.open {
		if s.lost(r.node.options.Gap, now) {
			suspect.add(shard)
			delete(r.open, s)
			r.node.counters.lost.Add(1)
		}
	}
	for incarnation, p := range r.peers {
		quiet := now.Sub(p.heard)
		switch {
		case p.gone || p.silent:
			if quiet > max(remember, p.patience) {
				r.forget(incarnation, p)
			}
		case r.up && quiet > p.patience:
			p.silent = true
			r.missing++
			r.node.counters.silences.Add(1)
			r.node.options.Log.Warn("another node fell silent", zap.Uint64("incarnation", incarnation), zap.Duration("for", quiet))
			suspect = everyShard
		}
	}
	r.spread(suspect)
	r.tellConnected()
}

func (r *receiver) forget(incarnation uint64, p *peer) {
	if p.silent {
		r.missing--
	}
	for i := range p.shards {
		delete(r.open, &p.shards[i])
	}
	delete(r.peers, incarnation)
}

// connected notes that the transport came up, anew perhaps, or went down.
func (r *receiver) connected(up bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up = up
	if up {
		if r.wasUp {
			r.node.counters.reconnects.Add(1)
		}
		r.wasUp = true
		for _, p := range r.peers {
			if !p.gone && !p.silent {
				p.heard = time.Now() // it could not be heard
			}
		}
		r.spread(everyShard)
	}
	r.tellConnected()
}

// missed notes that the transport dropped frames of a shard.
func (r *receiver) missed(shard Shard) {
	r.node.counters.dropped.Add(1)
	r.doubt(shard)
}

// doubt makes shards suspect.
func (r *receiver) doubt(shards ...Shard) {
	var suspect shardSet
	for _, shard := range shards {
		suspect.add(shard)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spread(suspect)
}

// spread tells the subscriptions what is suspect.
func (r *receiver) spread(suspect shardSet) {
	if suspect.empty() {
		return
	}
	suspect = suspect.and(r.node.shards.watched())
	r.node.counters.suspects.Add(uint64(suspect.len()))
	for _, s := range r.subscriptions {
		s.doubt(&suspect)
	}
}

func (r *receiver) isConnected() bool { return r.up && r.missing == 0 }

func (r *receiver) tellConnected() {
	for _, s := range r.subscriptions {
		s.setConnected(r.isConnected())
	}
}

// state returns how many other nodes are heard, and whether hints arrive as far as is known.
func (r *receiver) state() (peers int, connected bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.peers {
		if !p.gone && !p.silent {
			peers++
		}
	}
	return peers, r.isConnected()
}
