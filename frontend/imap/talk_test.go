package imap

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"starling/blobstore"
	"starling/blobstore/memory"
	"starling/events"
	bus "starling/events/memory"
	"starling/frontend/mailstore"
	"starling/metadata"
	"starling/metadata/metadatatest"
)

// testNode is a server over a database, a bus and an object store of its own.
type testNode struct {
	server  *Server
	store   *mailstore.Store
	account metadata.Account
	blobs   *countingBlobs
}

// countingBlobs is an object store that counts what is read.
type countingBlobs struct {
	blobstore.Store
	gets atomic.Int64
	down atomic.Bool // reads fail for now
}

func (b *countingBlobs) Get(ctx context.Context, key blobstore.Key, offset, length int64) (io.ReadCloser, error) {
	b.gets.Add(1)
	if b.down.Load() {
		return nil, fmt.Errorf("read %s: %w", key, blobstore.ErrUnavailable)
	}
	return b.Store.Get(ctx, key, offset, length)
}

// lose deletes all objects.
func (b *countingBlobs) lose(t *testing.T) {
	t.Helper()
	for object, err := range b.List(t.Context(), "", "") {
		if err == nil {
			err = b.Delete(t.Context(), object.Key)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func newTestNode(t testing.TB, tune ...func(*mailstore.Config, *Config)) *testNode {
	t.Helper()
	db := metadatatest.Open(t)
	ctx := t.Context()
	if _, err := db.CreateTenant(ctx, "t"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.CreateDomain(ctx, "t", "example.org"); err != nil {
		t.Fatal(err)
	}
	account, err := db.CreateAccount(ctx, metadata.NewAccount{Name: "a@example.org", PasswordHash: "{PLAIN}x"})
	if err != nil {
		t.Fatal(err)
	}
	hub := new(bus.Hub)
	node, err := hub.Open(events.Options{})
	if err != nil {
		t.Fatal(err)
	}
	blobs := &countingBlobs{Store: memory.New()}
	storeConfig := mailstore.Config{DB: db, Blobs: blobs, Bus: node, Log: zap.NewNop(), TempDir: t.TempDir(), Collect: -1}
	config := Config{Log: zap.NewNop()}
	for _, f := range tune {
		f(&storeConfig, &config)
	}
	store, err := mailstore.New(ctx, storeConfig)
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	stopped := make(chan error, 1)
	go func() { stopped <- store.Run(running) }()
	config.Store = store
	server := NewServer(config)
	t.Cleanup(func() {
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	return &testNode{server: server, store: store, account: account, blobs: blobs}
}

// talk is a connection that is logged in, from the client's side.
type talk struct {
	t       testing.TB
	session *session // the other side
	conn    net.Conn
	in      *bufio.Reader
	tags    int
}

// connect returns a connection that has enabled what is given.
func (n *testNode) connect(t testing.TB, enabled ...extensions) *talk {
	t.Helper()
	client, server := net.Pipe()
	return n.talkOver(t, client, server, enabled...)
}

// talkOver is connect over a given connection, which is a *tls.Conn if TLS is to begin at once.
func (n *testNode) talkOver(t testing.TB, client, server net.Conn, enabled ...extensions) *talk {
	t.Helper()
	_, implicitTLS := client.(*tls.Conn)
	s := newSession(n.server, server, implicitTLS)
	if err := s.login(n.account); err != nil {
		t.Fatal(err)
	}
	for _, which := range enabled {
		s.enable(which)
	}
	n.server.mu.Lock()
	n.server.sessions[s] = struct{}{}
	n.server.mu.Unlock()
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.serve()
	}()
	t.Cleanup(func() {
		_ = client.Close() // the session ends by it
		<-served
	})
	c := &talk{t: t, session: s, conn: client, in: bufio.NewReader(client)}
	if err := client.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	if greeting := c.line(); !strings.HasPrefix(greeting, "* OK ") {
		t.Fatalf("greeted with %q", greeting)
	}
	return c
}

func (c *talk) line() string {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil {
		c.t.Fatalf("after %q: %v", line, err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

// do sends a command and returns the untagged responses and, last, the tagged one without its tag.
func (c *talk) do(format string, args ...any) []string {
	c.t.Helper()
	c.tags++
	tag := "t" + strconv.Itoa(c.tags)
	sent := make(chan error, 1)
	go func() {
		_, err := c.conn.Write([]byte(tag + " " + fmt.Sprintf(format, args...) + "\r\n"))
		sent <- err
	}()
	var lines []string
	for {
		line := c.line()
		rest, tagged := strings.CutPrefix(line, tag+" ")
		if !tagged {
			lines = append(lines, strings.ReplaceAll(line, tag, "TAG"))
			continue
		}
		if err := <-sent; err != nil {
			c.t.Fatal(err)
		}
		return append(lines, rest)
	}
}

// ok is do for a command that has to succeed; the tagged response is left out.
func (c *talk) ok(format string, args ...any) []string {
	c.t.Helper()
	lines := c.do(format, args...)
	last := len(lines) - 1
	if !strings.HasPrefix(lines[last], "OK ") {
		c.t.Fatalf("%s: %q", fmt.Sprintf(format, args...), lines)
	}
	return lines[:last]
}

// put appends a message; options are flags and date of APPEND.
func (c *talk) put(mailbox, options, text string) {
	c.t.Helper()
	text = strings.ReplaceAll(text, "\n", "\r\n")
	if options != "" {
		options += " "
	}
	c.ok("APPEND %s %s{%d+}\r\n%s", mailbox, options, len(text), text)
}

// want does a command and compares all that is answered; "…" at the end of a line stands for anything.
func (c *talk) want(command string, lines ...string) {
	c.t.Helper()
	got := c.do("%s", command)
	for i := range max(len(got), len(lines)) {
		var g, w string
		if i < len(got) {
			g = got[i]
		}
		if i < len(lines) {
			w = lines[i]
		}
		if prefix, open := strings.CutSuffix(w, "…"); g != w && !(open && strings.HasPrefix(g, prefix)) {
			c.t.Errorf("%s\n got  %q\n want %q", command, got, lines)
			return
		}
	}
}

// tail sends a command and returns all lines up to the end of the connection.
func (c *talk) tail(command string) []string {
	c.t.Helper()
	go func() { _, _ = c.conn.Write([]byte("last " + command + "\r\n")) }() // the server may be gone before it read all
	var lines []string
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return lines
		}
		lines = append(lines, strings.TrimSuffix(line, "\r\n"))
	}
}
