package listen

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// loopback is where the tests' clients and load balancers are.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// stage is a listener under test, with a server that says to each client from where
// it comes, and then what it says.
type stage struct {
	t    *testing.T
	l    *Listener
	reg  *prometheus.Registry
	logs *observer.ObservedLogs
}

func newStage(t *testing.T, cfg Config) *stage {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, reg: prometheus.NewRegistry()}
	core, logs := observer.New(zapcore.DebugLevel)
	s.logs = logs
	cfg.Name, cfg.Metrics, cfg.Log = "imap", s.reg, zap.New(core)
	s.l = New(inner, cfg)
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := s.l.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				return
			}
			served.Go(func() {
				defer conn.Close()
				fmt.Fprintf(conn, "* OK %s\n", conn.RemoteAddr())
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		if err := s.l.Close(); err != nil {
			t.Error(err)
		}
		served.Wait()
	})
	return s
}

// client is a connection to a stage.
type client struct {
	net.Conn
	t  *testing.T
	in *bufio.Reader
}

func (s *stage) dial(first []byte) *client {
	s.t.Helper()
	return s.to(s.l.Addr().String(), first)
}

func (s *stage) to(address string, first []byte) *client {
	s.t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		s.t.Fatal(err)
	}
	if _, err := conn.Write(first); err != nil {
		s.t.Fatal(err)
	}
	return &client{conn, s.t, bufio.NewReader(conn)}
}

func (c *client) want(line string) {
	c.t.Helper()
	if got, err := c.in.ReadString('\n'); err != nil || got != line+"\n" {
		c.t.Fatalf("got %q, %v, want %q", got, err, line)
	}
}

// wantEnd wants the connection to be closed by the server, with nothing more said.
func (c *client) wantEnd() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.in); len(rest) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		c.t.Errorf("got %q, %v, want the end", rest, err)
	}
}

// echo shows that the connection is served.
func (c *client) echo() {
	c.t.Helper()
	if _, err := c.Write([]byte("noop\n")); err != nil {
		c.t.Fatal(err)
	}
	c.want("noop")
}

func (s *stage) figure(name, labels string, want float64) {
	s.t.Helper()
	text := fmt.Sprintf("%s{%s} %v\n", name, labels, want)
	deadline := time.Now().Add(30 * time.Second)
	for {
		all := gathered(s.t, s.reg)
		if bytes.Contains(all, []byte(text)) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("want %sin\n%s", text, all)
		}
		time.Sleep(time.Millisecond) // a figure gives no sign
	}
}

func gathered(t *testing.T, reg *prometheus.Registry) []byte {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	for _, family := range families {
		for _, m := range family.Metric {
			var labels []byte
			for i, pair := range m.Label {
				if i > 0 {
					labels = append(labels, ',')
				}
				labels = fmt.Appendf(labels, "%s=%q", pair.GetName(), pair.GetValue())
			}
			fmt.Fprintf(&all, "%s{%s} %v\n", family.GetName(), labels, m.GetGauge().GetValue()+m.GetCounter().GetValue())
		}
	}
	return all.Bytes()
}

func v2(t *testing.T, h *proxyproto.Header) []byte {
	t.Helper()
	h.Version = 2
	text, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func tcp(addr string) *net.TCPAddr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr)) }

