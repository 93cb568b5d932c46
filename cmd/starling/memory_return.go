package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// When memory goes back to the system: after a burst, once it is over. Go itself keeps what a burst
// took as long as it is within the heap's next goal, and an idle node is then as large as a busy one.
const (
	returnInterval = 10 * time.Second
	returnQuiet    = 10 << 20 // allocated in an interval at most: nobody waits for the processor
	returnBurst    = 32 << 20 // allocated since the last time at least, and as much as is held
)

// memoryReturn decides when.
type memoryReturn struct {
	before   uint64 // allocated until the last look
	returned uint64 // allocated until memory was given back
}

// due reports whether to give memory back now. allocated is since the beginning of the process.
func (m *memoryReturn) due(allocated, held uint64) bool {
	quiet := allocated-m.before <= returnQuiet
	m.before = allocated
	if !quiet || allocated-m.returned < max(returnBurst, held) {
		return false
	}
	m.returned = allocated
	return true
}

// returnMemory does so until ctx is done.
func returnMemory(ctx context.Context) {
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	var m memoryReturn
	ticker := time.NewTicker(returnInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		metrics.Read(samples)
		if m.due(samples[0].Value.Uint64(), samples[1].Value.Uint64()) {
			debug.FreeOSMemory()
		}
	}
}
