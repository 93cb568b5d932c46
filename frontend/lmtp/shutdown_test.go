package lmtp

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"starling/blobstore"
)

// A stop ends what is idle and waits for what has begun.
func TestShutdownWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	idle, busy, late := w.dial(0), w.dial(0), w.dial(0)
	busy.begin("a@example.org")
	busy.write("Subject: half\r\n")
	late.say("MAIL FROM:<sender@example.net>", "250")
	stopped := make(chan error, 1)
	go func() { stopped <- w.stop[0]() }()
	idle.want("421")
	select {
	case err := <-stopped:
		t.Fatalf("stopped with transactions open: %v", err)
	default:
	}
	late.say("RCPT TO:<a@example.org>", "250")
	late.say("DATA", "354")
	late.write(letter + ".\r\n")
	late.want("250")
	late.want("421")
	busy.write("\r\nof it\r\n.\r\n")
	busy.want("250")
	busy.want("421")
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	w.count("a@example.org", "INBOX", 2)
	if _, err := new(net.Dialer).DialContext(t.Context(), "tcp", w.addrs[0]); err == nil {
		t.Error("a connection was taken after the stop")
	}
}

// When its time is up a stop cuts off what is left, and waits for nothing more.
func TestShutdownCuts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	putting := make(chan struct{})
	w.blobs.onPut(func(ctx context.Context) error {
		close(putting)
		<-ctx.Done() // the store hangs
		return blobstore.ContextError(ctx)
	})
	silent, hanging := w.dial(0), w.dial(0)
	silent.begin("a@example.org")
	hanging.begin("a@example.org")
	hanging.write(letter + ".\r\n")
	<-putting
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.servers[0].Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("shut down with %v", err)
	}
	w.stop[0] = func() error { return nil }
	if _, err := io.ReadAll(silent.conn); err != nil {
		t.Error(err)
	}
	w.count("a@example.org", "INBOX", 0)
}

// Behind STARTTLS a stop ends what is idle, too.
func TestShutdownBehindTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.servers[0].smtp.TLSConfig = certificates(t).TLSConfig()
	secure := func() *agent {
		a := w.dial(0)
		a.say("STARTTLS", "220")
		a.conn = tls.Client(a.conn, &tls.Config{InsecureSkipVerify: true})
		a.in = bufio.NewReader(a.conn)
		a.say("LHLO client.example.net", "250")
		return a
	}
	idle, busy := secure(), secure()
	busy.begin("a@example.org")
	stopped := make(chan error, 1)
	go func() { stopped <- w.stop[0]() }()
	if _, err := idle.in.ReadString('\n'); err != nil && !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection ended with %v", err)
	}
	busy.write(letter + ".\r\n")
	busy.want("250")
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	w.count("a@example.org", "INBOX", 1)
}

// A node closes its listeners before it drains: that is no failure.
func TestServeEndsWithItsListener(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- w.servers[0].Serve(l) }()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
}

// A client that is silent inside of a transaction, or within a message, does not hold up a stop for
// long: it is told to try again.
func TestShutdownEndsTheSilent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.servers[0].conns.lull = 200 * time.Millisecond
	waits, half, several := w.dial(0), w.dial(0), w.dial(0)
	waits.say("MAIL FROM:<sender@example.net>", "250")
	waits.say("RCPT TO:<a@example.org>", "250")
	half.begin("a@example.org")
	half.write("Subject: half\r\n")
	several.begin("a@example.org", "b@example.org")
	several.write("Subject: half\r\n")
	stopped := make(chan error, 1)
	go func() { stopped <- w.stop[0]() }()
	waits.want("421")
	half.want("451 4.4.2")
	half.want("421")
	several.want("451 4.4.2")
	several.want("451 4.4.2")
	several.want("421")
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	w.count("a@example.org", "INBOX", 0)
}

// After a message that did not come in time nothing is taken for a command: it may be the message's rest.
func TestRestOfAMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.servers[0].conns.timeout = 300 * time.Millisecond
	a := w.dial(0)
	a.begin("a@example.org")
	a.write("Subject: half\r\n")
	a.want("451 4.4.2")
	_, _ = io.WriteString(a.conn, "\r\nRSET\r\nnonsense\r\n.\r\nNOOP\r\n") // who is gone is not told
	a.want("421")
	if line, err := a.in.ReadString('\n'); err == nil {
		t.Errorf("then the server said %q", line)
	}
	w.count("a@example.org", "INBOX", 0)
}
