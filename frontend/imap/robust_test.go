package imap

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"starling/blobstore"
	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// broken is a listener that cannot accept.
type broken struct{ net.Listener }

func (broken) Accept() (net.Conn, error) {
	return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EINVAL}
}

// What the listener cannot get over is an error that the node ends with.
func TestAcceptFails(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := NewServer(Config{Log: zap.NewNop()})
	if err := srv.Serve(broken{l}, false); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("serve: %v", err)
	}
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// unidentified serves a connection that is not logged in, of a server that gives it
// a moment for that, and returns the client's side.
func unidentified(t *testing.T) net.Conn {
	t.Helper()
	client, conn := net.Pipe()
	srv := NewServer(Config{Log: zap.NewNop(), LoginTimeout: 100 * time.Millisecond})
	s := newSession(srv, conn, false)
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.serve()
	}()
	t.Cleanup(func() {
		_ = client.Close()
		<-served
	})
	if err := client.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return client
}

// Who does not log in cannot keep a connection by sending commands.
func TestLoginTimeoutOfBusyClient(t *testing.T) {
	t.Parallel()
	client := unidentified(t)
	go func() {
		for {
			if _, err := client.Write([]byte("a NOOP\r\n")); err != nil {
				return
			}
		}
	}()
	all, err := io.ReadAll(client)
	if err != nil {
		t.Fatalf("the connection was not ended: %v", err)
	}
	if !strings.HasPrefix(string(all), "* OK ") { // how far it came then depends on the machine
		t.Errorf("it began with %q", all[:min(200, len(all))])
	}
}

// Nor by sending one slowly.
func TestLoginTimeoutInsideOfCommand(t *testing.T) {
	t.Parallel()
	for name, begun := range map[string]string{
		"line":    "a LOG",
		"literal": "a LOGIN {1000+}\r\nx",
		"skipped": "a NONSENSE {60000000+}\r\nx",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := unidentified(t)
			go func() { _, _ = client.Write([]byte(begun)) }()
			if _, err := io.ReadAll(client); err != nil {
				t.Fatalf("the connection was not ended: %v", err)
			}
		})
	}
}

// Cutting off connections must not wait for clients that do not read: under TLS each
// would be sent a farewell, and waited for, one after the other.
func TestCutDoesNotWait(t *testing.T) {
	t.Parallel()
	serverTLS, clientTLS := testCertificate(t)
	srv := NewServer(Config{Log: zap.NewNop(), TLS: serverTLS})
	for range 3 {
		client, conn := net.Pipe()
		srv.begin(conn, true)
		c := tls.Client(client, clientTLS)
		if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("a NO")); err != nil { // a command has begun
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	if err := srv.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if took := time.Since(began); took > 4*time.Second { // a farewell is given up after 5 s
		t.Errorf("took %v", took)
	}
}

// A handshake in which nothing is said is none of what a shutdown waits for, under STARTTLS
// neither.
func TestShutdownEndsHandshakes(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	c := newCluster(t, 1, clusterOptions{}, func(config *Config) { config.Metrics = reg })
	node := c.nodes[0]
	silent, upgraded := dialRaw(t, node.imaps), node.dial(t)
	upgraded.send("a STARTTLS")
	upgraded.until("a OK ")
	for node.server.Sessions() < 2 {
		runtime.Gosched()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // less than there is for a login
	defer cancel()
	if err := node.server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	for _, conn := range []net.Conn{silent, upgraded.conn} {
		if _, err := io.ReadAll(conn); err != nil {
			t.Error(err)
		}
	}
	if got := figures(t, reg)["disconnects_total{shutdown}"]; got != 2 {
		t.Errorf("%v of 2 sessions ended for the shutdown", got)
	}
}

// A connection that was accepted just before the listener was closed is not served, and
// none of what Shutdown may wait for.
func TestConnectionAfterShutdown(t *testing.T) {
	t.Parallel()
	srv := NewServer(Config{Log: zap.NewNop()})
	client, conn := net.Pipe()
	srv.begin(conn, false)
	if _, err := bufio.NewReader(client).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	late, lateConn := net.Pipe()
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for !srv.isClosing() || srv.Sessions() > 0 {
			runtime.Gosched()
		}
		srv.begin(lateConn, false)
	})
	accepting.Go(func() { _, _ = io.Copy(io.Discard, client) })
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(late); err != nil {
		t.Error(err)
	}
	accepting.Wait()
}

// panicking is an object store with a bug.
type panicking struct {
	blobstore.Store
	bug *atomic.Bool
}

func (p panicking) Get(ctx context.Context, key blobstore.Key, offset, length int64) (io.ReadCloser, error) {
	if p.bug.Load() {
		panic("a bug")
	}
	return p.Store.Get(ctx, key, offset, length)
}

// A bug that one message brings out does not end the node, wherever it is read.
func TestPanicEndsNoNode(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	bug := new(atomic.Bool)
	n.blobs.Store = panicking{n.blobs.Store, bug}
	c := n.connect(t)
	c.put("INBOX", "", "Subject: x\nMIME-Version: 1.0\nContent-Transfer-Encoding: base64\n\naGVsbG8=\n")
	c.ok("SELECT INBOX")
	bug.Store(true)
	for _, command := range []string{"FETCH 1 BODY.PEEK[]", "FETCH 1 BINARY.PEEK[1]", "SEARCH BODY hello"} {
		lines := c.do("%s", command)
		if last := lines[len(lines)-1]; !strings.HasPrefix(last, "NO [SERVERBUG] ") {
			t.Errorf("%s: %q", command, lines)
		}
	}
	bug.Store(false)
	c.want("SEARCH BODY hello", "* SEARCH 1", "OK SEARCH completed")
}

