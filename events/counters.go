package events

import "sync/atomic"

// Counters are what a node counted since it started.
type Counters struct {
	Published   uint64 // messages handed to the transport
	Unpublished uint64 // messages dropped before the network, or refused by it
	Received    uint64 // messages of hints from other nodes
	Late        uint64 // of them, out of order
	Doubled     uint64 // of them, seen before or given up
	Own         uint64 // messages of one's own that came back and were ignored
	Unknown     uint64 // messages of another version or type, ignored
	Malformed   uint64 // messages that could not be read, ignored
	Lost        uint64 // times that numbers of a peer in a shard stayed missing
	Dropped     uint64 // times that the transport said it dropped messages on the way in
	Overflows   uint64 // hints that found a subscription full
	Suspects    uint64 // shards declared suspect, for whatever reason
	Silences    uint64 // peers that fell silent without goodbye
	Reconnects  uint64 // times that the network was reached after the first
	Peers       int    // other nodes heard now
	Connected   bool   // as in News, now
}

type counters struct {
	published, unpublished, received, late, doubled, own, unknown, malformed,
	lost, dropped, overflows, suspects, silences, reconnects atomic.Uint64
}

func (c *counters) read() Counters {
	return Counters{
		Published: c.published.Load(), Unpublished: c.unpublished.Load(), Received: c.received.Load(), Late: c.late.Load(),
		Doubled: c.doubled.Load(), Own: c.own.Load(), Unknown: c.unknown.Load(), Malformed: c.malformed.Load(), Lost: c.lost.Load(),
		Dropped: c.dropped.Load(), Overflows: c.overflows.Load(), Suspects: c.suspects.Load(), Silences: c.silences.Load(),
		Reconnects: c.reconnects.Load(),
	}
}
