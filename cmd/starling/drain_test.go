package main_test

import (
	"bufio"
	"flag"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var drainIdle = flag.Int("drain.idle", 2000, "connections in IDLE that TestDrain ends")

// A node that is stopped says so at once, serves everybody for shutdown_delay, and
// then tells those that wait to go, one after the other, within shutdown_grace.
func TestDrain(t *testing.T) {
	t.Parallel()
	const delay, grace = 3 * time.Second, 15 * time.Second
	c := newCluster(t,
		"STARLING_SHUTDOWN_DELAY="+delay.String(), "STARLING_SHUTDOWN_GRACE="+grace.String(),
		"STARLING_IMAP_MAX_PER_ADDRESS=0", "STARLING_IMAP_MAX_PER_ACCOUNT=0")
	n := c.nodes[0]
	waiting := make([]*bufio.Scanner, *drainIdle)
	var logins sync.WaitGroup
	for worker := range 8 {
		logins.Go(func() {
			for i := worker; i < len(waiting); i += 8 {
				conn, err := net.Dial("tcp", n.imap)
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { _ = conn.Close() }) // it is at its end either way
				_, err = fmt.Fprintf(conn, "a login %s %q\r\nb select INBOX\r\nc idle\r\n", testUser, testPassword)
				lines := bufio.NewScanner(conn)
				for err == nil && lines.Scan() && !strings.HasPrefix(lines.Text(), "+ ") {
				}
				if err != nil || lines.Err() != nil {
					t.Error(err, lines.Err())
					return
				}
				waiting[i] = lines
			}
		})
	}
	logins.Wait()
	if t.Failed() {
		t.FailNow()
	}
	began := time.Now()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, n.admin, 503, "draining\n(degraded: .*\n)*")
	late := talk(t, n.imap)
	late.hear("* OK")
	late.say(fmt.Sprintf("a login %s %q\r\n", testUser, testPassword))
	late.hear("a OK")
	if status, text := askAdmin(t, http.MethodGet, n.admin, "/livez"); status != 200 {
		t.Errorf("/livez: %d %s", status, text)
	}

	told := make([]time.Duration, len(waiting))
	var ends sync.WaitGroup
	for i, lines := range waiting {
		ends.Go(func() {
			if !lines.Scan() || !strings.HasPrefix(lines.Text(), "* BYE") {
				t.Errorf("it ends with %q, %v", lines.Text(), lines.Err())
			}
			told[i] = time.Since(began)
			if lines.Scan() {
				t.Errorf("after BYE it says %q", lines.Text())
			}
		})
	}
	ends.Wait()
	late.hear("* BYE")
	if status := n.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	whole := time.Since(began)
	slices.Sort(told)
	if first := told[0]; first < delay {
		t.Errorf("the first one was told after %v, before the delay of %v", first, delay)
	}
	if last := told[len(told)-1]; last > delay+grace {
		t.Errorf("the last one was told after %v", last)
	}
	if whole > delay+grace+patience {
		t.Errorf("it took %v", whole)
	}
	t.Logf("%d connections in IDLE: told to go after %v (first), %v (half), %v (last); ended after %v", len(told), told[0], told[len(told)/2], told[len(told)-1], whole)
}
