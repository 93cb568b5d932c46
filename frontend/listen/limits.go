package listen

import (
	"net/netip"
	"sync"
)

// LimitsConfig is how many connections there may be at the same time.
type LimitsConfig struct {
	Connections int            // in all; 0: any number
	PerAddress  int            // from one IPv4 address, or one IPv6 network of 64 bits; 0: any number
	Exempt      []netip.Prefix // networks of webmail servers, for which PerAddress does not hold
}

// Limits counts connections. It is safe for use by several goroutines; a nil one
// takes everybody.
type Limits struct {
	cfg LimitsConfig

	mu        sync.Mutex
	all       int
	byAddress map[netip.Addr]int // only of those that there are
}

// NewLimits returns limits for the listeners of a protocol to share.
func NewLimits(cfg LimitsConfig) *Limits {
	return &Limits{cfg: cfg, byAddress: make(map[netip.Addr]int)}
}

// reason says why a connection is turned away.
type reason uint8

const (
	refusedAddress reason = iota
	refusedNode
	refusedProxy
	refusedUnlisted
	admitted
)

// reasons is what figures and logs call them.
var reasons = [admitted]string{refusedAddress: "address", refusedNode: "node", refusedProxy: "proxy", refusedUnlisted: "unlisted"}

// take counts a connection from addr, which counts for no address if it is the
// zero Addr. If there is room for it, release gives its place back.
func (l *Limits) take(addr netip.Addr) (release func(), why reason) {
	if l == nil {
		return func() {}, admitted
	}
	if l.cfg.PerAddress == 0 || within(l.cfg.Exempt, addr) {
		addr = netip.Addr{}
	}
	if addr.Is6() {
		network, _ := addr.Prefix(64) // fails for longer prefixes than there are only
		addr = network.Addr()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cfg.Connections > 0 && l.all >= l.cfg.Connections {
		return nil, refusedNode
	}
	if addr.IsValid() {
		if l.byAddress[addr] >= l.cfg.PerAddress {
			return nil, refusedAddress
		}
		l.byAddress[addr]++
	}
	l.all++
	return func() { l.release(addr) }, admitted
}

// most is how many connections there may be; 0: any number.
func (l *Limits) most() int {
	if l == nil {
		return 0
	}
	return l.cfg.Connections
}

func (l *Limits) release(addr netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if !addr.IsValid() {
		return
	}
	if l.byAddress[addr]--; l.byAddress[addr] == 0 {
		delete(l.byAddress, addr)
	}
}
