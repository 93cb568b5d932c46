package deploy_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What somebody does who installs Starling: two nodes behind HAProxy, mail that Postfix delivers by
// LMTP and people read through HAProxy, a look at figures and alerts, and a node that is drained
// without anybody noticing more than a reconnect.
func TestWalk(t *testing.T) {
	t.Parallel()
	need(t, "haproxy")
	need(t, "curl")
	need(t, "prometheus")
	c := newCluster(t)
	watch := startPrometheus(t, c)
	for _, n := range c.nodes {
		if status, body := get(t, n.admin("/readyz")); status != 200 {
			t.Errorf("readyz: %d %s", status, body)
		}
	}

	// Two people wait in IDLE; HAProxy gives one to each node.
	first, second := idle(t, c), idle(t, c)
	eventually(t, "each node has a session", func() bool {
		return watch.value(t, `count(sum by (instance) (starling_imap_sessions{state="idle"}) == 1)`) == 2
	})

	subject := c.deliver(t)
	first.await(t, "* 1 EXISTS")
	second.await(t, "* 1 EXISTS")
	curl := func(path string, args ...string) string {
		return run(t, "curl", append([]string{
			"--silent", "--show-error", "--cacert", c.cert, "--interface", "127.0.0.9", "--connect-to", "localhost::" + c.imaps,
			"--user", account + ":" + password, "--url", "imaps://localhost" + path,
		}, args...)...)
	}
	if mail := curl("/INBOX;UID=1"); !strings.Contains(mail, "Subject: "+subject+"\r\n") || !strings.HasSuffix(mail, "\r\n\r\nHow are you?\r\n") {
		t.Errorf("fetched %q", mail)
	}
	// The client's address is in the log, not HAProxy's.
	if logs := c.nodes[0].output() + c.nodes[1].output(); !regexp.MustCompile(`"remote":"127\.0\.0\.9:\d+".*` + account).MatchString(logs) {
		t.Error("no log of a login from 127.0.0.9")
	}

	watch.checkMetrics(t, c)
	watch.checkDashboard(t)
	watch.checkAlerts(t)
	c.drain(t, watch, []*idler{first, second}, curl)
	c.nodes[1].signal(syscall.SIGKILL) // no need to drain it, too
}

// deliver sends a mail by Postfix, which knows who exists, and returns its subject.
func (c *cluster) deliver(t *testing.T) (subject string) {
	t.Helper()
	subject = "Grüße über Postfix"
	mail := "From: sender@example.net\r\nTo: " + account + "\r\nSubject: " + subject + "\r\nDate: Mon, 02 Feb 2026 10:00:00 +0100\r\n\r\nHow are you?\r\n"
	mta := startPostfix(t, c.lmtp)
	_, err := mta.offer(t, "nobody@example.org")
	if err == nil || !strings.HasPrefix(err.Error(), "550 ") || !strings.Contains(err.Error(), "5.1.1 <nobody@example.org>") {
		t.Errorf("nobody@example.org: %v", err)
	}
	mta.send(t, account, mail)
	mta.await(`to=<` + account + `>, relay=[^\n]*, dsn=2\.[^\n]*, status=sent`)
	return subject
}

// drain ends the first node while people use it.
func (c *cluster) drain(t *testing.T, watch *prometheus, waiting []*idler, curl func(path string, args ...string) string) {
	t.Helper()
	began := time.Now()
	leaving := c.nodes[0]
	leaving.signal(syscall.SIGTERM)
	eventually(t, "the node says that it drains", func() bool {
		status, body := get(t, leaving.admin("/readyz"))
		return status == 503 && strings.Contains(body, "draining")
	})
	eventually(t, "HAProxy has taken the node out", func() bool { return !c.up("imaps", "node1") && !c.up("lmtp", "node1") })
	if !c.up("imap", "node2") {
		t.Error("HAProxy has taken the other node out, too")
	}
	eventually(t, "Prometheus has seen it", func() bool {
		return watch.value(t, `sum(starling_draining)`) == 1 && watch.value(t, `sum(starling_ready)`) == 1
	})
	// New connections go to the other node, while the first one still has its sessions.
	curl("/INBOX;UID=1;SECTION=TEXT")
	<-leaving.done
	t.Logf("drained after %v", time.Since(began).Round(100*time.Millisecond))
	if status := leaving.cmd.ProcessState.ExitCode(); status != 0 {
		t.Errorf("the node ended with %d", status)
	}
	var left []*idler
	eventually(t, "a session has ended", func() bool {
		left = slices.DeleteFunc(slices.Clone(waiting), (*idler).ended)
		return len(left) < len(waiting)
	})
	for _, w := range waiting {
		if !slices.Contains(left, w) {
			w.await(t, "* BYE")
		}
	}
	if len(left) != 1 {
		t.Errorf("%d of two sessions have ended", len(waiting)-len(left))
	}
	curl("/INBOX;UID=1;SECTION=TEXT")
	if restarted := idle(t, c); restarted.ended() {
		t.Error("a client that comes back is not served")
	}
}

