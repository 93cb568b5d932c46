package imap

import (
	"context"
	"errors"
	"io"

	"go.uber.org/zap"

	"starling/frontend/imapwire"
)

// command is a command's arguments, as parsing makes them. run does what the
// command asks for and writes its untagged responses; the tagged one is the
// dispatcher's: OK with the code, or what status.go makes of the error.
type command interface {
	run(ctx context.Context, s *session) (imapwire.Code, error)
}

// held is a command of which the arguments decide what may be told at its end,
// instead of its row in the table.
type held interface {
	news() news
}

// news says what the client may be told at the end of a command (RFC 9051 §5.2,
// §7.5.1).
type news uint8

const (
	newsWhole news = iota // whatever is new
	newsKept              // only what renumbers no message
	newsNone              // nothing: the command has said all, or there is no mailbox
)

// spec is a row of the table of commands.
type spec struct {
	states state
	news   news
	// parse reads the arguments from after the name, and the end of the line.
	parse func(d *imapwire.Decoder) (command, error)
	// reads marks a command that reads on from the client while it runs: the
	// dispatcher skips what it left unread.
	reads bool
}

// commands is the table of all commands, by name.
var commands = map[string]spec{
	// Any state: RFC 9051 §6.1.
	"CAPABILITY": {anyState, newsKept, bare(capabilityCmd{}), false},
	"NOOP":       {anyState, newsWhole, bare(noopCmd{}), false},
	"LOGOUT":     {anyState, newsNone, bare(logoutCmd{}), false},
	"ID":         {anyState, newsKept, parseID, false},

	// Not authenticated: RFC 9051 §6.2.
	"STARTTLS":     {notAuthenticated, newsNone, bare(startTLSCmd{}), false},
	"AUTHENTICATE": {notAuthenticated, newsNone, parseAuthenticate, true},
	"LOGIN":        {notAuthenticated, newsNone, parseLogin, false},

	// Authenticated: RFC 9051 §6.3.
	"ENABLE":      {loggedIn, newsKept, parseEnable, false},
	"SELECT":      {loggedIn, newsNone, parseSelect(false), false},
	"EXAMINE":     {loggedIn, newsNone, parseSelect(true), false},
	"CREATE":      {loggedIn, newsWhole, parseCreate, false},
	"DELETE":      {loggedIn, newsWhole, parseDelete, false},
	"RENAME":      {loggedIn, newsWhole, parseRename, false},
	"SUBSCRIBE":   {loggedIn, newsWhole, parseSubscribe, false},
	"UNSUBSCRIBE": {loggedIn, newsWhole, parseUnsubscribe, false},
	"LIST":        {loggedIn, newsWhole, parseList, false},
	"LSUB":        {loggedIn, newsWhole, parseLSub, false},
	"NAMESPACE":   {loggedIn, newsWhole, bare(namespaceCmd{}), false},
	"STATUS":      {loggedIn, newsWhole, parseStatus, false},
	"APPEND":      {loggedIn, newsWhole, parseAppend, true},
	"IDLE":        {loggedIn, newsWhole, bare(idleCmd{}), true},

	// Selected: RFC 9051 §6.4.
	"CHECK":       {selected, newsWhole, bare(noopCmd{}), false},
	"CLOSE":       {selected, newsNone, bare(closeCmd{expunge: true}), false},
	"UNSELECT":    {selected, newsNone, bare(closeCmd{}), false},
	"EXPUNGE":     {selected, newsWhole, bare(expungeCmd{}), false},
	"UID EXPUNGE": {selected, newsWhole, parseUIDExpunge, false},
	"SEARCH":      {selected, newsKept, parseSearch(bySeq), false},
	"UID SEARCH":  {selected, newsWhole, parseSearch(byUID), false},
	"FETCH":       {selected, newsKept, parseFetch(bySeq), false},
	"UID FETCH":   {selected, newsWhole, parseFetch(byUID), false},
	"STORE":       {selected, newsKept, parseStore(bySeq), false},
	"UID STORE":   {selected, newsWhole, parseStore(byUID), false},
	"COPY":        {selected, newsWhole, parseCopy(bySeq, false), false},
	"UID COPY":    {selected, newsWhole, parseCopy(byUID, false), false},
	"MOVE":        {selected, newsWhole, parseCopy(bySeq, true), false},
	"UID MOVE":    {selected, newsWhole, parseCopy(byUID, true), false},
}