// A search for more texts than can be looked for in reasonable time is refused.
func TestSearchLimits(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	c := n.connect(t)
	c.put("INBOX", "", "Subject: x\n\nhello\n")
	c.ok("SELECT INBOX")
	c.want("SEARCH"+strings.Repeat(" BODY hello", maxSearchTexts), "* SEARCH 1", "OK SEARCH completed")
	c.want("SEARCH"+strings.Repeat(" BODY hello", maxSearchTexts)+" TEXT hello", "NO [LIMIT] …")
	c.want("SEARCH"+strings.Repeat(" SUBJECT x", maxSearchFields), "* SEARCH 1", "OK SEARCH completed")
	c.want("SEARCH"+strings.Repeat(" SUBJECT x", maxSearchFields+1), "NO [LIMIT] …")
}

// A keyword counts once, however often a command names it, and what a command names is looked up once.
func TestManyKeywords(t *testing.T) {
	t.Parallel()
	c := newTestNode(t).connect(t)
	c.put("INBOX", "", "Subject: x\n\nhello\n")
	c.ok("SELECT INBOX")
	again := strings.Repeat("abc ABC Abc ", 4000)
	c.ok("STORE 1 +FLAGS.SILENT (%sx)", again)
	c.want("FETCH 1 FLAGS", `* 1 FETCH (FLAGS (abc x \Recent))`, "OK …")
	var others strings.Builder
	for i := range 6000 {
		fmt.Fprintf(&others, "k%d ", i)
	}
	c.want("STORE 1 +FLAGS.SILENT ("+others.String()+"y)", "NO [LIMIT] …")
	c.ok("STORE 1 -FLAGS.SILENT (%sX)", others.String())
	c.want("FETCH 1 FLAGS", `* 1 FETCH (FLAGS (abc \Recent))`, "OK …")
	set, err := flagSet(strings.Fields(again))
	if err != nil || len(set.Keywords) != 1 {
		t.Errorf("%d keywords, error %v", len(set.Keywords), err)
	}
}

// Patterns that would have to be held against every name for seconds are refused.
func TestListLimits(t *testing.T) {
	t.Parallel()
	c := newTestNode(t).connect(t)
	long := strings.Repeat("*a", maxPatterns/2)
	c.want(`LIST "" "`+long+`"`, "OK LIST completed")
	c.want(`LIST a "`+long+`"`, "NO [LIMIT] …")
	c.want(`LIST "" (`+long+` %)`, "NO [LIMIT] …")
	c.want(`LIST "`+long[:maxPatterns/2]+`" (a b)`, "NO [LIMIT] …")
	c.want(`LSUB a "`+long+`"`, "NO [LIMIT] …")
}

// Messages whose summaries are long are searched a few at a time, and none is missed.
func TestSearchInBatches(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	c := n.connect(t)
	const messages = searchBytes/(30<<10) + 30 // their texts hardly shrink
	random := rand.NewChaCha8([32]byte{})
	for i := range messages {
		raw := make([]byte, 30<<10)
		_, _ = random.Read(raw)
		text := "nothing"
		if i%2 == 0 {
			text = "hello"
		}
		c.put("INBOX", "", "To: "+base64.StdEncoding.EncodeToString(raw)+"@example.org\n\n"+text+"\n")
	}
	c.ok("SELECT INBOX")
	var want strings.Builder
	for i := 1; i <= messages; i += 2 {
		fmt.Fprintf(&want, " %d", i)
	}
	c.want("SEARCH BODY hello", "* SEARCH"+want.String(), "OK SEARCH completed")
	c.want("SEARCH RETURN (COUNT) NOT TO x@y", fmt.Sprintf(`* ESEARCH (TAG "TAG") COUNT %d`, messages), "OK SEARCH completed")
}

// Sequence match data of a few bytes can name billions of messages: they must cost
// no memory. It does not run beside other tests, whose memory would be counted.
func TestQResyncMatchIsBounded(t *testing.T) { //nolint:paralleltest // counts memory
	v := &view{snap: mailstore.NewSnapshot(metadata.Mailbox{UIDNext: 10}, nil)}
	var huge imapwire.NumSet
	huge.AddRange(1, 1<<26)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if uid := matched(&imapwire.QResync{SeqMatch: true, SeqNums: huge, SeqUIDs: huge}, v); uid != 0 {
		t.Errorf("UID %d is proved in an empty mailbox", uid)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}

// proxied is a listener whose connections do not know the client's address before a
// header has come, as with the PROXY protocol.
type proxied struct {
	net.Listener
	header chan struct{} // closed once the first connection's has come
	first  atomic.Bool
}

type proxiedConn struct {
	net.Conn
	header chan struct{}
}

func (l *proxied) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil || l.first.Swap(true) {
		return conn, err
	}
	return proxiedConn{conn, l.header}, nil
}

func (c proxiedConn) RemoteAddr() net.Addr {
	<-c.header
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4711}
}

// A peer that has not said whose connection it is keeps nobody else waiting, and what is
// logged then is the client's address.
func TestAddressIsNotWaitedForInAccept(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, clusterOptions{})
	user := c.account(t, "proxied@example.org", metadata.Quota{}).Name
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &proxied{Listener: inner, header: make(chan struct{})}
	served := make(chan error, 1)
	go func() { served <- c.nodes[0].server.Serve(l, false) }()
	node := &clusterNode{imap: inner.Addr().String()}
	silent := node.dial(t)
	for !l.first.Load() {
		runtime.Gosched()
	}
	node.dial(t).until("* OK ")
	close(l.header)
	silent.until("* OK ")
	silent.login(user)
	logins := c.logs.FilterMessage("login").All()
	if len(logins) != 1 || logins[0].ContextMap()["remote"] != "192.0.2.7:4711" {
		t.Errorf("logged %v", logins)
	}
	if err := inner.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