// idler is a client that waits in IDLE.
type idler struct {
	lines chan string // closed at the connection's end
	said  []string
}

// idle logs in through HAProxy, and waits.
func idle(t *testing.T, c *cluster) *idler {
	t.Helper()
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM([]byte(read(t, c.cert)))
	conn, err := tls.Dial("tcp", c.imaps, &tls.Config{RootCAs: trusted, ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the node may have closed it
	in := bufio.NewReader(conn)
	say := func(tag, line string) {
		t.Helper()
		if _, err := fmt.Fprintf(conn, "%s %s\r\n", tag, line); err != nil {
			t.Fatal(err)
		}
		for {
			answer, err := in.ReadString('\n')
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if strings.HasPrefix(answer, tag+" OK") || strings.HasPrefix(answer, "+ ") {
				return
			}
			if strings.HasPrefix(answer, tag+" ") {
				t.Fatalf("%s: %s", line, answer)
			}
		}
	}
	say("a", fmt.Sprintf("LOGIN %q %q", account, password))
	say("b", "SELECT INBOX")
	say("c", "IDLE")
	i := &idler{lines: make(chan string, 100)}
	go func() {
		defer close(i.lines)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			i.lines <- line
		}
	}()
	return i
}

// await waits for a line that begins so.
func (i *idler) await(t *testing.T, prefix string) {
	t.Helper()
	for _, line := range i.said {
		if strings.HasPrefix(line, prefix) {
			return
		}
	}
	late := time.After(patience)
	for {
		select {
		case line, ok := <-i.lines:
			if !ok {
				t.Fatalf("the connection ended before %s: %q", prefix, i.said)
			}
			i.said = append(i.said, line)
			if strings.HasPrefix(line, prefix) {
				return
			}
		case <-late:
			t.Fatalf("no %s: %q", prefix, i.said)
		}
	}
}

// ended reports whether the server has closed the connection.
func (i *idler) ended() bool {
	for {
		select {
		case line, ok := <-i.lines:
			if !ok {
				return true
			}
			i.said = append(i.said, line)
		default:
			return false
		}
	}
}

// The example is one that HAProxy accepts as it is; that it cannot resolve node1 here is all it has to say.
func TestHAProxy(t *testing.T) {
	t.Parallel()
	program := need(t, "haproxy")
	config := read(t, "haproxy/haproxy.cfg")
	said := run(t, program, "-c", "-f", filepath.Join("haproxy", "haproxy.cfg"))
	for line := range strings.Lines(said) {
		if strings.Contains(line, "[WARNING]") && !strings.Contains(line, "could not resolve address 'node") || strings.Contains(line, "[ALERT]") {
			t.Error(line)
		}
	}
	if strings.Contains(config, "\ton-marked-down") || !strings.Contains(config, "/readyz") {
		t.Error("sessions of a node that drains would be cut")
	}
	for _, direction := range []string{"client", "server", "tunnel"} {
		at := regexp.MustCompile(`(?m)^\ttimeout ` + direction + ` (\S+)$`).FindStringSubmatch(config)
		if at == nil {
			t.Errorf("no timeout for %s", direction)
			continue
		}
		if d, err := time.ParseDuration(at[1]); err != nil || d <= 30*time.Minute {
			t.Errorf("timeout of %s: %s; clients may be silent for half an hour", direction, at[1])
		}
	}
}
