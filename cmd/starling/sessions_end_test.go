package main_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// A suspension on the command line ends a session that waits in IDLE, by the
// hint: the sweep, by which it would end too, comes only in an hour.
func TestSuspensionEndsOpenSessions(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.env = append(c.env, "STARLING_MAIL_SWEEP=1h")
	conn, err := net.Dial("tcp", c.serve().imap)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(conn)
	await := func(prefix string) {
		t.Helper()
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), prefix) {
				return
			}
		}
		t.Fatalf("the connection ended before %q: %v", prefix, lines.Err())
	}
	await("* OK")
	_, _ = fmt.Fprintf(conn, "a LOGIN %s %q\r\nb SELECT INBOX\r\nc IDLE\r\n", testUser, testPassword) // what is lost is missed below
	await("+ ")
	end := start(t, invocation{args: []string{"account", "suspend", testUser}, env: c.env})
	await("* BYE [EXPIRED]")
	if status := end.wait(); status != 0 {
		t.Errorf("suspend exits with %d", status)
	}
}
