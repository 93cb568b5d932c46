package main_test

import (
	"bufio"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

var (
	floodConns = flag.Int("flood.conns", 600, "connections of TestFloods, for each kind of flood")
	floodLimit = flag.Int64("flood.limit", 128, "MiB that the node may have")
)

// floodPerAddress is how many connections an address may have in TestFloods.
const floodPerAddress = 50

// flood is connections to one node that mean no good.
type flood struct {
	t      *testing.T
	n      *server
	floods int // so far

	mu    sync.Mutex
	conns []net.Conn
}

// dial connects from an address of this machine.
func (f *flood) dial(to, from string) (net.Conn, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.Dial("tcp", to)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns = append(f.conns, conn)
	return conn, conn.SetDeadline(time.Now().Add(overloadPatience))
}

// each does something with so many connections at the same moment, which come from many
// addresses, or from the one that is given. It counts what do returns.
func (f *flood) each(to, from string, do func(i int, conn net.Conn) (string, error)) map[string]int {
	f.t.Helper()
	f.floods++ // each has its addresses, since those before keep theirs
	counts := make(map[string]int)
	var mu sync.Mutex
	var running sync.WaitGroup
	begin := make(chan struct{})
	for i := range *floodConns {
		running.Go(func() {
			<-begin
			address := from
			if address == "" {
				many := i / (floodPerAddress / 2)
				address = fmt.Sprintf("127.%d.%d.%d", f.floods, many/250, many%250+1)
			}
			conn, err := f.dial(to, address)
			what := ""
			if err == nil {
				what, err = do(i, conn)
			}
			if err != nil {
				f.t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			counts[what]++
		})
	}
	close(begin)
	running.Wait()
	return counts
}

// leave ends the connections that there are so far.
func (f *flood) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, conn := range f.conns {
		_ = conn.Close() // it is at its end either way
	}
	f.conns = nil
}

// hear reads a line and returns its first words.
func hear(conn io.Reader, words int) (string, error) {
	line, err := bufio.NewReader(conn).ReadString('\n')
	parts := strings.Fields(line)
	return strings.Join(parts[:min(words, len(parts))], " "), err
}

// others comes and goes while do runs: somebody who logs in anew, under TLS, and asks for something.
func (f *flood) others(name string, do func()) {
	f.t.Helper()
	stop := make(chan struct{})
	var served atomic.Int64
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := tls.Dial("tcp", f.n.imaps, &tls.Config{InsecureSkipVerify: true})
			if strings.HasSuffix(fmt.Sprint(err), "tls: internal error") { // no turn in time
				continue
			}
			if err != nil {
				f.t.Errorf("somebody else: %v", err)
				return
			}
			_, err = fmt.Fprintf(conn, "a login %s %q\r\nb select INBOX\r\nc logout\r\n", name, testPassword)
			var said []byte
			if err == nil {
				said, err = io.ReadAll(conn)
			}
			_ = conn.Close() // it is at its end
			switch text := string(said); {
			case err == nil && strings.Contains(text, "\nb OK"):
				served.Add(1)
			case err != nil || !strings.Contains(text, "NO [UNAVAILABLE]"): // which is for now
				f.t.Errorf("somebody else: %q, %v", said, err)
				return
			}
			select {
			case <-stop:
				if served.Load() > 0 {
					return
				}
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	do()
	close(stop)
	running.Wait()
	f.t.Logf("%d logins of others meanwhile; %d MiB", served.Load(), f.n.peak())
	if served.Load() == 0 {
		f.t.Error("nobody else was served")
	}
}

// Floods of all kinds are bounded: connections from one address, TLS handshakes that are begun
// and not ended, clients that say an octet now and then, and literals that nobody has room for.
// Others are served meanwhile, memory stays within its limit, and the node can be stopped.
func TestFloods(t *testing.T) { //nolint:paralleltest // it loads the machine
	if l, err := net.Listen("tcp", "127.1.0.1:0"); err != nil {
		t.Skip("this machine has one loopback address")
	} else if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, fmt.Sprintf("STARLING_IMAP_MAX_PER_ADDRESS=%d", floodPerAddress), "STARLING_IMAP_MAX_PER_ACCOUNT=0", "STARLING_SHUTDOWN_GRACE=5s")
	const name = "flooded@example.org"
	metadatatest.Account(t, c.db, name, func(n *metadata.NewAccount) {
		n.PasswordHash, n.Mailboxes = "{PLAIN}"+testPassword, metadata.DefaultMailboxes()
	})
	c.env = append(c.env, fmt.Sprintf("GOMEMLIMIT=%d", *floodLimit<<20/10*9))
	f := &flood{t: t, n: c.serve()}
	t.Cleanup(f.leave)

	f.others(name, func() {
		counts := f.each(f.n.imap, "127.0.0.2", func(_ int, conn net.Conn) (string, error) { return hear(conn, 2) })
		t.Logf("connections from one address: %v", counts)
		if counts["* OK"] != floodPerAddress || counts["* BYE"] != *floodConns-floodPerAddress {
			t.Errorf("of %d connections from one address: %v", *floodConns, counts)
		}
	})
	f.leave() // all others stay to the end
	f.others(name, func() {
		t.Logf("TLS handshakes: %v", f.each(f.n.imaps, "", func(i int, conn net.Conn) (string, error) {
			switch i % 3 {
			case 0:
				return "silent", nil
			case 1: // it begins, and does not go on
				g := &halfway{Conn: conn}
				_ = tls.Client(g, &tls.Config{InsecureSkipVerify: true}).Handshake() // as it is meant to
				return "begun", nil
			default:
				said, err := hear(tls.Client(conn, &tls.Config{InsecureSkipVerify: true}), 2)
				if strings.HasSuffix(fmt.Sprint(err), "tls: internal error") { // it had no turn in time
					return "turned away", nil
				}
				return said, err
			}
		}))
	})
	f.others(name, func() {
		t.Logf("octets now and then: %v", f.each(f.n.imap, "", func(i int, conn net.Conn) (string, error) {
			begin, what := "a lo", "before the login"
			if i%2 == 0 {
				begin, what = fmt.Sprintf("a login %s %q\r\nb append INBOX {1000}\r\nx", name, testPassword), "a literal"
			}
			for k := range 10 {
				if _, err := io.WriteString(conn, begin[len(begin)*k/10:len(begin)*(k+1)/10]); err != nil {
					return "", err
				}
				time.Sleep(100 * time.Millisecond) // an octet now and then
			}
			return what, nil
		}))
	})
	f.others(name, func() {
		counts := f.each(f.n.imap, "", func(i int, conn net.Conn) (string, error) {
			plus := ""
			if i%2 == 0 {
				plus = "+"
			}
			r := bufio.NewReader(conn)
			for line := ""; !strings.HasPrefix(line, "a OK"); { // so many at once are refused for now
				_, err := fmt.Fprintf(conn, "a login %s %q\r\n", name, testPassword)
				for line = ""; err == nil && !strings.HasPrefix(line, "a "); {
					line, err = r.ReadString('\n')
				}
				if err != nil {
					return "out of time for the login", nil //nolint:nilerr // as it is when all want to at once
				}
				if strings.HasPrefix(line, "a NO [UNAVAILABLE]") {
					time.Sleep(time.Second) // as a client does
				}
			}
			if _, err := fmt.Fprintf(conn, "b append INBOX {100000000%s}\r\n", plus); err != nil {
				return "", err
			}
			line, err := r.ReadString('\n')
			if !strings.HasPrefix(line, "b NO [TOOBIG]") {
				t.Errorf("a literal of 100 MB: %q, %v", line, err)
			}
			return "refused" + plus, err
		})
		t.Logf("literals of 100 MB: %v", counts)
		if counts["refused"] == 0 || counts["refused+"] == 0 {
			t.Error("no literal was refused")
		}
	})
	figures := scrape(t, f.n)
	if figure(figures, "starling_listener_refused_total", "address") != float64(*floodConns-floodPerAddress) {
		t.Error("who was turned away is not counted")
	}
	if peak := f.n.peak(); !raced() && peak > *floodLimit {
		t.Errorf("the node had %d MiB of %d", peak, *floodLimit)
	}
	if status := f.n.stop(syscall.SIGTERM); status > 1 { // 1: literals were cut off that did not come to their end
		t.Errorf("status %d", status)
	}
	if said := f.n.output.String(); strings.Contains(said, `"level":"error"`) || strings.Count(said, `"level":"warn"`) > 100 {
		t.Errorf("the node said:\n%s", said[:min(len(said), 20_000)])
	}
}

// halfway is a connection on which nothing is read once something was sent.
type halfway struct{ net.Conn }

func (h *halfway) Read([]byte) (int, error) { return 0, net.ErrClosed }

func (h *halfway) Close() error { return nil } // it stays open
