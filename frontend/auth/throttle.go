package auth

import (
	"net/netip"
	"sync"
	"time"
)

// throttle spaces the attempts under one key (an account, a remote address)
// once too many of them have failed. An attempt is counted as failed when it
// is let in and taken back when it turns out well, so that attempts made side
// by side gain nothing over attempts made one after another.
//
// It is safe for use by several goroutines.
type throttle struct {
	free int           // failures that cost nothing
	base time.Duration // the first delay; it doubles with each failure
	most time.Duration // the longest delay
	cool time.Duration // after so long without a failure one half of them is forgotten

	mu    sync.Mutex
	table *lru[string, *tally]
}

// A tally is what one key has done lately.
type tally struct {
	failures int
	since    time.Time // of the last failure, or when half of them were last forgotten
	next     time.Time // when the next attempt may be examined
}

// admit lets an attempt in and returns how long it has to wait before it is
// examined. If that would be longer than the longest delay it is refused, and
// not counted: others already wait in its place.
func (t *throttle) admit(key string, now time.Time) (wait time.Duration, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, found := t.table.get(key, now)
	if !found {
		n = &tally{since: now}
	}
	n.forget(t.cool, now)
	start := now
	if n.next.After(now) {
		start = n.next
	}
	if start.Sub(now) > t.most {
		return 0, false
	}
	n.failures++
	n.next = start.Add(t.delay(n.failures))
	t.table.put(key, n, now)
	return start.Sub(now), true
}

// fail says that an attempt that was let in did fail.
func (t *throttle) fail(key string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, found := t.table.get(key, now); found {
		n.since = now
	}
}

// pardon takes back what admit counted for an attempt that did not fail.
func (t *throttle) pardon(key string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, found := t.table.get(key, now)
	if !found || n.failures == 0 {
		return
	}
	n.next = n.next.Add(-t.delay(n.failures))
	if n.failures--; n.failures == 0 {
		t.table.remove(key) // it would push out those that matter
	}
}

// delay is how long the attempt after so many failures has to stay away.
func (t *throttle) delay(failures int) time.Duration {
	d := t.base
	if failures <= t.free {
		return 0
	}
	for range failures - t.free - 1 {
		if d >= t.most {
			break
		}
		d *= 2
	}
	return min(d, t.most)
}

func (n *tally) forget(cool time.Duration, now time.Time) {
	for n.failures > 0 && now.Sub(n.since) >= cool {
		n.failures /= 2
		n.since = n.since.Add(cool)
	}
}

// network is the part of a remote address by which attempts are counted: an
// IPv4 address whole, of an IPv6 address the 64 bits that one site has.
func network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, err := a.Prefix(bits)
	if err != nil { // not an address, such as a unix socket's peer
		return netip.Prefix{}
	}
	return p
}
