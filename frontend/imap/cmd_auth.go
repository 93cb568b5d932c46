package imap

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap"

	"starling/frontend/auth"
	"starling/frontend/imapwire"
	"starling/metadata"
)

// capabilityCmd is CAPABILITY (RFC 9051 §6.1.1).
type capabilityCmd struct{}

func (capabilityCmd) run(_ context.Context, s *session) (imapwire.Code, error) {
	s.enc.Capability(s.capabilities())
	return "", nil
}

// noopCmd is NOOP and CHECK (RFC 9051 §6.1.2, RFC 3501 §6.4.1): it reads what
// others changed; the news at its end tell of it.
type noopCmd struct{}

func (noopCmd) run(ctx context.Context, s *session) (imapwire.Code, error) {
	return "", s.refresh(ctx)
}

// logoutCmd is LOGOUT (RFC 9051 §6.1.3).
type logoutCmd struct{}

func (logoutCmd) run(_ context.Context, s *session) (imapwire.Code, error) {
	s.bye(endLogout, "", "Until next time")
	return "", nil
}

// idCmd is ID (RFC 2971 §3.1). What the client says of itself is logged.
type idCmd struct{ fields []imapwire.IDField }

func parseID(d *imapwire.Decoder) (command, error) {
	c := idCmd{fields: d.ID()}
	return c, d.End()
}

func (c idCmd) run(_ context.Context, s *session) (imapwire.Code, error) {
	for _, f := range c.fields {
		s.log().Debug("client", zap.String("field", f.Name), zap.String("value", f.Value))
	}
	fields := []imapwire.IDField{{Name: "name", Value: s.server.cfg.Name}}
	if v := s.server.cfg.Version; v != "" && s.state != notAuthenticated {
		fields = append(fields, imapwire.IDField{Name: "version", Value: v})
	}
	s.enc.ID(fields)
	return "", nil
}

// enableCmd is ENABLE (RFC 5161 §3.1, RFC 9051 §6.3.1).
type enableCmd struct{ names []string }

func parseEnable(d *imapwire.Decoder) (command, error) {
	c := enableCmd{names: d.Enable()}
	return c, d.End()
}

func (c enableCmd) run(_ context.Context, s *session) (imapwire.Code, error) {
	var done []string
	for _, name := range c.names {
		for _, row := range capabilities {
			if strings.EqualFold(row.name, name) && row.enables != 0 && s.enabled&row.enables == 0 {
				s.enable(row.enables)
				done = append(done, row.name)
			}
		}
	}
	s.enc.Enabled(done)
	return "", nil
}

// startTLSCmd is STARTTLS (RFC 9051 §6.2.1).
type startTLSCmd struct{}

func (startTLSCmd) run(_ context.Context, s *session) (imapwire.Code, error) {
	if s.server.cfg.TLS == nil {
		return "", badf("STARTTLS is not offered here")
	}
	if s.secure {
		return "", badf("TLS is active already")
	}
	s.upgrade = true
	return "", nil
}

// startTLS makes the connection a TLS one, once the answer to STARTTLS is
// written. What the client sent before the handshake is forgotten: it may have
// been put there by somebody else.
func (s *session) startTLS() error {
	if err := s.enc.Flush(); err != nil {
		return err
	}
	s.upgrade = false
	s.conn = tls.Server(s.conn, s.server.cfg.TLS)
	s.alarm.setConn(s.conn)
	s.dec.Reset(input{s})
	if err := s.handshake(); err != nil {
		return err
	}
	s.secure = true
	return nil
}

// loginCmd is LOGIN (RFC 9051 §6.2.3).
type loginCmd struct{ imapwire.Login }

func parseLogin(d *imapwire.Decoder) (command, error) {
	c := loginCmd{Login: d.Login()}
	return c, d.End()
}

func (c loginCmd) run(ctx context.Context, s *session) (imapwire.Code, error) {
	if !s.canLogin() {
		return "", errPrivacy
	}
	account, err := s.server.cfg.Auth.Login(ctx, auth.Attempt{Address: c.Username, Password: c.Password, Remote: s.remote.Addr()})
	if err != nil {
		return "", s.loginFailed(err)
	}
	if err := s.login(account); err != nil {
		return "", err
	}
	return imapwire.CodeCapability(s.capabilities()), nil
}

var errPrivacy = nof(imapwire.CodePrivacyRequired, "Passwords are taken under TLS only")

// loginFailed counts, and ends a connection that only guesses.
func (s *session) loginFailed(err error) error {
	if errors.Is(err, auth.ErrInvalid) || errors.Is(err, auth.ErrThrottled) {
		s.failed++
		if s.failed >= maxFailedLogins {
			s.hangUp = true
		}
	}
	return err
}

// authenticateCmd is AUTHENTICATE (RFC 9051 §6.2.2, RFC 4959).
type authenticateCmd struct {
	mechanism string
	initial   []byte
}

func parseAuthenticate(d *imapwire.Decoder) (command, error) {
	var c authenticateCmd
	c.mechanism, c.initial = d.SASLMechanism()
	return c, d.End()
}

func (c authenticateCmd) run(ctx context.Context, s *session) (imapwire.Code, error) {
	mechanism, known := auth.MechanismByName(c.mechanism)
	if !known {
		return "", nof("", "There is no mechanism %s", c.mechanism)
	}
	if mechanism.Plaintext && !s.canLogin() {
		return "", errPrivacy
	}
	exchange, err := s.server.cfg.Auth.Start(c.mechanism, s.remote.Addr())
	if err != nil {
		return "", fmt.Errorf("start %s: %w", c.mechanism, err)
	}
	account, err := s.converse(ctx, exchange, c.initial)
	switch {
	case errors.Is(err, auth.ErrSyntax):
		return "", badf("%v", err)
	case errors.Is(err, auth.ErrAuthorization):
		return "", nof(imapwire.CodeAuthorizationFailed, "You may not act for that account")
	case err != nil:
		return "", s.loginFailed(err)
	}
	if err := s.login(account); err != nil {
		return "", err
	}
	return imapwire.CodeCapability(s.capabilities()), nil
}

// converse runs the exchange of challenges and responses to its end.
func (s *session) converse(ctx context.Context, exchange auth.Exchange, response []byte) (metadata.Account, error) {
	for {
		challenge, done, account, err := exchange.Next(ctx, response)
		if err != nil || done {
			return account, err
		}
		s.enc.Continue(base64.StdEncoding.EncodeToString(challenge))
		if err := s.enc.Flush(); err != nil {
			return account, err
		}
		var cancelled bool
		if response, cancelled, err = s.dec.SASLResponse(); err != nil {
			return account, err
		}
		if cancelled {
			return account, badf("Authentication was given up")
		}
	}
}
