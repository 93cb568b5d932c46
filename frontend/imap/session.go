package imap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
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
// the connection, but for alarm, socket and cancel.
type session struct {
	server *Server
	log    *zap.Logger
	conn   net.Conn
	socket net.Conn // under conn, whatever that has become; it never changes
	remote netip.Addr
	dec    *imapwire.Decoder
	enc    *imapwire.Encoder
	alarm  alarm
	ctx    context.Context //nolint:containedctx // the connection's life, which cancel ends; commands are given it
	cancel context.CancelFunc

	loginBy time.Time // when the connection ends unless it is logged in
	secure  bool      // TLS
	state   state
	enabled extensions
	account *mailstore.Account // nil before the login
	view    *view              // nil unless selected
	command string             // the one that runs, for logs
	failed  int                // logins
	garbage int                // lines without a tag
	told    bool               // the command sent a MODSEQ
	upgrade bool               // to TLS, once STARTTLS is answered
	hangUp  bool               // once the command is answered
	over    bool               // the connection ends; what is to be said of it was said
}

// maxFailedLogins is how many wrong passwords one connection may try.
const maxFailedLogins = 10

func newSession(srv *Server, conn net.Conn, implicitTLS bool) *session {
	s := &session{server: srv, conn: conn, socket: conn, state: notAuthenticated, secure: implicitTLS}
	s.loginBy = time.Now().Add(srv.cfg.LoginTimeout)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if addr, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
		s.remote = addr.Addr().Unmap()
	}
	s.log = srv.cfg.Log.With(zap.Stringer("remote", conn.RemoteAddr()))
	if implicitTLS {
		s.conn = tls.Server(conn, srv.cfg.TLS)
	}
	s.alarm.conn = s.conn
	s.dec = imapwire.NewDecoder(input{s}, imapwire.Limits{})
	s.dec.Continue = s.invite
	s.enc = imapwire.NewEncoder(output{s})
	return s
}

// input reads from the connection. Inside of a command the client has
// ReadTimeout for each piece, but until it is logged in no longer than for that;
// between commands the alarm has set the deadline. What was answered is sent before
// anything more is waited for.
type input struct{ *session }

func (in input) Read(p []byte) (int, error) {
	if err := in.enc.Flush(); err != nil {
		return 0, err
	}
	if !in.alarm.isWaiting() {
		deadline := time.Now().Add(in.server.cfg.ReadTimeout)
		if in.state == notAuthenticated && deadline.After(in.loginBy) {
			deadline = in.loginBy
		}
		if err := in.conn.SetReadDeadline(deadline); err != nil {
			return 0, err
		}
	}
	return in.conn.Read(p)
}

func (a *alarm) isWaiting() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waiting
}

// output writes to the connection, and cuts off a client that does not read.
type output struct{ *session }

func (out output) Write(p []byte) (int, error) {
	if err := out.conn.SetWriteDeadline(time.Now().Add(out.server.cfg.WriteTimeout)); err != nil {
		return 0, err
	}
	return out.conn.Write(p)
}

// invite asks the client for a literal (RFC 9051 §7.6).
func (s *session) invite(imapwire.Literal) error {
	s.enc.Continue("Ready for the literal")
	return s.enc.Flush()
}

// cut ends the connection at once, without the farewell of TLS, for which a client
// that does not read would have to be waited for.
func (s *session) cut() {
	s.cancel()
	_ = s.socket.Close() // the goroutine that serves it finds out
}

// serve is the connection's life.
func (s *session) serve() {
	defer s.close()
	defer func() {
		if bug := recover(); bug != nil {
			s.log.Error("panic", zap.String("command", s.command), zap.Any("bug", bug), zap.ByteString("stack", debug.Stack()))
		}
	}()
	if err := s.handshake(); err != nil {
		s.log.Debug("handshake", zap.Error(err))
		return
	}
	s.enc.Status("", imapwire.OK, imapwire.CodeCapability(s.capabilities()), s.server.cfg.Name+" ready")
	for !s.over {
		if !s.next() {
			break
		}
	}
	if err := s.enc.Flush(); err != nil {
		s.log.Debug("last words", zap.Error(err))
	}
}

func (s *session) handshake() error {
	conn, ok := s.conn.(*tls.Conn)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithDeadline(s.ctx, s.loginBy)
	defer cancel()
	if err := s.server.cfg.Handshake(ctx, conn); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	return nil
}

func (s *session) close() {
	s.deselect()
	if s.account != nil {
		s.account.Close()
	}
	s.cancel()
	_ = s.enc.Release() // what could not be sent has nobody to hear it
	_ = s.conn.Close()
	s.dec.Release()
}

// next waits for a command and runs it. It reports whether there may be another.
func (s *session) next() bool {
	if len(s.dec.Buffered()) == 0 {
		if err := s.enc.Release(); err != nil {
			return false
		}
	}
	timeout := s.server.cfg.IdleTimeout
	if s.state == notAuthenticated {
		timeout = time.Until(s.loginBy)
	}
	why, err := s.alarm.wait(alarmEnded|alarmShutdown, timeout, s.dec.Wait)
	switch {
	case why != 0:
		s.farewell(why)
		return false
	case errors.Is(err, errTimeout):
		s.bye(imapwire.CodeUnavailable, "Nothing was heard for too long")
		return false
	case err != nil:
		if !errors.Is(err, io.EOF) {
			s.log.Debug("connection lost", zap.Error(err))
		}
		return false
	}
	return s.runCommand()
}

// farewell says BYE for one of the reasons for which a session is ended.
func (s *session) farewell(why alarmReason) {
	if why&alarmEnded != 0 {
		s.bye(imapwire.CodeExpired, "This login is no longer valid")
		return
	}
	s.bye(imapwire.CodeUnavailable, "The server stops here, please connect again")
}

func (s *session) bye(code imapwire.Code, text string) {
	s.enc.Status("", imapwire.BYE, code, text)
	s.over = true
}

// deselect closes the selected mailbox, if there is one.
func (s *session) deselect() {
	if s.view == nil {
		return
	}
	s.view.mailbox.Close()
	s.view = nil
	s.state = authenticated
}

// login makes the session one of account.
func (s *session) login(account metadata.Account) {
	s.account = s.server.cfg.Store.Account(account, func() { s.alarm.ring(alarmEnded) })
	s.state = authenticated
	s.failed = 0
	s.log = s.log.With(zap.String("account", account.Name))
	s.log.Info("login", zap.Bool("tls", s.secure))
}
