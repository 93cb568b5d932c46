package imap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// state is where a connection is in its life (RFC 9051 §3); a set of them in
// the table of commands.
type state uint8

const (
	notAuthenticated state = 1 << iota
	authenticated
	selected

	anyState = notAuthenticated | authenticated | selected
	loggedIn = authenticated | selected
)

// session is one connection. All of it belongs to the goroutine that serves
// the connection, one at a time, but for alarm, socket, pace, owner and end.
type session struct {
	server *Server
	conn   net.Conn
	socket net.Conn        // under conn, whatever that has become; it never changes
	id     uint64          // of this server's sessions
	raw    syscall.RawConn // under socket; nil if the session cannot be parked
	remote netip.AddrPort
	dec    *imapwire.Decoder
	enc    *imapwire.Encoder
	alarm  alarm
	space  space
	ctx    context.Context //nolint:containedctx // what commands are given; it ends when the connection does, or is parked
	end    end
	pace   pace
	does   activity // as it is counted
	counts counts

	loginBy  time.Time // when the connection ends unless it is logged in
	secure   bool      // TLS
	state    state
	enabled  extensions
	account  *mailstore.Account // nil before the login
	owner    atomic.Int64       // its id, for others
	view     *view              // nil unless selected
	idle     *idle              // nil unless IDLE runs
	begun    *ahead             // what the command that runs leaves to be done; nil: nothing
	ahead    []*ahead           // APPENDs that are not answered
	protocol *protocol          // nil unless it is logged
	command  string             // the one that runs, for logs
	failed   int                // logins
	garbage  int                // lines without a tag
	told     bool               // the command sent a MODSEQ
	roused   bool               // something can be read, by which a parked session was woken
	still    bool               // nothing was read since it was parked
	upgrade  bool               // to TLS, once STARTTLS is answered
	hangUp   bool               // once the command is answered
	over     bool               // the connection ends; what is to be said of it was said
	ending   ending             // why it does
}

// end is how others end the work that a session does.
type end struct {
	mu     sync.Mutex
	cancel context.CancelFunc // nil while the session is parked
	cut    bool
}

// begin is a context for work, which finish ends.
func (e *end) begin() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cut {
		cancel()
	}
	e.cancel = cancel
	return ctx
}

func (e *end) finish() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cancel()
	e.cancel = nil
}

func (e *end) cutOff() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cut = true
	if e.cancel != nil {
		e.cancel()
	}
}

func (e *end) wasCut() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cut
}

// counts is what a session's last line in the log tells.
type counts struct {
	commands       int
	received, sent int64 // bytes, inside of TLS
}

// maxFailedLogins is how many wrong passwords one connection may try.
const maxFailedLogins = 10

func newSession(srv *Server, conn net.Conn, implicitTLS bool) *session {
	s := &session{server: srv, conn: conn, socket: conn, state: notAuthenticated, secure: implicitTLS}
	s.id, s.loginBy = srv.count.Add(1), time.Now().Add(srv.cfg.LoginTimeout)
	if implicitTLS {
		s.conn = tls.Server(conn, srv.cfg.TLS)
	}
	s.alarm.conn = s.conn
	s.dec = imapwire.NewDecoder(input{s}, imapwire.Limits{})
	s.dec.Continue = s.invite
	s.enc = imapwire.NewEncoder(output{s})
	srv.metrics.sessions[s.does].Add(1)
	return s
}

// log is the log for what concerns this session. It is made when there is something
// to say, because a session that only waits should hold no more than it must.
func (s *session) log() *zap.Logger { return s.logTo(s.server.cfg.Log) }

func (s *session) logTo(log *zap.Logger) *zap.Logger {
	fields := append(make([]zap.Field, 0, 3), zap.Uint64("session", s.id), zap.Stringer("remote", s.remote))
	if s.account != nil {
		fields = append(fields, zap.String("account", s.account.Row().Name))
	}
	return log.WithLazy(fields...)
}

// recount has the figures tell what the session does now.
func (s *session) recount() {
	does := beforeTheLogin
	switch {
	case s.idle != nil:
		does = inIdle
	case s.state == selected:
		does = withMailbox
	case s.state == authenticated:
		does = withoutMailbox
	}
	if does != s.does {
		s.server.metrics.sessions[s.does].Add(-1)
		s.server.metrics.sessions[does].Add(1)
		s.does = does
	}
}

// input reads from the connection. Inside of a command the client has
// ReadTimeout for each piece (pace.go), but until it is logged in no longer than for that;
// between commands the alarm has set the deadline. What was asked for is answered, and
// sent, before anything more is waited for.
type input struct{ *session }

