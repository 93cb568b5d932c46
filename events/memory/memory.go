// Package memory is a bus inside one process, for tests and for a cluster of nodes that live in one program.
//
// A [Hub] stands for the network; each [Hub.Open] is a node of its own, as if it were a process.
package memory

import (
	"slices"
	"sync"

	"starling/events"
)

// Hub connects nodes. The zero value is ready.
type Hub struct {
	mu    sync.RWMutex
	links []*link
}

// Open starts a node on the hub. Hints arrive at other nodes moments after Publish returned, in the order published.
func (h *Hub) Open(o events.Options) (*events.Node, error) {
	return events.Start(o, h.Dial)
}

// Dial is the hub's transport, for [events.Start].
func (h *Hub) Dial(in *events.Inlet) (events.Transport, error) {
	l := &link{hub: h, in: in}
	h.mu.Lock()
	h.links = append(h.links, l)
	h.mu.Unlock()
	in.Connected(true)
	return l, nil
}

// link is a node's connection to the hub.
type link struct {
	hub *Hub
	in  *events.Inlet

	joined [events.Shards]bool // guarded by hub.mu
}

func (l *link) Hint(account int64, frame []byte) error {
	shard := events.ShardOf(account)
	l.hub.mu.RLock()
	defer l.hub.mu.RUnlock()
	for _, other := range l.hub.links {
		if other.joined[shard] {
			other.in.Receive(frame)
		}
	}
	return nil
}

func (l *link) Beat(frame []byte) error {
	l.hub.mu.RLock()
	defer l.hub.mu.RUnlock()
	for _, other := range l.hub.links {
		other.in.Receive(frame)
	}
	return nil
}

func (l *link) Join(shards []events.Shard) error  { return l.set(shards, true) }
func (l *link) Leave(shards []events.Shard) error { return l.set(shards, false) }

func (l *link) set(shards []events.Shard, joined bool) error {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	for _, shard := range shards {
		l.joined[shard] = joined
	}
	return nil
}

func (l *link) Close() error {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	l.hub.links = slices.DeleteFunc(l.hub.links, func(other *link) bool { return other == l })
	return nil
}
