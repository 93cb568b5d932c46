package main_test

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// talker is a connection on which a test says what it likes.
type talker struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func talk(t *testing.T, address string) *talker {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return talkOn(t, conn)
}

func talkOn(t *testing.T, conn net.Conn) *talker {
	t.Helper()
	t.Cleanup(func() { _ = conn.Close() }) // it may be closed already
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &talker{t, conn, bufio.NewReader(conn)}
}

func (k *talker) say(text string) {
	k.t.Helper()
	if _, err := k.conn.Write([]byte(text)); err != nil {
		k.t.Fatal(err)
	}
}

// hear reads up to a line that begins so.
func (k *talker) hear(want string) string {
	k.t.Helper()
	var all strings.Builder
	for {
		line, err := k.r.ReadString('\n')
		all.WriteString(line)
		if err != nil {
			k.t.Fatalf("%v, waiting for %q, after %q", err, want, all.String())
		}
		if strings.HasPrefix(line, want) {
			return all.String()
		}
	}
}

// SIGTERM stops a node cleanly: nobody comes in any more, who waits hears BYE,
// and a command that has begun is finished.
func TestServeStops(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	n := c.nodes[0]
	loggedIn := func() *talker {
		k := talk(t, n.imap)
		k.hear("* OK")
		k.say(fmt.Sprintf("a login %s %q\r\nb select INBOX\r\n", testUser, testPassword))
		k.hear("b OK")
		return k
	}
	stranger, idle, quiet, busy := talk(t, n.imap), loggedIn(), loggedIn(), loggedIn()
	stranger.hear("* OK")
	idle.say("c idle\r\n")
	idle.hear("+ ")
	mta := talk(t, n.lmtp)
	mta.hear("220")
	mail := numberedMail(1)
	busy.say(fmt.Sprintf("c append INBOX {%d}\r\n", len(mail)))
	busy.hear("+ ")
	busy.say(mail[:len(mail)/2])
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for _, k := range []*talker{stranger, idle, quiet} {
		k.hear("* BYE")
	}
	if conn, err := net.Dial("tcp", n.imap); err == nil {
		_ = conn.Close()
		t.Error("it still takes connections")
	}
	busy.say(mail[len(mail)/2:] + "\r\n")
	busy.hear("c OK [APPENDUID")
	busy.hear("* BYE")
	if status := n.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	other := login(t, c.nodes[1].imap, testUser, testPassword, nil)
	if data, err := other.Select("INBOX", nil).Wait(); err != nil || data.NumMessages != 1 {
		t.Errorf("on the other node: %+v, %v", data, err)
	}
}

// The second SIGTERM ends a node at once, and says so, whatever it still waits for. What was
// acknowledged is there.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.env = append(c.env, "STARLING_SHUTDOWN_DELAY=1h", "STARLING_SHUTDOWN_GRACE=1h")
	n := c.serve()
	k := talk(t, n.imap)
	k.hear("* OK")
	mail := numberedMail(1)
	k.say(fmt.Sprintf("a login %s %q\r\nb append INBOX {%d+}\r\n%s\r\nc append INBOX {%d}\r\n", testUser, testPassword, len(mail), mail, len(mail)))
	k.hear("b OK")
	k.hear("+ ")
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, n.admin, 503, "draining\n(degraded: .*\n)*")
	if status := n.stop(syscall.SIGTERM); status != 1 {
		t.Errorf("status %d", status)
	}
	if said := n.output.String(); !strings.Contains(said, "second signal") {
		t.Errorf("it said\n%s", said)
	}
	other := login(t, c.nodes[1].imap, testUser, testPassword, nil)
	if data, err := other.Select("INBOX", nil).Wait(); err != nil || data.NumMessages != 1 {
		t.Errorf("on the other node: %+v, %v", data, err)
	}
}

// A node that cannot have all it needs says what, and does not start half.
func TestServeRefuses(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	taken := c.nodes[0].imap
	for _, test := range []struct {
		status    int
		want, env string
	}{
		{1, "imap.listen: listen tcp " + taken, "STARLING_IMAP_LISTEN=" + taken},
		{2, "tls: ", "STARLING_TLS_CERT=" + filepath.Join(t.TempDir(), "none.pem")},
		{2, "log.level: ", "STARLING_LOG_LEVEL=loud"},
		{2, "postgres.dsn: ", "STARLING_POSTGRES_DSN=postgres://127.0.0.1:port/none"},
		{1, "admin.listen: listen tcp " + taken, "STARLING_ADMIN_LISTEN=" + taken},
		{1, "blobs.disk: ", "STARLING_BLOBS_DISK=" + write(t, importOne, "a file", t.TempDir(), "file") + "/blobs"},
	} {
		_, stderr, status := run(t, invocation{args: []string{"serve"}, env: append(append([]string{}, c.env...), test.env)})
		if status != test.status || !strings.Contains(stderr, "starling: "+test.want) {
			t.Errorf("with %s: status %d, %s", test.env, status, stderr)
		}
	}
}

// A node starts without NATS, which only hints, and says so.
func TestServeWithoutNATS(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	env := append(append([]string{}, c.env...), "STARLING_NATS_URLS=nats://127.0.0.1:1", "STARLING_MAIL_SWEEP=1s")
	p := start(t, invocation{args: []string{"serve"}, env: env})
	text := p.waitFor("listeners", listens)
	deaf := login(t, addresses(text)["IMAP"], testUser, testPassword, nil)
	c.deliver(0, testUser, numberedMail(1))
	if data, err := deaf.Select("INBOX", nil).Wait(); err != nil || data.NumMessages != 1 {
		t.Errorf("selected %+v, %v", data, err)
	}
	if status := p.stop(syscall.SIGTERM); status != 0 || !strings.Contains(p.output.String(), "NATS") && !strings.Contains(p.output.String(), "nats") {
		t.Errorf("status %d, and it said\n%s", status, p.output.String())
	}
}