// bare parses a command without arguments.
func bare(c command) func(*imapwire.Decoder) (command, error) {
	return func(d *imapwire.Decoder) (command, error) { return c, d.End() }
}

// runCommand reads one command, runs it, and answers it. It reports whether the
// connection can go on.
func (s *session) runCommand() bool {
	tag, name, err := s.dec.Command()
	s.command = name
	var cmd command
	row, known := commands[name]
	switch {
	case err != nil:
	case !known:
		err = badf("There is no command %s", name)
	case row.states&s.state == 0:
		err = badState(name, row.states, s.state)
	default:
		cmd, err = row.parse(s.dec)
	}
	if err != nil {
		return s.refuse(err)
	}
	code, err := cmd.run(s.ctx, s)
	if row.reads {
		if skip := s.backInStep(); skip != nil {
			if errors.Is(skip, imapwire.ErrSkipLimit) {
				s.answer(tag, name, code, err)
			}
			return s.outOfStep(skip)
		}
	}
	which := row.news
	if c, ok := cmd.(held); ok {
		which = c.news()
	}
	s.tellNews(which)
	if s.enc.Err() != nil {
		s.log.Debug("connection lost", zap.String("command", name), zap.Error(s.enc.Err()))
		return false
	}
	if s.over && name != "LOGOUT" {
		return false // BYE was said in place of an answer
	}
	s.answer(tag, name, code, err)
	return s.afterwards()
}

// afterwards does what has to wait until a command is answered. It reports
// whether the connection can go on.
func (s *session) afterwards() bool {
	if s.hangUp {
		s.bye("", "Too many failed logins")
		return false
	}
	if !s.upgrade {
		return true
	}
	if err := s.startTLS(); err != nil {
		s.log.Debug("connection lost", zap.String("command", s.command), zap.Error(err))
		return false
	}
	return true
}

// answer writes the tagged response.
func (s *session) answer(tag, name string, code imapwire.Code, err error) {
	if err != nil {
		status := s.statusOf(err)
		if highest := s.takeHighest(); highest != "" { // a tagged NO says something else
			s.enc.Status("", imapwire.OK, highest, "Changes up to here were told")
		}
		s.enc.Status(tag, status.Status, status.Code, status.Text)
		return
	}
	s.enc.Status(tag, imapwire.OK, s.tellHighest(code), name+" completed")
}

// maxGarbage is how many lines without so much as a tag a client may send.
const maxGarbage = 20

// refuse answers a command that could not be understood or does not belong
// here, and brings the connection back into step.
func (s *session) refuse(err error) bool {
	skip := s.dec.Discard()
	if skip != nil && !errors.Is(skip, imapwire.ErrSkipLimit) {
		return s.outOfStep(skip)
	}
	status := s.statusOf(err)
	s.enc.Status(s.dec.Tag(), status.Status, status.Code, status.Text)
	if skip != nil {
		return s.outOfStep(skip)
	}
	if s.dec.Tag() == "" {
		s.garbage++
		if s.garbage >= maxGarbage {
			s.bye("", "This is not IMAP")
			return false
		}
	}
	return true
}

// backInStep skips what a command left unread of what it asked the client for. An
// error says that the connection cannot go on.
func (s *session) backInStep() error {
	if err := s.dec.Discard(); err != nil {
		return err
	}
	var syntax *imapwire.SyntaxError
	if err := s.dec.Err(); err != nil && !errors.As(err, &syntax) {
		return err // nobody is there to be answered
	}
	return nil
}

// lost ends a session whose client is gone.
func (s *session) lost(err error) {
	if !errors.Is(err, io.EOF) {
		s.log.Debug("connection lost", zap.String("command", s.command), zap.Error(err))
	}
	s.over = true
}

// outOfStep ends a connection on which the next command cannot be found. It returns false.
func (s *session) outOfStep(err error) bool {
	if errors.Is(err, imapwire.ErrSkipLimit) {
		s.bye(imapwire.CodeTooBig, "There is too much to skip")
	} else {
		s.log.Debug("connection lost", zap.String("command", s.command), zap.Error(err))
	}
	return false
}

func badState(name string, allowed, now state) error {
	switch {
	case now == notAuthenticated:
		return badf("%s needs a login first", name)
	case allowed == notAuthenticated:
		return badf("%s is not possible after the login", name)
	default:
		return badf("%s needs a selected mailbox", name)
	}
}
