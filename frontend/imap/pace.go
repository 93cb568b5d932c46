package imap

import (
	"net"
	"sync"
	"time"

	"starling/metadata"
)

const (
	// pieceOctets is how much a client has to send or to take in the time that it has for a
	// piece, if the command has so much: who moves an octet now and then does not go on for ever.
	pieceOctets = 64 << 10
	// stallPatience is how long a client may take for a piece while others wait for memory,
	// of which its command may hold some.
	stallPatience = 10 * time.Second
	// lastWords is how long a client that took too long may take to hear so.
	lastWords = time.Second
	// stallLooks is how often is looked who does, at most.
	stallLooks = 100 * time.Millisecond
)

// pace is how long a session has waited for its client to send or to take a piece of what a
// command reads or writes. Waiting for anything else does not count.
type pace struct {
	mu     sync.Mutex
	since  time.Time     // when the wait that is under way began; zero: there is none
	waited time.Duration // before that, for the same piece
	moved  int           // octets of the piece
}

// begin begins a wait for the rest of a piece, for which there is a time in all, and no more
// than until latest, if that is not zero.
func (p *pace) begin(whole time.Duration, latest time.Time, setDeadline func(time.Time) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since = time.Now()
	deadline := p.since.Add(whole - p.waited)
	if !latest.IsZero() && deadline.After(latest) {
		deadline = latest
	}
	return setDeadline(deadline)
}

// end ends a wait in which so many octets were moved.
func (p *pace) end(octets int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waited += time.Since(p.since)
	p.since = time.Time{}
	if p.moved += octets; p.moved >= pieceOctets {
		p.waited, p.moved = 0, 0
	}
}

// restart begins another piece.
func (p *pace) restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waited, p.moved = 0, 0
}

// cutIf ends the wait that is under way, and with it the session, if it has lasted for so long.
func (p *pace) cutIf(lasted time.Duration, socket net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.since.IsZero() && p.waited+time.Since(p.since) >= lasted {
		_ = socket.SetDeadline(longAgo) // fails on a closed connection only, which ends anyway
	}
}

// giveWay is called when somebody waits for memory, and none is left; or, if of is not 0, to an account that has
// its share. It gives back what is held for sessions that only may want it, and for clients that hold up a command.
func (srv *Server) giveWay(of metadata.AccountID) {
	srv.shelf.clear(of)
	srv.cutStalled(of)
}

// cutStalled ends the sessions whose clients hold up a command of theirs: those of an account, or all if of is 0. It is
// called when somebody waits for memory, and none is left: those who read, and those who send, are not
// to starve for others who do neither; and while the server stops.
func (srv *Server) cutStalled(of metadata.AccountID) {
	if of == 0 {
		now := time.Now()
		last := srv.looked.Load()
		if last != nil && now.Sub(*last) < stallLooks || !srv.looked.CompareAndSwap(last, &now) {
			return
		}
	}
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for s := range srv.sessions {
		if of == 0 || s.owner.Load() == int64(of) {
			s.pace.cutIf(srv.stall, s.socket)
		}
	}
}
