package imap

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"starling/frontend/mailstore"
	"starling/metadata"
)

// tight is a node that has memory for one command that reads rows, one that reads bodies and
// one message that comes in, and gives clients a moment to go on when another waits for it.
func tight(t *testing.T) (*testNode, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	n := newTestNode(t, func(store *mailstore.Config, config *Config) {
		store.ReadMemory, store.Inflight, config.Metrics = 3, 1, reg
	})
	n.server.stall = 100 * time.Millisecond
	return n, reg
}

// again does a command until it succeeds.
func (c *talk) again(command string) {
	c.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		lines := c.do("%s", command)
		last := lines[len(lines)-1]
		switch {
		case strings.HasPrefix(last, "OK "):
			return
		case !strings.HasPrefix(last, "NO [UNAVAILABLE] "), time.Now().After(deadline):
			c.t.Fatalf("%s: %q", command, last)
		}
	}
}

// stalledFor waits until a session has waited for its client for so long.
func (s *session) stalledFor(t *testing.T, d time.Duration) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) { // a wait gives no sign
		s.pace.mu.Lock()
		waits := !s.pace.since.IsZero() && time.Since(s.pace.since) >= d
		s.pace.mu.Unlock()
		if waits {
			return
		}
	}
	t.Fatal("it does not wait for its client")
}

// A client that does not take what it asked for, or does not send what it announced, is cut
// off when others wait for the memory that it holds, long before it would be otherwise; and
// not as long as nobody does.
func TestStalledClientsGiveWay(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ stalls, waits string }{
		"answer":  {"FETCH 1:* (ENVELOPE BODY.PEEK[])", "FETCH 1 (ENVELOPE)"},
		"literal": {"APPEND INBOX {100000}", "APPEND INBOX {5+}\r\nhello"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, reg := tight(t)
			waits := n.connect(t)
			for range 3 {
				waits.put("INBOX", "", "Subject: x\n\n"+strings.Repeat("A line that is like others.\n", 1000))
			}
			waits.ok("SELECT INBOX")
			stalls := n.connect(t)
			stalls.ok("SELECT INBOX")
			if _, err := fmt.Fprintf(stalls.conn, "s %s\r\n", test.stalls); err != nil {
				t.Fatal(err)
			}
			stalls.line() // the first of the answer, or that the literal may come
			stalls.session.stalledFor(t, 2*n.server.stall)
			if got := figures(t, reg)["disconnects_total{slow}"]; got != 0 {
				t.Errorf("%v sessions were cut off while nobody waited", got)
			}
			waits.again(test.waits)
			if _, err := io.Copy(io.Discard, stalls.in); err != nil {
				t.Error(err)
			}
			await(t, reg, "disconnects_total{slow}", 1)
		})
	}
}

// An account that waits for what it has itself of all memory, its share, ends no session of others, but those
// of its own that stall.
func TestShareIsNobodyElses(t *testing.T) {
	t.Parallel()
	var db *metadata.DB
	reg := prometheus.NewRegistry()
	n := newTestNode(t, func(store *mailstore.Config, config *Config) {
		store.ReadMemory, config.Metrics, db = 48<<20, reg, store.DB
	})
	n.server.stall = 100 * time.Millisecond
	begin := func() *talk {
		c := n.connect(t)
		if _, err := io.WriteString(c.conn, "x APPEND INBOX {5}\r\n"); err != nil {
			t.Fatal(err)
		}
		c.line() // the literal may come
		return c
	}
	own := begin()
	other, err := db.CreateAccount(t.Context(), metadata.NewAccount{Name: "b@example.org", PasswordHash: "{PLAIN}x"})
	if err != nil {
		t.Fatal(err)
	}
	account := own.session.account
	n.account = other
	slow := begin()
	for _, c := range []*talk{own, slow} {
		c.session.stalledFor(t, 2*n.server.stall)
	}
	if err := account.ReserveRead(t.Context(), 4<<20); err != nil { // its share
		t.Fatal(err)
	}
	if err := account.ReserveRead(t.Context(), 1<<20); !errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("more than a share: %v", err)
	}
	account.AdjustRead(-4 << 20)
	await(t, reg, "disconnects_total{slow}", 1)
	if _, err := io.WriteString(slow.conn, "hello\r\n"); err != nil {
		t.Fatal(err)
	}
	for line := slow.line(); !strings.HasPrefix(line, "x OK "); line = slow.line() {
		if !strings.HasPrefix(line, "* ") {
			t.Fatalf("answered with %q", line)
		}
	}
	if _, err := io.Copy(io.Discard, own.in); err != nil {
		t.Error(err)
	}
}

// Who moves an octet now and then has no more time for what it has begun than who moves none.
func TestDrippingClients(t *testing.T) {
	t.Parallel()
	for name, command := range map[string]string{
		"line": "x APPEND ", "literal": "x APPEND INBOX {100000+}\r\n", "skipped": "x NONSENSE {100000+}\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := prometheus.NewRegistry()
			n := newTestNode(t, func(_ *mailstore.Config, config *Config) {
				config.ReadTimeout, config.Metrics = 500*time.Millisecond, reg
			})
			c := n.connect(t)
			if _, err := io.WriteString(c.conn, command); err != nil {
				t.Fatal(err)
			}
			drops := 0
			for ; drops < 5000; drops++ {
				if _, err := io.WriteString(c.conn, "x"); err != nil {
					break
				}
				time.Sleep(5 * time.Millisecond) // a drop, a hundred to the time of a piece
			}
			if drops == 5000 {
				t.Error("it was listened to for all of its drops")
			}
			await(t, reg, "disconnects_total{slow}", 1)
		})
	}
}

// A client that is slow and goes on is served to the end: what counts is a piece, not all of it.
func TestSlowClientIsServed(t *testing.T) {
	t.Parallel()
	n := newTestNode(t, func(_ *mailstore.Config, config *Config) { config.ReadTimeout = 2 * time.Second })
	c := n.connect(t)
	const pieces = 60
	if _, err := fmt.Fprintf(c.conn, "x APPEND INBOX {%d+}\r\n", pieces*pieceOctets); err != nil {
		t.Fatal(err)
	}
	for range pieces {
		if _, err := io.WriteString(c.conn, strings.Repeat("A line of 32 octets, as others.\n", pieceOctets/32)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // more than the time of a piece in all
	}
	if _, err := io.WriteString(c.conn, "\r\n"); err != nil {
		t.Fatal(err)
	}
	if line := c.line(); !strings.HasPrefix(line, "x OK ") {
		t.Errorf("answered with %q", line)
	}
}

// Commands that are refused for now do not fill the log.
func TestRefusalsInTheLog(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.WarnLevel)
	n := newTestNode(t, func(_ *mailstore.Config, config *Config) { config.Log = zap.New(core) })
	a, b := n.connect(t), n.connect(t)
	a.put("INBOX", "", "Subject: x\n\nhello\n")
	n.blobs.down.Store(true)
	for _, c := range []*talk{a, b} {
		c.ok("SELECT INBOX")
		for range 50 {
			c.want("FETCH 1 BODY.PEEK[]", "NO [UNAVAILABLE] …")
		}
	}
	lines := logs.FilterMessage("command refused").All()
	if len(lines) < 1 || len(lines) > 30 { // of 100; ten in ten seconds
		t.Errorf("%d lines in the log", len(lines))
	}
	if len(lines) > 0 && (lines[0].ContextMap()["command"] != "FETCH" || lines[0].ContextMap()["account"] != n.account.Name) {
		t.Errorf("the log says %v", lines[0].ContextMap())
	}
}
