package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"testing"
	"time"
)

// greeted is the client's end of a connection, which tells when it has sent something, and
// hears nothing.
type greeted struct {
	net.Conn
	sent sync.Once
	said chan struct{}
	end  chan struct{}
}

func (g *greeted) Write(p []byte) (int, error) {
	defer g.sent.Do(func() { close(g.said) })
	return g.Conn.Write(p)
}

func (g *greeted) Read([]byte) (int, error) {
	<-g.end
	return 0, net.ErrClosed
}

// shake runs both sides of a handshake on a connection as a Listener gives it out.
func (v *vault) shake(ctx context.Context) (server, client error) {
	v.t.Helper()
	near, far := v.sockets()
	served := make(chan error, 1)
	go func() {
		served <- v.Handshake(ctx, tls.Server(&conn{Conn: far, release: func() {}}, v.TLSConfig()))
		_ = far.Close()
	}()
	client = tls.Client(near, &tls.Config{InsecureSkipVerify: true}).Handshake()
	return <-served, client
}

// Only so many handshakes are answered at a time. Who says nothing more once it was answered
// takes no turn from others; who has none in time is turned away.
func TestHandshakesTakeTurns(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	put(t, folder, "tls", "only")
	v := open(t, CertificatesConfig{Folders: []string{folder}})
	v.turns = make(chan struct{}, 1)

	var silent sync.WaitGroup
	end := make(chan struct{})
	beside, stop := context.WithCancel(t.Context())
	defer silent.Wait()
	defer close(end)
	defer stop()
	for range 20 {
		near, far := v.sockets()
		g := &greeted{Conn: near, said: make(chan struct{}), end: end}
		silent.Go(func() { _ = tls.Client(g, &tls.Config{InsecureSkipVerify: true}).Handshake() }) // it never ends well
		silent.Go(func() {
			_ = v.Handshake(beside, tls.Server(&conn{Conn: far, release: func() {}}, v.TLSConfig())) // nor does this
		})
		<-g.said
	}
	for range 5 {
		if server, client := v.shake(t.Context()); server != nil || client != nil {
			t.Fatalf("beside silent clients: %v, %v", server, client)
		}
	}

	v.turns <- struct{}{} // another's
	v.wait = 50 * time.Millisecond
	if server, client := v.shake(t.Context()); !errors.Is(server, errHandshakes) || client == nil {
		t.Errorf("without a turn: %v, %v", server, client)
	}
	v.wait = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if server, _ := v.shake(ctx); !errors.Is(server, context.DeadlineExceeded) {
		t.Errorf("without time: %v", server)
	}
	time.AfterFunc(50*time.Millisecond, func() { <-v.turns })
	if server, client := v.shake(t.Context()); server != nil || client != nil {
		t.Errorf("when the other is done: %v, %v", server, client)
	}
	if len(v.turns) != 0 {
		t.Error("a turn is not given back")
	}
	v.figure("starling_tls_handshakes_total", `result="refused"`, 1)
	v.figure("starling_tls_handshakes_total", `result="ok"`, 6)
	v.figure("starling_tls_handshakes_waiting", "", 0)
}
