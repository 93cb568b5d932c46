package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Direction is one of the two ways through a proxy.
type Direction int

// The two ways.
const (
	Up   Direction = iota // from those who connect to the backend
	Down                  // from the backend
)

// Toxic is what a proxy does to one direction. The zero value passes everything on.
type Toxic struct {
	Delay    time.Duration // before each piece is passed on
	Rate     int           // octets in a second; 0: as fast as it goes
	Hole     bool          // nothing is passed on, and nobody is told: what comes is read and lost
	Truncate int64         // the connection is cut after so many octets more, counted for each connection; 0: never
}

// Proxy passes the connections that it accepts on to one backend, and can be told to do it badly while they are open.
type Proxy struct {
	listener net.Listener
	done     context.CancelFunc
	ended    context.Context //nolint:containedctx // the proxy's own life
	running  sync.WaitGroup

	mu      sync.Mutex
	network string
	backend string
	toxics  [2]Toxic
	rewrite [2]func([]byte) []byte
	changed chan struct{} // closed when toxics change
	refuse  bool
	refused int // connections that were
	pairs   map[*pair]struct{}
	cuts    int // connections that were cut
}

// pair is a connection with its other half.
type pair struct {
	ends [2]net.Conn // of who connected, of the backend
	left [2]int64    // until it is truncated; of the goroutine of that direction
	once sync.Once
}

func (p *pair) close() {
	p.once.Do(func() {
		for _, c := range p.ends {
			if c == nil {
				continue
			}
			if t, ok := c.(*net.TCPConn); ok {
				_ = t.SetLinger(0) // both sides see a connection that broke, not one that ended well
			}
			_ = c.Close() // it is to be gone
		}
	})
}

// NewProxy listens on a free port of 127.0.0.1. The backend may be named later.
func NewProxy() (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for a proxy: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Proxy{listener: l, done: cancel, ended: ctx, changed: make(chan struct{}), pairs: make(map[*pair]struct{})}
	p.running.Go(p.accept)
	return p, nil
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Backend names where new connections go; network is "tcp" or "unix".
func (p *Proxy) Backend(network, address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.network, p.backend = network, address
}

// Set says what happens in one direction from now on, to open connections too.
func (p *Proxy) Set(d Direction, t Toxic) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.toxics[d] = t
	close(p.changed)
	p.changed = make(chan struct{})
}

// Rewrite changes each piece that goes in one direction, as a program with a bug would have sent it. A piece is what one
// read gave, so that f may see a text in two parts.
func (p *Proxy) Rewrite(d Direction, f func(piece []byte) []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rewrite[d] = f
}

// Cut breaks all connections. With refuse, new ones are broken as soon as they come, until Heal.
func (p *Proxy) Cut(refuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = refuse
	for pair := range p.pairs {
		pair.close()
		p.cuts++
	}
}

// Heal passes everything on again. A connection of which something was lost in a hole is broken, as it would go on
// with a gap that TCP never has.
func (p *Proxy) Heal() {
	holed := p.holed()
	p.Set(Up, Toxic{})
	p.Set(Down, Toxic{})
	if holed {
		p.Cut(false)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = false
}

func (p *Proxy) holed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.toxics[Up].Hole || p.toxics[Down].Hole
}

// Cuts is how many connections were broken on purpose.
func (p *Proxy) Cuts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts
}

// Refused is how many connections were broken as soon as they came.
func (p *Proxy) Refused() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}

// Close ends all connections and waits until nothing of the proxy runs.
func (p *Proxy) Close() {
	p.done()
	_ = p.listener.Close() // it is to be gone
	p.Cut(true)
	p.running.Wait()
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.serve(c) })
	}
}

func (p *Proxy) serve(c net.Conn) {
	p.mu.Lock()
	network, backend, refuse := p.network, p.backend, p.refuse
	if refuse {
		p.refused++
	}
	p.mu.Unlock()
	pair := &pair{ends: [2]net.Conn{c, nil}}
	if refuse || backend == "" {
		pair.close()
		return
	}
	b, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(p.ended, network, backend)
	if err != nil {
		pair.close()
		return
	}
	pair.ends[1] = b
	p.mu.Lock()
	refuse = p.refuse
	if !refuse {
		p.pairs[pair] = struct{}{}
	}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.pairs, pair)
	}()
	if refuse {
		pair.close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.pass(pair, Up) })
	both.Go(func() { p.pass(pair, Down) })
	both.Wait()
}

// pass moves what comes from one end to the other, until one of them ends. An end of one direction is passed on as such.
func (p *Proxy) pass(pair *pair, d Direction) {
	from, to := pair.ends[d], pair.ends[1-d]
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && !p.move(pair, d, to, p.rewritten(d, buffer[:n])) {
			pair.close()
			return
		}
		if err == nil {
			continue
		}
		w, ok := to.(interface{ CloseWrite() error })
		if !errors.Is(err, io.EOF) || !ok || w.CloseWrite() != nil {
			pair.close()
		}
		return
	}
}

func (p *Proxy) rewritten(d Direction, piece []byte) []byte {
	p.mu.Lock()
	f := p.rewrite[d]
	p.mu.Unlock()
	if f == nil {
		return piece
	}
	return f(piece)
}

// move does what the toxic says with a piece; false ends the connection.
func (p *Proxy) move(pair *pair, d Direction, to net.Conn, piece []byte) bool {
	t, changed := p.toxic(d)
	if t.Hole {
		return true
	}
	wait := t.Delay
	if t.Rate > 0 {
		wait += time.Duration(len(piece)) * time.Second / time.Duration(t.Rate)
	}
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-changed:
		case <-p.ended.Done():
			return false
		}
	}
	if t, _ = p.toxic(d); t.Hole {
		return true
	}
	if t.Truncate == 0 {
		pair.left[d] = 0
	} else {
		if pair.left[d] == 0 {
			pair.left[d] = t.Truncate
		}
		if int64(len(piece)) >= pair.left[d] {
			_, _ = to.Write(piece[:pair.left[d]]) // the last of it
			return false
		}
		pair.left[d] -= int64(len(piece))
	}
	_, err := to.Write(piece)
	return err == nil
}

func (p *Proxy) toxic(d Direction) (Toxic, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.toxics[d], p.changed
}