// A trusted load balancer's header says who the client is; what comes behind it is
// the client's.
func TestProxyHeaders(t *testing.T) {
	t.Parallel()
	s := newStage(t, Config{ProxyNetworks: loopback})
	six := &proxyproto.Header{
		Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv6,
		SourceAddr: tcp("[2001:db8::7]:4000"), DestinationAddr: tcp("[2001:db8::1]:143"),
	}
	if err := six.SetTLVs([]proxyproto.TLV{{Type: proxyproto.PP2_TYPE_NOOP, Value: make([]byte, 1000)}}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		header []byte
		remote string // "": the load balancer's own
	}{
		"v1 TCP4":                         {[]byte("PROXY TCP4 192.0.2.7 192.0.2.1 4000 143\r\n"), "192.0.2.7:4000"},
		"v1 TCP6":                         {[]byte("PROXY TCP6 2001:db8::7 2001:db8::1 4000 143\r\n"), "[2001:db8::7]:4000"},
		"v1 UNKNOWN":                      {[]byte("PROXY UNKNOWN\r\n"), ""},
		"v1 UNKNOWN with what is ignored": {[]byte("PROXY UNKNOWN 192.0.2.7 192.0.2.1 4000 143\r\n"), ""},
		"v2 TCP4": {v2(t, &proxyproto.Header{
			Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv4,
			SourceAddr: tcp("192.0.2.7:4000"), DestinationAddr: tcp("192.0.2.1:143"),
		}), "192.0.2.7:4000"},
		"v2 TCP6 with TLVs": {v2(t, six), "[2001:db8::7]:4000"},
		"v2 LOCAL":          {v2(t, &proxyproto.Header{Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}), ""},
		"v2 LOCAL with addresses": {v2(t, &proxyproto.Header{
			Command: proxyproto.LOCAL, TransportProtocol: proxyproto.TCPv4,
			SourceAddr: tcp("192.0.2.7:4000"), DestinationAddr: tcp("192.0.2.1:143"),
		}), ""},
		"v2 of a client on a Unix socket": {v2(t, &proxyproto.Header{
			Command: proxyproto.PROXY, TransportProtocol: proxyproto.UnixStream,
			SourceAddr: &net.UnixAddr{Net: "unix", Name: "/a"}, DestinationAddr: &net.UnixAddr{Net: "unix", Name: "/b"},
		}), ""},
	} {
		for _, early := range []string{"", "a noop\n"} {
			client := s.dial(append(c.header, early...))
			want := c.remote
			if want == "" {
				want = client.LocalAddr().String()
			}
			client.want("* OK " + want)
			if early != "" {
				client.want("a noop")
			}
			client.echo()
			if t.Failed() {
				t.Fatal(name)
			}
		}
	}
}

// What is no header is not served, and nothing is said about why.
func TestBadProxyHeaders(t *testing.T) {
	t.Parallel()
	s := newStage(t, Config{ProxyNetworks: loopback})
	huge := append([]byte(nil), proxyproto.SIGV2...)
	huge = append(huge, 0x21, 0x11, 0xff, 0xff)
	headers := [][]byte{
		[]byte("a login x y\r\n"),
		[]byte("PROXY TCP4 192.0.2.7 192.0.2.1 4000\r\n"),
		[]byte("PROXY TCP4 2001:db8::7 192.0.2.1 4000 143\r\n"),
		[]byte("PROXY TCP4 192.0.2.7 192.0.2.1 4000 99999\r\n"),
		[]byte("PROXY UDP4 192.0.2.7 192.0.2.1 4000 143\r\n"),
		bytes.Repeat([]byte("PROXY "), 100),
		huge,
		append(append([]byte(nil), proxyproto.SIGV2...), 0x21, 0x13, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12),
		[]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
	}
	for _, header := range headers {
		s.dial(header).wantEnd()
	}
	gone := s.dial([]byte("PROXY TCP4"))
	_ = gone.Conn.Close()
	s.figure("starling_listener_refused_total", `listener="imap",reason="proxy"`, float64(len(headers)+1))
	s.figure("starling_listener_accepted_total", `listener="imap"`, 0)
	s.figure("starling_listener_connections", `listener="imap"`, 0)
	if lines := s.logs.FilterMessage("no header of the PROXY protocol").Len(); lines != 1 {
		t.Errorf("%d lines in the log", lines)
	}
}