func (in input) Read(p []byte) (int, error) {
	if len(in.ahead) > 0 && !in.hasMore() && !in.settle(0) {
		return 0, io.EOF
	}
	if err := in.enc.Flush(); err != nil {
		return 0, err
	}
	waits := in.alarm.isWaiting()
	if !waits {
		var latest time.Time
		if in.state == notAuthenticated {
			latest = in.loginBy
		}
		if err := in.pace.begin(in.server.cfg.ReadTimeout, latest, in.conn.SetReadDeadline); err != nil {
			return 0, err
		}
	}
	if in.secure { // TLS may have to answer what it reads: the keys are renewed, say
		if err := in.conn.SetWriteDeadline(time.Now().Add(in.server.cfg.WriteTimeout)); err != nil {
			return 0, err
		}
	}
	in.still = false
	n, err := in.conn.Read(p)
	if !waits {
		in.pace.end(n)
	}
	in.counts.received += int64(n)
	in.server.metrics.received.Add(float64(n))
	return n, err
}

func (a *alarm) isWaiting() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waiting
}

// output writes to the connection, and cuts off a client that does not read, or hardly does.
type output struct{ *session }

func (out output) Write(p []byte) (written int, err error) {
	if out.protocol != nil {
		out.protocol.sent(p)
	}
	timeout := out.server.cfg.WriteTimeout
	if out.over && out.ending == endSlow {
		timeout = min(timeout, lastWords)
	}
	for written < len(p) && err == nil {
		if err = out.pace.begin(timeout, time.Time{}, out.conn.SetWriteDeadline); err != nil {
			break
		}
		var n int
		n, err = out.conn.Write(p[written:min(written+pieceOctets, len(p))])
		out.pace.end(n)
		written += n
	}
	out.counts.sent += int64(written)
	out.server.metrics.sent.Add(float64(written))
	return written, err
}

// invite asks the client for a literal (RFC 9051 §7.6), after all that it asked for before
// was answered.
func (s *session) invite(imapwire.Literal) error {
	if !s.settle(0) {
		return io.EOF
	}
	s.enc.Continue("Ready for the literal")
	return s.enc.Flush()
}

// cut ends the connection at once, without the farewell of TLS, for which a client
// that does not read would have to be waited for.
func (s *session) cut() {
	s.end.cutOff()
	_ = s.socket.Close()  // the goroutine that serves it finds out,
	s.ring(alarmShutdown) // and one that is parked has none
}

// serve is the connection's life, from its beginning to its end, or until it is parked.
func (s *session) serve() {
	s.work(func() bool {
		if err := s.greet(); err != nil {
			s.ending = endingOf(err)
			s.log().Debug("handshake", zap.Error(err))
			return false
		}
		return true
	})
}

// work does first, and then what the client asks for, until the connection ends or is
// parked.
func (s *session) work(first func() bool) {
	parked := false
	s.ctx = s.end.begin()
	defer func() {
		if bug := recover(); bug != nil {
			s.ending = endOfOurDoing
			s.server.metrics.panics.Inc()
			s.log().Error("panic", zap.String("command", s.command), zap.Any("bug", bug), zap.ByteString("stack", debug.Stack()))
		}
		if !parked {
			s.abandon()
			s.end.finish()
			s.close()
		}
	}()
	for on := first(); on; {
		if on, parked = s.next(); parked {
			return
		}
	}
	if err := s.enc.Flush(); err != nil {
		s.log().Debug("last words", zap.Error(err))
	}
}

// greet begins the conversation. Where a PROXY header comes first, asking for the
// client's address waits for it.
func (s *session) greet() error {
	if err := s.socket.SetReadDeadline(s.loginBy); err != nil {
		return err
	}
	if addr, err := netip.ParseAddrPort(s.socket.RemoteAddr().String()); err == nil {
		s.remote = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	}
	s.raw = rawConn(s.socket)
	if err := s.handshake(); err != nil {
		return err
	}
	s.enc.Status("", imapwire.OK, imapwire.CodeCapability(s.capabilities()), s.server.cfg.Name+" ready")
	return nil
}

// errStopping ends a handshake that had not come to its end when the server stopped.
var errStopping = errors.New("the server stops")

// handshake runs that of TLS, if the connection is to have one. It is no command that a
// shutdown waits for.
func (s *session) handshake() error {
	conn, ok := s.conn.(*tls.Conn)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithDeadline(s.ctx, s.loginBy)
	defer cancel()
	why, err := s.alarm.wait(alarmShutdown, time.Until(s.loginBy), func() error { return s.server.cfg.Handshake(ctx, conn) })
	if why != 0 {
		err = errStopping
	}
	if err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	return nil
}

