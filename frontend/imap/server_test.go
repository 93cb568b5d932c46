package imap

import (
	"bufio"
	"context"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"starling/events"
	"starling/metadata"
)

// client is a connection to a node of a cluster, from the client's side.
type client struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

func (n *clusterNode) dial(t testing.TB) *client {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", n.imap)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &client{t: t, conn: conn, in: bufio.NewReader(conn)}
}

func (c *client) send(line string) {
	c.t.Helper()
	if _, err := c.conn.Write([]byte(line + "\r\n")); err != nil {
		c.t.Fatal(err)
	}
}

// until reads lines up to one that begins with prefix; the connection may also end, if prefix is empty.
func (c *client) until(prefix string) string {
	c.t.Helper()
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			if prefix != "" {
				c.t.Fatalf("waiting for %q: %v", prefix, err)
			}
			return ""
		}
		if prefix != "" && strings.HasPrefix(line, prefix) {
			return strings.TrimSpace(line)
		}
	}
}

func (c *client) login(user string) *client {
	c.t.Helper()
	c.send("l LOGIN " + user + " " + testPassword)
	c.until("l OK ")
	return c
}

// A client that sends nothing is told and hung up on, before and after the login
// (RFC 9051 §5.4); in IDLE it hears a sign of life before that (RFC 2177 §3).
func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, clusterOptions{}, func(config *Config) {
		config.LoginTimeout, config.IdleTimeout, config.KeepAlive = 2*time.Second, 2*time.Second, 100*time.Millisecond
	})
	user := c.account(t, "timeout@example.org", metadata.Quota{}).Name
	silent, waits, idles := c.nodes[0].dial(t), c.nodes[0].dial(t).login(user), c.nodes[0].dial(t).login(user)
	idles.send("i IDLE")
	idles.until("* OK Still here")
	for _, c := range []*client{silent, waits, idles} {
		c.until("* BYE [UNAVAILABLE] ")
		c.until("")
	}
}

// Shutdown says BYE to those that wait, in IDLE too, and takes no more connections.
func TestShutdown(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, clusterOptions{})
	node := c.nodes[0]
	user := c.account(t, "shutdown@example.org", metadata.Quota{}).Name
	waits, idles, fresh := node.dial(t).login(user), node.dial(t).login(user), node.dial(t)
	fresh.until("* OK ")
	idles.send("i IDLE")
	idles.until("+ ")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := node.server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	for _, c := range []*client{waits, idles, fresh} {
		c.until("* BYE [UNAVAILABLE] ")
		c.until("")
	}
	if n := node.server.Sessions(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
	if conn, err := net.DialTimeout("tcp", node.imap, time.Second); err == nil {
		_ = conn.Close()
		t.Error("the server still listens")
	}
}

// A command that runs when the server stops is answered first.
func TestShutdownWaitsForCommands(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, clusterOptions{})
	node := c.nodes[0]
	user := c.account(t, "running@example.org", metadata.Quota{}).Name
	appends := node.dial(t).login(user)
	appends.send("a APPEND INBOX {5}")
	appends.until("+ ") // from here on the command runs
	stopped := make(chan error, 1)
	go func() { stopped <- node.server.Shutdown(context.WithoutCancel(t.Context())) }()
	appends.send("hello")
	appends.until("a OK [APPENDUID ")
	appends.until("* BYE ")
	appends.until("")
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// A client that holds up a command of its own does not hold up the end: one that has announced a literal and
// sends nothing hears BYE.
func TestShutdownEndsStalledCommands(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, clusterOptions{})
	node := c.nodes[0]
	node.server.stall = 100 * time.Millisecond
	user := c.account(t, "stalled@example.org", metadata.Quota{}).Name
	literal, line := node.dial(t).login(user), node.dial(t).login(user)
	literal.send("b APPEND INBOX {100}")
	literal.until("+ ")
	if _, err := io.WriteString(line.conn, "b SEL"); err != nil {
		t.Fatal(err)
	}
	for node.server.busy() < 2 {
		runtime.Gosched()
	}
	if err := node.server.Shutdown(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	for _, client := range []*client{literal, line} {
		client.until("* BYE [UNAVAILABLE] The rest of the command has not come in time")
	}
}

// busy is how many sessions wait for their clients inside of a command.
func (srv *Server) busy() (n int) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for s := range srv.sessions {
		s.pace.mu.Lock()
		if !s.pace.since.IsZero() {
			n++
		}
		s.pace.mu.Unlock()
	}
	return n
}

// A new password, a suspension and a deletion end the account's sessions on every
// node, those in IDLE too, as soon as the nodes hear of it.
func TestSessionsEndWithTheLogin(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, clusterOptions{})
	for name, change := range map[string]func(context.Context, string) error{
		"password": func(ctx context.Context, user string) error { return c.db.SetPassword(ctx, user, "{PLAIN}other") },
		"suspend": func(ctx context.Context, user string) error {
			return c.db.SetState(ctx, user, metadata.Suspended)
		},
		"delete": c.db.DeleteAccount,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			account := c.account(t, name+"@login.example", metadata.Quota{})
			waits, idles := c.nodes[0].dial(t).login(account.Name), c.nodes[1].dial(t).login(account.Name)
			idles.send("s SELECT INBOX")
			idles.until("s OK ")
			idles.send("i IDLE")
			idles.until("+ ")
			if err := change(t.Context(), account.Name); err != nil {
				t.Fatal(err)
			}
			hint := events.Event{Account: int64(account.ID), Kind: events.Auth, ModSeq: account.AuthVersion + 1}
			for _, node := range c.nodes { // each tells the other
				if err := node.bus.Publish(hint); err != nil {
					t.Fatal(err)
				}
			}
			for _, c := range []*client{waits, idles} {
				c.until("* BYE [EXPIRED] ")
				c.until("")
			}
			again := c.nodes[1].dial(t)
			again.send("l LOGIN " + account.Name + " " + testPassword)
			again.until("l NO ")
		})
	}
}