// Who connects and goes again, to see whether somebody listens, is no trouble to tell of.
func TestConnectAndLeave(t *testing.T) {
	t.Parallel()
	s := newStage(t, Config{ProxyNetworks: loopback})
	_ = s.dial(nil).Conn.Close()
	for deadline := time.Now().Add(30 * time.Second); s.logs.Len() == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond) // a log gives no sign
	}
	if n := s.logs.FilterMessage("connection without a word").Len(); n != 1 {
		t.Errorf("the log has %v", s.logs.All())
	}
	s.figure("starling_listener_refused_total", `listener="imap",reason="proxy"`, 0)
}

// From anywhere else a header ends the connection, which is counted and told of; the first
// bytes of anything else are what they are.
func TestHeadersOfStrangers(t *testing.T) {
	t.Parallel()
	s := newStage(t, Config{ProxyNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::/0")}})
	other := s.dial(nil)
	other.want("* OK " + other.LocalAddr().String())
	for _, line := range []string{"PROX", "PROXYTCP4 is no header", "PROXY is none behind something else"} {
		if _, err := fmt.Fprintln(other, line); err != nil {
			t.Fatal(err)
		}
		other.want(line)
	}
	for _, header := range [][]byte{[]byte("PROXY TCP4 192.0.2.7 192.0.2.1 4000 143\r\n"), through(t, "192.0.2.7:4000")} {
		c := s.dial(header)
		c.want("* OK " + c.LocalAddr().String())
		c.wantEnd()
	}
	s.figure("starling_listener_refused_total", `listener="imap",reason="unlisted"`, 2)
	if lines := s.logs.FilterMessage("header of the PROXY protocol from an address that is not listed").Len(); lines != 1 {
		t.Errorf("%d lines in the log", lines)
	}
}

// Load balancers that say nothing, or very slowly, hold up nobody, and are cut off.
func TestSilentProxies(t *testing.T) {
	t.Parallel()
	s := newStage(t, Config{ProxyNetworks: loopback, HeaderTimeout: 200 * time.Millisecond})
	var silent []*client
	for i := range 50 {
		silent = append(silent, s.dial(proxyproto.SIGV2[:i%12]))
	}
	s.dial([]byte("PROXY TCP4 192.0.2.7 192.0.2.1 4000 143\r\n")).want("* OK 192.0.2.7:4000")
	for _, c := range silent {
		c.wantEnd()
	}
	s.figure("starling_listener_refused_total", `listener="imap",reason="proxy"`, 50)
}

// A header in pieces has the time for all of it, not for each piece: the clock runs
// from the first to the last.
func TestDrippingHeader(t *testing.T) {
	t.Parallel()
	s := newStage(t, Config{ProxyNetworks: loopback, HeaderTimeout: 100 * time.Millisecond})
	header := v2(t, &proxyproto.Header{
		Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv4,
		SourceAddr: tcp("192.0.2.7:4000"), DestinationAddr: tcp("192.0.2.1:143"),
	})
	c := s.dial(nil)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, c.Conn)
	}()
	for i := 0; ; i++ {
		select {
		case <-ended:
			s.figure("starling_listener_refused_total", `listener="imap",reason="proxy"`, 1)
			return
		case <-time.After(20 * time.Millisecond): // a drop, five to the time of a header
			_, _ = c.Write(header[i%len(header) : i%len(header)+1])
		}
		if i == 10*len(header) {
			t.Fatal("it was listened to for all of its drops")
		}
	}
}

