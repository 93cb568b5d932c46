package cache

import (
	"slices"

	"github.com/maypok86/otter/v2"
)

const (
	// share is the part of memory that the blocks of one object may take, so that no large mail pushes out the others.
	share = 8
	// maxBlocks is how many blocks that may be at most.
	maxBlocks = 64
	// entryCost is what an object takes beside its bytes, about.
	entryCost = 320
)

// memory keeps blocks in memory, by object. Its methods may be called on nil, which keeps nothing.
type memory struct {
	objects   *otter.Cache[objectID, []block] // what is in it is never changed
	perObject int
}

func newMemory(size int64, m *metrics) *memory {
	c := &memory{perObject: int(max(1, min(maxBlocks, size/(share*BlockSize))))}
	c.objects = otter.Must(&otter.Options[objectID, []block]{
		MaximumWeight: uint64(size),
		Weigher:       weigh,
		// Evicting takes microseconds, and needs no goroutine.
		Executor: func(fn func()) { fn() },
		OnAtomicDeletion: func(e otter.DeletionEvent[objectID, []block]) {
			if e.WasEvicted() {
				m.memoryEvictions.Inc()
			}
		},
	})
	return c
}

func weigh(_ objectID, blocks []block) uint32 {
	weight := entryCost
	for _, b := range blocks {
		weight += len(b.data)
	}
	return uint32(weight) //nolint:gosec // at most maxBlocks blocks
}

// fill sets the blocks from first that are nil, and says whether none is nil any more.
func (c *memory) fill(id objectID, first int, blocks [][]byte) bool {
	if c == nil {
		return !slices.ContainsFunc(blocks, func(data []byte) bool { return data == nil })
	}
	kept, _ := c.objects.GetIfPresent(id)
	full := true
	for i := range blocks {
		if blocks[i] != nil {
			continue
		}
		at := slices.IndexFunc(kept, func(b block) bool { return b.index == first+i })
		if at < 0 {
			full = false
			continue
		}
		blocks[i] = kept[at].data
	}
	return full
}

// add keeps blocks of an object. Those that came first go first where they are too many.
func (c *memory) add(id objectID, blocks []block) {
	if c == nil || len(blocks) == 0 {
		return
	}
	c.objects.Compute(id, func(old []block, _ bool) ([]block, otter.ComputeOp) {
		all := make([]block, 0, len(old)+len(blocks))
		for _, b := range old {
			if !slices.ContainsFunc(blocks, func(n block) bool { return n.index == b.index }) {
				all = append(all, b)
			}
		}
		all = append(all, blocks...)
		return slices.Clone(all[max(0, len(all)-c.perObject):]), otter.WriteOp
	})
}

// drop forgets an object.
func (c *memory) drop(id objectID) {
	if c != nil {
		c.objects.Invalidate(id)
	}
}

// bytes is how much is kept, about.
func (c *memory) bytes() float64 {
	if c == nil {
		return 0
	}
	return float64(c.objects.WeightedSize())
}
