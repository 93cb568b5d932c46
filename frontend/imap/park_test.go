package imap

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"starling/metadata"
)

// gathering is a connection that keeps what is written until send.
type gathering struct {
	net.Conn
	mu   sync.Mutex
	held *bytes.Buffer // nil: nothing is kept
}

func (g *gathering) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held != nil {
		return g.held.Write(p)
	}
	return g.Conn.Write(p)
}

// gather keeps what do writes, and returns it.
func (g *gathering) gather(do func()) []byte {
	g.mu.Lock()
	g.held = new(bytes.Buffer)
	g.mu.Unlock()
	do()
	g.mu.Lock()
	defer g.mu.Unlock()
	all := g.held.Bytes()
	g.held = nil
	return all
}

// dialRaw is a connection to a node, with a deadline for all of the test.
func dialRaw(t *testing.T, address string) *gathering {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &gathering{Conn: conn}
}

func wantLine(t *testing.T, in *bufio.Reader, prefix string) {
	t.Helper()
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("want %q: %v", prefix, err)
		}
		if strings.HasPrefix(line, prefix) {
			return
		}
	}
}

// A client whose STARTTLS came together with another command has as long for the
// handshake as any other.
func TestStartTLSBehindAnotherCommand(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, clusterOptions{parks: true})
	conn := dialRaw(t, c.nodes[0].imap)
	in := bufio.NewReader(conn)
	wantLine(t, in, "* OK ")
	if _, err := io.WriteString(conn, "a CAPABILITY\r\nb STARTTLS\r\n"); err != nil {
		t.Fatal(err)
	}
	wantLine(t, in, "b OK ")
	secure := tls.Client(conn, c.roots)
	if err := secure.Handshake(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(secure, "c NOOP\r\n"); err != nil {
		t.Fatal(err)
	}
	wantLine(t, bufio.NewReader(secure), "c OK ")
}

// A parked session hears all that was sent: several commands in one record of TLS,
// several records in one segment, and a record that comes in pieces, of which the
// socket tells before there is anything to read.
func TestParkedUnderTLS(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, clusterOptions{parks: true})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := c.roots.Clone()
		config.MaxVersion = version
		conn := dialRaw(t, c.nodes[0].imaps)
		secure := tls.Client(conn, config)
		in := bufio.NewReader(secure)
		wantLine(t, in, "* OK ")
		write := func(text string) {
			if _, err := io.WriteString(secure, text); err != nil {
				t.Error(err)
			}
		}
		for i := range 20 {
			write(fmt.Sprintf("a%d NOOP\r\nb%d NOOP\r\nc%d CAPABILITY\r\n", i, i, i))
			wantLine(t, in, fmt.Sprintf("c%d OK ", i))
			records := conn.gather(func() {
				write(fmt.Sprintf("d%d NOOP\r\n", i))
				write(fmt.Sprintf("e%d NOOP\r\nf%d NOOP\r\n", i, i))
				write(fmt.Sprintf("g%d NOOP\r\n", i))
			})
			cut := len(records) * i / 20
			for _, piece := range [][]byte{records[:cut], records[cut:]} {
				c.nodes[0].awaitParked(t)
				if _, err := conn.Conn.Write(piece); err != nil {
					t.Fatal(err)
				}
			}
			wantLine(t, in, fmt.Sprintf("g%d OK ", i))
		}
		_ = conn.Close()
	}
}

// A client that renews the keys of TLS after it was silent for longer than a write may
// take keeps its connection: the server's part of that is written while it reads.
func TestKeysRenewedAfterSilence(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed; crypto/tls renews no keys by itself")
	}
	const silence = 500 * time.Millisecond
	c := newCluster(t, 1, clusterOptions{parks: true}, func(config *Config) { config.WriteTimeout = silence })
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, openssl, "s_client", "-connect", c.nodes[0].imaps, "-tls1_3", "-crlf")
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	keys, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // it is killed, or what it said is missing
		_ = in.Close()
	}()
	lines := bufio.NewReader(out)
	wantLine(t, lines, "* OK ")
	time.Sleep(2 * silence) // what the test is about
	for _, step := range []struct{ say, want string }{{"K\n", "KEYUPDATE"}, {"a NOOP\n", "a OK "}, {"b NOOP\n", "b OK "}} {
		if _, err := io.WriteString(keys, step.say); err != nil {
			t.Fatal(err)
		}
		wantLine(t, lines, step.want)
	}
	stop()
	_, _ = io.Copy(io.Discard, lines)
}

