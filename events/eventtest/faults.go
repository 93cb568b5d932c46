package eventtest

import (
	"slices"
	"sync"

	"starling/events"
)

// Faults is a bad network on the way out of one node: it loses, doubles and holds back. At first it does nothing of that.
type Faults struct {
	mu       sync.Mutex
	drop     int
	double   int
	hold     int
	held     []frame
	released bool
	mute     bool
	blocked  chan struct{} // closed when Hint may go on
}

type frame struct {
	account int64
	bytes   []byte
}

// Drop loses the next n messages of hints.
func (f *Faults) Drop(n int) { f.set(func() { f.drop = n }) }

// Double sends the next n messages of hints twice.
func (f *Faults) Double(n int) { f.set(func() { f.double = n }) }

// Hold keeps back the next n messages of hints until Release.
func (f *Faults) Hold(n int) { f.set(func() { f.hold = n }) }

// Release sends what was held, the last first, behind the next heartbeat.
func (f *Faults) Release() { f.set(func() { f.released = true }) }

// Mute loses all, heartbeats and goodbye included, until it is called with false.
func (f *Faults) Mute(mute bool) { f.set(func() { f.mute = mute }) }

// Block makes the network take nothing until the function it returns is called.
func (f *Faults) Block() (unblock func()) {
	blocked := make(chan struct{})
	f.set(func() { f.blocked = blocked })
	return func() {
		f.set(func() { f.blocked = nil })
		close(blocked)
	}
}

func (f *Faults) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// Wrap puts the faults between a node and its transport.
func (f *Faults) Wrap(t events.Transport) events.Transport { return &faulty{t, f} }

type faulty struct {
	events.Transport
	faults *Faults
}

func (t *faulty) Hint(account int64, bytes []byte) error {
	f := t.faults
	f.mu.Lock()
	blocked := f.blocked
	f.mu.Unlock()
	if blocked != nil {
		<-blocked
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.mute:
		return nil
	case f.drop > 0:
		f.drop--
		return nil
	case f.hold > 0:
		f.hold--
		f.held = append(f.held, frame{account, slices.Clone(bytes)})
		return nil
	case f.double > 0:
		f.double--
		if err := t.Transport.Hint(account, bytes); err != nil {
			return err
		}
	}
	return t.Transport.Hint(account, bytes)
}

func (t *faulty) Beat(bytes []byte) error {
	f := t.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mute {
		return nil
	}
	if err := t.Transport.Beat(bytes); err != nil || !f.released {
		return err
	}
	f.released = false
	for _, held := range slices.Backward(f.held) {
		if err := t.Transport.Hint(held.account, held.bytes); err != nil {
			return err
		}
	}
	f.held = nil
	return nil
}
