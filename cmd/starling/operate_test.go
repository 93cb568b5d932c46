package main_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	starling "starling/cmd/starling"
)

// waitPatiently fires when a test has waited long enough.
func waitPatiently(t *testing.T) <-chan time.Time {
	t.Helper()
	return time.After(patience)
}

// until asks again until something is so.
func until(t *testing.T, what string, good func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !good(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// serial is the number of the certificate that a node shows at an address.
func serial(t *testing.T, address string) string {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // nothing follows
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// replace puts a file in the place of another, as programs that renew certificates do.
func replace(t *testing.T, with, file string) {
	t.Helper()
	content, err := os.ReadFile(with)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// A certificate that is replaced is shown to new connections, and the others stay; one
// that cannot be read leaves the old one in its place, and log and figures say so.
func TestCertificateReplaced(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	n := c.serve() // what it logs is an error, which those of the cluster must not
	t.Cleanup(func() {
		if status := n.stop(syscall.SIGTERM); status != 0 {
			t.Errorf("status %d", status)
		}
	})
	key := filepath.Join(filepath.Dir(c.cert), "key.pem")
	first := serial(t, n.imaps)
	conn, err := tls.Dial("tcp", n.imaps, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	open := talkOn(t, conn)
	open.hear("* OK")

	newCert, newKey, err := starling.DevCertificate(filepath.Join(t.TempDir(), "new"))
	if err != nil {
		t.Fatal(err)
	}
	replace(t, newKey, key)
	replace(t, newCert, c.cert)
	if err := n.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until(t, "the new certificate", func() bool { return serial(t, n.imaps) != first })
	second := serial(t, n.imaps)
	open.say("a noop\r\n")
	open.hear("a OK")

	broken := write(t, importOne, "this is no certificate\n", t.TempDir(), "wrong.pem")
	replace(t, broken, c.cert)
	if err := n.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until(t, "the figure", func() bool { return figure(scrape(t, n), "starling_tls_certificate_broken") == 1 })
	if now := serial(t, n.imaps); now != second {
		t.Errorf("it shows %s; want %s", now, second)
	}
	if said := n.output.String(); !strings.Contains(said, c.cert) || !strings.Contains(said, `"level":"warn"`) && !strings.Contains(said, `"level":"error"`) {
		t.Errorf("it does not say that %s is broken:\n%s", c.cert, said)
	}
	replace(t, newCert, c.cert)
	if err := n.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until(t, "the figure", func() bool { return figure(scrape(t, n), "starling_tls_certificate_broken") == 0 })
}

// A node without a certificate, and one that still waits to serve, is not ended by the
// signal that has others look at theirs.
func TestHangupEndsNoNode(t *testing.T) {
	t.Parallel()
	p := start(t, invocation{args: []string{"serve"}, env: []string{
		"STARLING_HOSTNAME=localhost", "STARLING_POSTGRES_DSN=postgres://nobody@127.0.0.1:1/none",
		"STARLING_NATS_URLS=nats://127.0.0.1:1", "STARLING_BLOBS_DISK=" + filepath.Join(t.TempDir(), "blobs"),
		"STARLING_IMAP_LISTEN=127.0.0.1:0", "STARLING_IMAP_LISTEN_TLS=", "STARLING_LMTP_LISTEN=127.0.0.1:0",
		"STARLING_ADMIN_LISTEN=127.0.0.1:0", "STARLING_IMAP_PLAINTEXT_LOGIN=true",
	}})
	at := addresses(p.waitFor("the admin listener", func(s string) bool { return addresses(s)["HTTP"] != "" }))
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if status, text := askAdmin(t, http.MethodGet, at["HTTP"], "/livez"); status != http.StatusOK {
		t.Errorf("%d %s", status, text)
	}
	if status := p.stop(syscall.SIGTERM); status != 0 {
		t.Errorf("status %d:\n%s", status, p.output.String())
	}
}

// The protocol of an account's sessions is logged on all nodes, once one of them was
// asked for it, without what it is about; and no longer when that is taken back.
func TestProtocolTrace(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	k := talk(t, c.nodes[1].imap)
	k.hear("* OK")
	k.say("a login " + testUser + ` "` + testPassword + "\"\r\nb create Geheimnisse\r\n")
	k.hear("b OK")
	path := "/accounts/" + testUser + "/trace"
	if status, text := askAdmin(t, http.MethodPut, c.nodes[0].admin, path+"?for=5m"); status != http.StatusOK || !strings.Contains(text, "until") {
		t.Fatalf("%d %s", status, text)
	}
	lines := func() int { return strings.Count(c.nodes[1].output.String(), `"msg":"protocol"`) }
	until(t, "the other node's log", func() bool {
		k.say("c noop\r\n")
		k.hear("c OK")
		return lines() > 0
	})
	mail := "Subject: Vertraulich\r\n\r\nNiemand liest mit.\r\n"
	k.say(fmt.Sprintf("d append Geheimnisse {%d+}\r\n%s\r\ne select Geheimnisse\r\nf fetch 1 (flags envelope body.peek[])\r\n", len(mail), mail))
	k.hear("f OK")
	until(t, "the command in the log", func() bool { return strings.Contains(strings.ToLower(c.nodes[1].output.String()), "f fetch 1 ") })
	if status, text := askAdmin(t, http.MethodDelete, c.nodes[0].admin, path); status != http.StatusNoContent {
		t.Fatalf("%d %s", status, text)
	}
	until(t, "the end of it", func() bool {
		before := lines()
		k.say("g noop\r\n")
		k.hear("g OK")
		return lines() == before
	})
	for i, n := range c.nodes {
		for _, secret := range []string{testPassword, "Geheimnisse", "Vertraulich", "Niemand"} {
			for line := range strings.Lines(n.output.String()) {
				if strings.Contains(line, secret) && strings.Contains(line, `"msg":"protocol"`) {
					t.Errorf("node %d logs %s", i+1, line)
				}
			}
		}
	}
	if status, text := askAdmin(t, http.MethodPut, c.nodes[0].admin, "/accounts/nobody@example.org/trace"); status != http.StatusNotFound {
		t.Errorf("%d %s", status, text)
	}
}

// Who is over a limit is turned away, and hears why; who goes makes room.
func TestLimits(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	with := func(env ...string) *server {
		t.Helper()
		all := c.env
		defer func() { c.env = all }()
		c.env = append(append([]string{}, all...), env...)
		n := c.serve()
		t.Cleanup(func() {
			if status := n.stop(syscall.SIGTERM); status != 0 {
				t.Errorf("status %d", status)
			}
		})
		return n
	}
	in := func(k *talker, tag string) {
		k.say(fmt.Sprintf("%s login %s %q\r\n", tag, testUser, testPassword))
	}
	for _, limit := range []string{"STARLING_IMAP_MAX_PER_ADDRESS=2", "STARLING_IMAP_MAX_CONNECTIONS=2"} {
		n := with(limit)
		first, second := talk(t, n.imap), talk(t, n.imap)
		first.hear("* OK")
		second.hear("* OK")
		talk(t, n.imap).hear("* BYE [UNAVAILABLE]")
		first.say("a logout\r\n")
		first.hear("a OK")
		until(t, "room", func() bool {
			k := talk(t, n.imap)
			line, err := k.r.ReadString('\n')
			return err == nil && strings.HasPrefix(line, "* OK")
		})
		if figure(scrape(t, n), "starling_listener_refused_total", "imap") == 0 {
			t.Errorf("with %s nobody was counted as turned away", limit)
		}
	}
	// The address of a trusted network has no limit.
	n := with("STARLING_IMAP_MAX_PER_ADDRESS=1", "STARLING_AUTH_TRUSTED=127.0.0.0/8")
	for range 3 {
		talk(t, n.imap).hear("* OK")
	}
	for _, limit := range []string{"STARLING_IMAP_MAX_PER_ACCOUNT=1", "STARLING_IMAP_MAX_PER_TENANT=1"} {
		n := with(limit)
		first, second := talk(t, n.imap), talk(t, n.imap)
		in(first, "a")
		first.hear("a OK")
		in(second, "a")
		second.hear("a NO [LIMIT]")
		first.say("b logout\r\n")
		first.hear("b OK")
		until(t, "room", func() bool {
			in(second, "b")
			line := ""
			for !strings.HasPrefix(line, "b ") {
				var err error
				if line, err = second.r.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
			return strings.HasPrefix(line, "b OK")
		})
	}
	n = with("STARLING_LMTP_MAX_CONNECTIONS=1")
	talk(t, n.lmtp).hear("220")
	talk(t, n.lmtp).hear("421 4.3.2")
}
