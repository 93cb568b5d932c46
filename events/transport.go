package events

// Transport carries the frames of a [Node] to those of other nodes, at most once and in any order. Its methods may wait for the network:
// Hint and Beat are called by one goroutine, Join and Leave by another, Close after all others. None keeps a frame after it returned.
type Transport interface {
	// Hint sends a frame to the nodes that joined the account's shard.
	Hint(account int64, frame []byte) error
	// Beat sends a frame to all nodes.
	Beat(frame []byte) error
	// Join begins to receive the shards' frames. It returns when they arrive, as far as this can be known, or with an error after which
	// they will arrive as soon as Inlet.Connected(true) was called.
	Join(shards []Shard) error
	// Leave stops receiving them.
	Leave(shards []Shard) error
	// Close sends what it still holds and stops. Afterwards nothing of the Inlet is called.
	Close() error
}

// Inlet is where a [Transport] hands in what it receives. Its methods do not block; they may be called at the same time.
type Inlet struct{ node *Node }

// Receive takes a frame that another node sent, or this one. It does not keep it.
func (in *Inlet) Receive(frame []byte) { in.node.receiver.receive(frame) }

// Connected says that the network was reached, anew if it was before, or lost.
func (in *Inlet) Connected(up bool) {
	if up {
		in.node.signalBeat()
	}
	in.node.receiver.connected(up)
}

// Missed says that frames of a shard were dropped on the way in.
func (in *Inlet) Missed(shard Shard) { in.node.receiver.missed(shard) }