// Close ends what waits, in whatever state, and what is served goes on.
func TestClose(t *testing.T) {
	t.Parallel()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, l: New(inner, Config{Name: "imap", ProxyNetworks: loopback, Log: zap.NewNop()})}
	served := s.dial([]byte("PROXY UNKNOWN\r\n"))
	conn, err := s.l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if socket, ok := conn.(interface{ NetConn() net.Conn }); !ok {
		t.Error("a server cannot reach the socket, to wait for it without a buffer")
	} else if _, ok := socket.NetConn().(syscall.Conn); !ok {
		t.Errorf("the socket is a %T", socket.NetConn())
	}
	silent, waiting := s.dial(nil), s.dial([]byte("PROXY UNKNOWN\r\n"))
	if err := s.l.Close(); err != nil {
		t.Fatal(err)
	}
	silent.wantEnd()
	waiting.wantEnd()
	if _, err := s.l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
	if _, err := conn.Write([]byte("* OK still\n")); err != nil {
		t.Error(err)
	}
	served.want("* OK still")
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if err := s.l.Close(); err != nil {
		t.Errorf("a second close: %v", err)
	}
	never := New(inner, Config{Name: "imap", Log: zap.NewNop()})
	if err := never.Close(); err != nil {
		t.Error(err)
	}
	if _, err := never.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
}

// failing is a listener that cannot accept for a while, and then never again.
type failing struct {
	net.Listener
	errs []error
}

func (f *failing) Accept() (net.Conn, error) {
	err := f.errs[0]
	f.errs = f.errs[1:]
	if err == nil {
		return f.Listener.Accept()
	}
	return nil, &net.OpError{Op: "accept", Err: err}
}

// What passes is waited for; what does not is told.
func TestAcceptErrors(t *testing.T) {
	t.Parallel()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, l: New(&failing{inner, []error{syscall.EMFILE, syscall.ECONNABORTED, nil, syscall.ENFILE, syscall.EBADF}}, Config{Name: "imap", Log: zap.NewNop()})}
	s.dial(nil)
	conn, err := s.l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	for range 2 {
		if _, err := s.l.Accept(); !errors.Is(err, syscall.EBADF) {
			t.Errorf("accept: %v", err)
		}
	}
	if err := s.l.Close(); err != nil {
		t.Error(err)
	}
}

// The figures are there from the start, for all listeners of a node.
func TestFigures(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	for _, name := range []string{"imap", "imaps", "lmtp", "imap"} {
		inner, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l := New(inner, Config{Name: name, Metrics: reg, Log: zap.NewNop()})
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	newTLSMetrics(reg)
	if n := testutil.CollectAndCount(newMetrics(reg).refused); n != 12 {
		t.Errorf("%d series of refusals", n)
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

func FuzzReadHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.7 192.0.2.1 4000 143\r\nearly"))
	f.Add([]byte("PROXY TCP6 2001:db8::7 2001:db8::1 4000 143\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add(append(append([]byte(nil), proxyproto.SIGV2...), 0x21, 0x11, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 'x'))
	f.Add(append(append([]byte(nil), proxyproto.SIGV2...), 0x20, 0, 0, 0))
	f.Add(append(append(append([]byte(nil), proxyproto.SIGV2...), 0x20, 0x31, 0, 0x30), bytes.Repeat([]byte("more than is read at once "), 30)...))
	f.Fuzz(func(t *testing.T, input []byte) {
		r := bytes.NewReader(input)
		source, early, err := readHeader(r)
		if err != nil {
			return
		}
		if behind := append(early, input[len(input)-r.Len():]...); !bytes.HasSuffix(input, behind) {
			t.Errorf("%q did not come behind the header in %q", behind, input)
		}
		if source != nil && !address(source).IsValid() {
			t.Errorf("no address: %v", source)
		}
	})
}

// BenchmarkAccept is the cost of a connection that goes through a load balancer.
func BenchmarkAccept(b *testing.B) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	l := New(inner, Config{Name: "imap", ProxyNetworks: loopback, Limits: NewLimits(LimitsConfig{Connections: 10, PerAddress: 10}), Log: zap.NewNop()})
	defer l.Close()
	var dialer net.Dialer
	for b.Loop() {
		c, err := dialer.DialContext(context.Background(), "tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.Write([]byte("PROXY TCP4 192.0.2.7 192.0.2.1 4000 143\r\n")); err != nil {
			b.Fatal(err)
		}
		conn, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		conn.Close()
		c.Close()
	}
}
