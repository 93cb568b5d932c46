package chaos

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// rude are what clients do that mean no good, by kind: each with a connection of its own that is logged in, until time is up.
var rude = map[Kind]func(ctx context.Context, w *wire){
	DeafClients: func(ctx context.Context, w *wire) {
		for range 50 {
			if w.send("FETCH 1:* (FLAGS BODY.PEEK[])") != nil {
				return
			}
		}
		<-ctx.Done() // nothing is read
	},
	TricklingClients: func(ctx context.Context, w *wire) {
		for text := fmt.Sprintf("t9 APPEND INBOX {%d}\r\n", 1<<20); text != "" && ctx.Err() == nil; text = text[1:] {
			if _, err := w.conn.Write([]byte(text[:1])); err != nil {
				return
			}
			pause(ctx, 100*time.Millisecond)
		}
	},
	HugeLiterals: func(ctx context.Context, w *wire) {
		const size = 100 << 20
		if w.send(fmt.Sprintf("APPEND INBOX {%d+}", size)) != nil {
			return
		}
		piece := []byte(strings.Repeat("x", 1<<16))
		for sent := 0; sent < size && ctx.Err() == nil; sent += len(piece) {
			if _, err := w.conn.Write(piece); err != nil {
				return
			}
		}
	},
	HalfLiterals: func(_ context.Context, w *wire) {
		text := mail(bigMail + "half")
		if w.send(fmt.Sprintf("APPEND INBOX {%d+}\r\n%s", len(text), text[:len(text)/2])) == nil {
			_ = w.conn.SetDeadline(time.Now().Add(50 * time.Millisecond))
			_, _ = io.Copy(io.Discard, w.conn) // until it was taken in; nobody answers half a command
		}
	},
}

// rudeClients are how many there are at a time.
const rudeClients = 5

// misbehave lets some clients be rude to a node for a while. They are cut off in the end, wherever they are.
func (b *breaker) misbehave(ctx context.Context, f Fault, n *Node) (done bool) {
	ctx, cancel := context.WithTimeout(ctx, f.For)
	defer cancel()
	var running sync.WaitGroup
	var mu sync.Mutex
	for range rudeClients {
		one := &client{user: b.user, nodes: []string{n.Links.Clients.Addr()}, conns: &b.conns}
		running.Go(func() {
			if one.connect(0, boxes()[0]) != nil {
				return
			}
			mu.Lock()
			done = true
			mu.Unlock()
			conn := one.wire.conn
			end := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) }) // who writes is to end
			rude[f.Kind](ctx, one.wire)
			end()
			one.drop()
		})
	}
	running.Wait()
	return done
}

// flood opens many connections to a node, some of which try to log in with a wrong password, and leaves them open for a while.
func (b *breaker) flood(ctx context.Context, f Fault, n *Node) (done bool) {
	const most, wrong = 300, 10
	var conns []net.Conn
	for i := range most {
		conn, err := (&net.Dialer{Timeout: commandTime}).DialContext(ctx, "tcp", n.Links.Clients.Addr())
		if err != nil {
			break
		}
		conns = append(conns, conn)
		if i%(most/wrong) == 0 {
			_, _ = fmt.Fprintf(conn, "a LOGIN nobody%d@example.org wrong\r\n", i) // whether it is answered or not
		}
	}
	pause(ctx, f.For)
	for _, conn := range conns {
		_ = conn.Close() // it is to be gone
	}
	return len(conns) > 0
}