// endingOf is how a connection ends whose handshake failed.
func endingOf(err error) ending {
	if errors.Is(err, errStopping) {
		return endShutdown
	}
	return endProtocol
}

func (s *session) close() {
	if s.end.wasCut() {
		s.ending = endShutdown
	}
	s.server.metrics.disconnects[s.ending].Inc()
	if s.account != nil {
		s.log().Debug("session ended", zap.String("reason", endings[s.ending]), zap.Int("commands", s.counts.commands),
			zap.Int64("received", s.counts.received), zap.Int64("sent", s.counts.sent))
	}
	s.deselect()
	if s.account != nil {
		row := s.account.Row()
		s.account.Close()
		s.server.logins.leave(&row)
	}
	s.server.metrics.sessions[s.does].Add(-1)
	_ = s.enc.Release() // what could not be sent has nobody to hear it
	_ = s.conn.Close()
	s.server.lot.leave(s)
	s.dec.Release()
	s.server.forget(s)
}

// next waits for what the client sends, or for an alarm, and does what it asks for. It
// reports whether there may be more, or whether the session was parked.
func (s *session) next() (on, parked bool) {
	s.pace.restart()
	if len(s.dec.Buffered()) == 0 {
		if !s.settle(0) {
			return false, false
		}
		if err := s.enc.Release(); err != nil {
			return s.lost(err), false
		}
	}
	heed, timeout := s.patience()
	short, parks := timeout, s.raw != nil && s.server.lot != nil
	switch {
	case !parks:
	case s.roused:
		short = min(timeout, lingering)
	default:
		short = min(timeout, s.server.linger)
	}
	s.roused = false
	why, err := alarmReason(0), errTimeout
	if !parks || !s.still {
		why, err = s.alarm.wait(heed, short, s.dec.Wait)
		timeout -= short
	}
	if parks && timeout > 0 && errors.Is(err, errTimeout) {
		if parked, why, err = s.park(heed, timeout); parked {
			return false, true
		}
	}
	return s.woken(why, err), false
}

// patience is what ends a wait, and how long it may last.
func (s *session) patience() (heed alarmReason, timeout time.Duration) {
	switch {
	case s.idle != nil:
		return alarmNews | alarmEnded | alarmShutdown, min(s.server.cfg.KeepAlive, time.Until(s.idle.ends))
	case s.state == notAuthenticated:
		return alarmEnded | alarmShutdown, time.Until(s.loginBy)
	default:
		return alarmEnded | alarmShutdown, s.server.cfg.IdleTimeout
	}
}

// woken goes on after a wait.
func (s *session) woken(why alarmReason, err error) bool {
	switch {
	case s.idle != nil:
		return s.wokenInIdle(why, err)
	case why != 0:
		return s.farewell(why)
	case errors.Is(err, errTimeout):
		return s.bye(endTimeout, imapwire.CodeUnavailable, "Nothing was heard for too long")
	case err != nil:
		return s.lost(err)
	}
	return s.runCommand()
}

// farewell says BYE for one of the reasons for which a session is ended.
func (s *session) farewell(why alarmReason) bool {
	if why&alarmEnded != 0 {
		return s.bye(endLogin, imapwire.CodeExpired, "This login is no longer valid")
	}
	return s.bye(endShutdown, imapwire.CodeUnavailable, "The server stops here, please connect again")
}

// bye tells the client that the connection ends. It returns false, as all do that end it.
func (s *session) bye(why ending, code imapwire.Code, text string) bool {
	s.enc.Status("", imapwire.BYE, code, text)
	s.over, s.ending = true, why
	return false
}

// lost ends a session whose client is gone, or with which it cannot be gone on.
func (s *session) lost(err error) bool {
	if !errors.Is(err, io.EOF) {
		s.log().Debug("connection lost", zap.String("command", s.command), zap.Error(err))
	}
	s.over, s.ending = true, endClient
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.ending = endSlow
	}
	return false
}

// deselect closes the selected mailbox, if there is one.
func (s *session) deselect() {
	if s.view == nil {
		return
	}
	s.view.dropKept()
	s.view.mailbox.Close()
	s.view = nil
	s.state = authenticated
}

// login makes the session one of account, unless that is over a limit.
func (s *session) login(account metadata.Account) error {
	if over, ok := s.server.logins.admit(&account); !ok {
		s.server.metrics.refused[over].Inc()
		s.log().Info("login over the limit", zap.String("account", account.Name), zap.String("of", refusals[over]))
		return errTooManySessions
	}
	s.account = s.server.cfg.Store.Account(account, func() { s.ring(alarmEnded) })
	s.owner.Store(int64(account.ID))
	s.state = authenticated
	s.failed = 0
	s.log().Info("login", zap.Bool("tls", s.secure))
	return nil
}
