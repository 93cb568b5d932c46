package events

import "sync"

// outbox numbers what is published and holds it until the sender takes it.
type outbox struct {
	wake  chan struct{}
	limit int

	mu     sync.Mutex
	last   numbers
	batch  batch
	closed bool
}

// numbers are the last that were given out in each shard.
type numbers [Shards]uint64

// list returns those of the shards that have any.
func (n *numbers) list() []lastNumber {
	var list []lastNumber
	for shard, number := range n {
		if number > 0 {
			list = append(list, lastNumber{Shard(shard), number})
		}
	}
	return list
}

// batch is frames, one behind the other.
type batch struct {
	frames []byte
	items  []outgoing
}

type outgoing struct {
	account int64
	end     int // of its frame
}

// put numbers and appends frames for hints, one for each run of the same account. It returns how many it had to drop. Their numbers are used
// up all the same, so that others learn of the loss.
func (o *outbox) put(incarnation uint64, hints []Event) (dropped int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return 0, ErrClosed
	}
	for len(hints) > 0 {
		account, n := hints[0].Account, 1
		for n < len(hints) && n < hintsPerFrame && hints[n].Account == account {
			n++
		}
		shard := ShardOf(account)
		o.last[shard]++
		if len(o.batch.items) < o.limit {
			o.batch.frames = appendHints(o.batch.frames, incarnation, o.last[shard], hints[:n])
			o.batch.items = append(o.batch.items, outgoing{account, len(o.batch.frames)})
		} else {
			dropped, err = dropped+1, ErrOverflow
		}
		hints = hints[n:]
	}
	signal(o.wake)
	return dropped, err
}

// take returns what waits, with the numbers given out until then, and leaves the spare's memory in its place.
func (o *outbox) take(spare batch) (batch, numbers) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.batch
	o.batch = batch{spare.frames[:0], spare.items[:0]}
	return b, o.last
}

func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
}
