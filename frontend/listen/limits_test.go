package listen

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/pires/go-proxyproto"
)

// through is the header of a load balancer for a client.
func through(t *testing.T, client string) []byte {
	t.Helper()
	addr := tcp(client)
	family := proxyproto.TCPv4
	if addr.IP.To4() == nil {
		family = proxyproto.TCPv6
	}
	return v2(t, &proxyproto.Header{Command: proxyproto.PROXY, TransportProtocol: family, SourceAddr: addr, DestinationAddr: addr})
}

// The limit of an address is that of the client's, not of the load balancer's, and a
// connection that ends makes room.
func TestLimitOfAnAddress(t *testing.T) {
	t.Parallel()
	limits := NewLimits(LimitsConfig{PerAddress: 2, Exempt: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}})
	s := newStage(t, Config{ProxyNetworks: loopback, Limits: limits, Refusal: "* BYE [UNAVAILABLE] too many\n"})
	enter := func(from string) *client {
		t.Helper()
		c := s.dial(through(t, from))
		c.want("* OK " + from)
		return c
	}
	refuse := func(from string) {
		t.Helper()
		c := s.dial(through(t, from))
		c.want("* BYE [UNAVAILABLE] too many")
		c.wantEnd()
	}
	first, second := enter("192.0.2.7:1"), enter("192.0.2.7:2")
	refuse("192.0.2.7:3")
	enter("192.0.2.8:4")
	enter("[2001:db8::1]:5")
	enter("[2001:db8::2:0:0:1]:6")
	refuse("[2001:db8::3]:7")
	enter("[2001:db8:0:1::1]:8")
	for range 5 {
		enter("198.51.100.1:9") // exempt
		s.dial([]byte("PROXY UNKNOWN\r\n")).echoAfterGreeting()
	}
	second.echo()
	_ = first.Conn.Close()
	s.figure("starling_listener_connections", `listener="imap"`, 15)
	enter("192.0.2.7:10")
	s.figure("starling_listener_refused_total", `listener="imap",reason="address"`, 2)
	s.figure("starling_listener_refused_total", `listener="imap",reason="node"`, 0)
}

func (c *client) echoAfterGreeting() {
	c.t.Helper()
	c.want("* OK " + c.LocalAddr().String())
	c.echo()
}

// The limit of the node is one for all listeners that share it.
func TestLimitOfTheNode(t *testing.T) {
	t.Parallel()
	limits := NewLimits(LimitsConfig{Connections: 3})
	plain := newStage(t, Config{Limits: limits, Refusal: "* BYE\n"})
	secure := newStage(t, Config{Limits: limits})
	a := plain.dial(nil)
	a.echoAfterGreeting()
	plain.dial(nil).echoAfterGreeting()
	secure.dial(nil).echoAfterGreeting()
	full := plain.dial(nil)
	full.want("* BYE")
	full.wantEnd()
	secure.dial(nil).wantEnd()
	_ = a.Conn.Close()
	plain.figure("starling_listener_connections", `listener="imap"`, 1)
	plain.figure("starling_listener_max_connections", `listener="imap"`, 3)
	secure.dial(nil).echoAfterGreeting()
	plain.figure("starling_listener_refused_total", `listener="imap",reason="node"`, 1)
	secure.figure("starling_listener_refused_total", `listener="imap",reason="node"`, 1)
}

// A flood leaves nothing behind: neither places that are taken nor addresses.
func TestFlood(t *testing.T) {
	t.Parallel()
	limits := NewLimits(LimitsConfig{Connections: 20, PerAddress: 3})
	s := newStage(t, Config{ProxyNetworks: loopback, Limits: limits, Refusal: "* BYE\n"})
	var flood sync.WaitGroup
	for i := range 8 {
		flood.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for range 50 {
				conn, err := net.Dial("tcp", s.l.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				header := []byte("PROXY garbage\r\n")
				if from := random.IntN(20); from < 15 {
					header = through(t, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(from)}), 1).String())
				}
				_, _ = conn.Write(header)
				if random.IntN(3) > 0 {
					_, _ = conn.Read(make([]byte, 10)) // a greeting, BYE, or the end
				}
				_ = conn.Close()
			}
		})
	}
	flood.Wait()
	s.figure("starling_listener_connections", `listener="imap"`, 0)
	if err := s.l.Close(); err != nil {
		t.Fatal(err)
	}
	limits.mu.Lock()
	defer limits.mu.Unlock()
	if limits.all != 0 || len(limits.byAddress) != 0 {
		t.Errorf("%d connections and %d addresses are left", limits.all, len(limits.byAddress))
	}
}