// awaitParked waits until all sessions of the node are parked and have read what was sent, or
// there are none.
func (n *clusterNode) awaitParked(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		n.server.mu.Lock()
		waiting := true
		for s := range n.server.sessions {
			more := false
			_ = s.raw.Control(func(fd uintptr) { more = readable(fd) }) // fails on a closed one only
			waiting = waiting && n.server.lot.has(s) && !more
		}
		n.server.mu.Unlock()
		if waiting {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("a session is not parked")
		}
		time.Sleep(time.Millisecond) // being parked gives no sign
	}
}

func (l *lot) has(s *session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.space.queued > 0
}

// A parked session is woken by what its client sends, by news, when its time is over, and by the
// end of the server, and parked again after each but the last, in whatever order they come.
func TestParked(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("no session is parked on " + runtime.GOOS)
	}
	c := newCluster(t, 1, clusterOptions{parks: true}, func(config *Config) { config.KeepAlive = 100 * time.Millisecond })
	node := c.nodes[0]
	user := c.account(t, "parked@example.org", metadata.Quota{}).Name
	writer := node.dial(t).login(user)
	idlers := make([]*client, 5)
	for i := range idlers {
		idlers[i] = node.dial(t).login(user)
		idlers[i].send("s SELECT INBOX\r\ni IDLE")
		idlers[i].until("+ ")
	}
	for n := range 5 {
		node.awaitParked(t)
		writer.send("a APPEND INBOX {5+}\r\nhello")
		writer.until("a OK ")
		for i, idler := range idlers {
			idler.until(fmt.Sprintf("* %d EXISTS", n+1))
			switch i {
			case 0: // only hears news
			case n:
				node.awaitParked(t)
				idler.send("DONE\r\nb NOOP\r\ni IDLE")
				idler.until("i OK ")
				idler.until("b OK ")
				idler.until("+ ")
			default:
				idler.until("* OK Still here")
			}
		}
	}
	node.awaitParked(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := node.server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	for _, idler := range idlers {
		idler.until("* BYE [UNAVAILABLE] ")
		idler.until("")
	}
}

// Parked sessions are cut off when a shutdown may not take longer.
func TestParkedAreCut(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("no session is parked on " + runtime.GOOS)
	}
	c := newCluster(t, 1, clusterOptions{parks: true})
	node := c.nodes[0]
	user := c.account(t, "cut@example.org", metadata.Quota{}).Name
	idlers := make([]*client, 10) // some may be told before
	for i := range idlers {
		idlers[i] = node.dial(t).login(user)
		idlers[i].send("i IDLE")
		idlers[i].until("+ ")
	}
	node.awaitParked(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := node.server.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	for _, idler := range idlers {
		idler.until("")
	}
}

// Of many sessions on a node that hear of the same messages one claims them as recent.
func TestOneClaimsForAll(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, clusterOptions{})
	user := c.account(t, "claims@example.org", metadata.Quota{}).Name
	writer := c.nodes[1].dial(t).login(user)
	idlers := make([]*client, 10)
	for i := range idlers {
		idlers[i] = c.nodes[0].dial(t).login(user)
		idlers[i].send("s SELECT INBOX\r\ni IDLE")
		idlers[i].until("+ ")
	}
	const messages = 10
	before := c.db.Stats().RoundTrips
	for n := range messages {
		writer.send("a APPEND INBOX {5+}\r\nhello")
		writer.until("a OK ")
		for _, idler := range idlers {
			idler.until(fmt.Sprintf("* %d EXISTS", n+1))
			idler.until(fmt.Sprintf("* %d RECENT", n+1))
		}
	}
	if trips := c.db.Stats().RoundTrips - before; trips > 3*messages { // a read and a claim, and some to spare
		t.Errorf("%d round trips for %d messages", trips, messages)
	}
}
