package imap

import (
	"context"
	"errors"
	"os"
	"time"

	"go.opentelemetry.io/otel/trace"

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

// running is a command under way.
type running struct {
	tag, name string
	row       spec
	began     time.Time
	span      trace.Span // nil without traces
}

// runCommand reads one command, runs it, and answers it. It reports whether the
// connection can go on.
func (s *session) runCommand() bool {
	s.counts.commands++
	s.watchProtocol()
	tag, name, err := s.dec.Command()
	s.command = name
	var cmd command
	row, known := commands[name]
	if name != "APPEND" && !s.settle(0) {
		return false
	}
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
		return s.settle(0) && s.refuse(err)
	}
	s.logReceived()
	r := running{tag: tag, name: name, row: row, began: time.Now()}
	ctx := s.ctx
	if t := s.server.tracer; t != nil {
		ctx, r.span = t.command(ctx, name)
	}
	code, err := cmd.run(ctx, s)
	if s.idle != nil && !s.over {
		endSpan(r.span, imapwire.OK, "") // what comes is the commits' that are told of
		r.span = nil
		s.idle.running = r
		return true
	}
	s.idle = nil
	if a := s.begun; a != nil {
		s.begun = nil
		return s.goAhead(&r, a)
	}
	if !s.settle(0) {
		s.unanswered(&r)
		return false
	}
	which := row.news
	if c, ok := cmd.(held); ok {
		which = c.news()
	}
	return s.complete(&r, which, code, err)
}

// complete brings a command that has run to its end.
func (s *session) complete(r *running, which news, code imapwire.Code, err error) bool {
	if r.row.reads && !s.over {
		skip := s.backInStep()
		s.logReceived()
		if skip != nil {
			if errors.Is(skip, imapwire.ErrSkipLimit) {
				s.answer(r, code, err)
			} else {
				s.unanswered(r)
			}
			return s.outOfStep(skip)
		}
	}
	s.tellNews(which)
	if err := s.enc.Err(); err != nil {
		s.unanswered(r)
		return s.lost(err)
	}
	if s.over && r.name != "LOGOUT" {
		s.unanswered(r) // BYE was said in place of an answer
		return false
	}
	s.answer(r, code, err)
	return s.afterwards()
}

// unanswered counts a command in whose place the connection ends.
func (s *session) unanswered(r *running) {
	s.server.metrics.command(r.name, imapwire.BYE, r.began)
	endSpan(r.span, imapwire.BYE, "")
}

// afterwards does what has to wait until a command is answered. It reports
// whether the connection can go on.
func (s *session) afterwards() bool {
	if s.hangUp {
		return s.bye(endProtocol, "", "Too many failed logins")
	}
	s.recount()
	if !s.upgrade {
		return !s.over
	}
	if err := s.startTLS(); err != nil {
		s.lost(err)
		s.ending = endingOf(err)
		return false
	}
	return true
}

// answer writes the tagged response.
func (s *session) answer(r *running, code imapwire.Code, err error) {
	status := StatusError{Status: imapwire.OK}
	if err != nil {
		status = *s.statusOf(err)
		if highest := s.takeHighest(); highest != "" { // a tagged NO says something else
			s.enc.Status("", imapwire.OK, highest, "Changes up to here were told")
		}
		s.enc.Status(r.tag, status.Status, status.Code, status.Text)
	} else {
		s.enc.Status(r.tag, imapwire.OK, s.tellHighest(code), r.name+" completed")
	}
	s.server.metrics.command(r.name, status.Status, r.began)
	endSpan(r.span, status.Status, status.Code)
}

// maxGarbage is how many lines without so much as a tag a client may send.
const maxGarbage = 20

// refuse answers a command that could not be understood or does not belong
// here, and brings the connection back into step.
func (s *session) refuse(err error) bool {
	skip := s.dec.Discard()
	s.logReceived()
	if skip != nil && !errors.Is(skip, imapwire.ErrSkipLimit) {
		return s.outOfStep(skip)
	}
	status := s.statusOf(err)
	s.enc.Status(s.dec.Tag(), status.Status, status.Code, status.Text)
	s.server.metrics.command(s.command, status.Status, time.Time{})
	if skip != nil {
		return s.outOfStep(skip)
	}
	if s.dec.Tag() == "" {
		s.garbage++
		if s.garbage >= maxGarbage {
			return s.bye(endProtocol, "", "This is not IMAP")
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

// outOfStep ends a connection on which the next command cannot be found. It returns false.
func (s *session) outOfStep(err error) bool {
	switch {
	case errors.Is(err, imapwire.ErrSkipLimit):
		return s.bye(endProtocol, imapwire.CodeTooBig, "There is too much to skip")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return s.bye(endSlow, imapwire.CodeUnavailable, "The rest of the command has not come in time")
	}
	return s.lost(err)
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
