package main_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/emersion/go-smtp"

	starling "starling/cmd/starling"
	"starling/events/nats/natsserver"
	"starling/frontend/auth"
	"starling/metadata"
	"starling/metadata/metadatatest"
)

const (
	testUser     = "ann@example.org"
	testPassword = "correct horse"
)

var testHash = sync.OnceValues(func() (string, error) { return auth.Hash(testPassword) })

// cluster is two nodes, each a process of its own, over one PostgreSQL, NATS
// and folder of blobs; with an account, testUser.
type cluster struct {
	t     *testing.T
	db    *metadata.DB
	env   []string
	nodes [2]*server
	cert  string // PEM file of the certificate of both
}

// server is a run of starling serve.
type server struct {
	*program
	imap, imaps, lmtp, admin string // addresses
}

func (s *server) port(address string) string {
	s.t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		s.t.Fatal(err)
	}
	return port
}

// newCluster starts a cluster; env are settings beside the usual ones.
func newCluster(t *testing.T, env ...string) *cluster {
	t.Helper()
	dsn := metadatatest.DSN(t)
	db, err := metadata.Open(t.Context(), metadata.Config{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	hash, err := testHash()
	if err != nil {
		t.Fatal(err)
	}
	metadatatest.Account(t, db, testUser, func(n *metadata.NewAccount) {
		n.PasswordHash, n.Mailboxes = hash, metadata.DefaultMailboxes()
	})
	broker, err := natsserver.Start(natsserver.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Shutdown)
	dir := t.TempDir()
	cert, key, err := starling.DevCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, db: db, cert: cert, env: []string{
		"STARLING_HOSTNAME=localhost",
		"STARLING_POSTGRES_DSN=" + dsn, "STARLING_NATS_URLS=" + broker.URL(),
		"STARLING_BLOBS_DISK=" + filepath.Join(dir, "blobs"),
		"STARLING_TLS_CERT=" + cert, "STARLING_TLS_KEY=" + key,
		"STARLING_IMAP_LISTEN=127.0.0.1:0", "STARLING_IMAP_LISTEN_TLS=127.0.0.1:0", "STARLING_LMTP_LISTEN=127.0.0.1:0",
		"STARLING_ADMIN_LISTEN=127.0.0.1:0",
		"STARLING_IMAP_PLAINTEXT_LOGIN=true",
	}}
	c.env = append(c.env, env...)
	for i := range c.nodes {
		c.nodes[i] = c.serve()
	}
	t.Cleanup(c.end)
	return c
}

// end stops the nodes that still run, clients or not, and looks at what they had to say.
func (c *cluster) end() {
	for i, n := range c.nodes {
		select {
		case <-n.done: // another cleanup has ended it
		default:
			if status := n.stop(syscall.SIGTERM); status != 0 {
				c.t.Errorf("node %d: status %d", i+1, status)
			}
		}
		said := n.output.String()
		for _, bad := range []string{`"level":"error"`, "DATA RACE", "panic"} {
			if strings.Contains(said, bad) {
				c.t.Errorf("node %d had to say %s", i+1, bad)
			}
		}
		if c.t.Failed() {
			c.t.Logf("node %d said:\n%s", i+1, said)
		}
	}
}

// serve starts a further node.
func (c *cluster) serve() *server {
	c.t.Helper()
	p := start(c.t, invocation{args: []string{"serve"}, env: c.env})
	text := p.waitFor("listeners", listens)
	at := addresses(text)
	return &server{program: p, imap: at["IMAP"], imaps: at["IMAPS"], lmtp: at["LMTP"], admin: at["HTTP"]}
}

// deliver hands a message to a node by LMTP.
func (c *cluster) deliver(node int, to, mail string) {
	c.t.Helper()
	conn, err := net.Dial("tcp", c.nodes[node].lmtp)
	if err != nil {
		c.t.Fatal(err)
	}
	client := smtp.NewClientLMTP(conn)
	defer func() { _ = client.Close() }() // after QUIT nothing follows
	if err := client.Hello("mta.example.org"); err != nil {
		c.t.Fatal(err)
	}
	if err := client.Mail("sender@example.org", nil); err != nil {
		c.t.Fatal(err)
	}
	if err := client.Rcpt(to, nil); err != nil {
		c.t.Fatal(err)
	}
	data, err := client.Data()
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := io.WriteString(data, mail); err != nil {
		c.t.Fatal(err)
	}
	if _, err := data.CloseWithLMTPResponse(); err != nil {
		c.t.Fatalf("deliver to %s: %v", to, err)
	}
	if err := client.Quit(); err != nil {
		c.t.Fatal(err)
	}
}

// needClient sees to it that a program is installed: where it is not, the test
// is skipped, but in CI it fails.
func needClient(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		missingClient(t, name)
	}
}

func missingClient(t *testing.T, name string) {
	t.Helper()
	if os.Getenv("CI") != "" && os.Getenv("CI") != "false" {
		t.Fatalf("%s is not installed; deploy/setup installs it", name)
	}
	t.Skipf("%s is not installed; deploy/setup installs it", name)
}

// numberedMail is the n-th of many messages, each with bytes of its own.
func numberedMail(n int) string {
	return fmt.Sprintf("From: Sender <sender%d@example.org>\r\nTo: %s\r\nSubject: Message %d\r\n"+
		"Date: Mon, 02 Feb 2026 10:%02d:%02d +0100\r\nMessage-ID: <%d@example.org>\r\n\r\nText of message %d.\r\n%s",
		n%7, testUser, n, n/60%60, n%60, n, n, strings.Repeat("A line that is like others.\r\n", n%40))
}
