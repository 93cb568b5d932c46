package imapwire

import (
	"errors"
	"strconv"
)

// A SyntaxError says how a command breaks the grammar or a limit. The command is answered with a tagged BAD whose text is
// Error(), and the connection goes on after [Decoder.Discard].
type SyntaxError struct {
	Message string // printable ASCII, fit for the text of a response
	TooBig  bool   // a literal or a line over its limit: NO [TOOBIG] or [LIMIT] may be said in place of BAD
}

func (e *SyntaxError) Error() string { return e.Message }

// ErrSkipLimit is returned by [Decoder.Discard] when a command announces more than Limits.Skip bytes to be skipped: the
// connection cannot be brought back into step and must be closed, with an untagged BYE.
var ErrSkipLimit = errors.New("too much to skip")

// fail makes err the decoder's error if it has none.
func (d *Decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// Fail makes the command a syntax error with this message, unless it has an error already. Parsers outside of this
// package use it for what their part of the grammar forbids.
func (d *Decoder) Fail(message string) { d.fail(&SyntaxError{Message: message}) }

// expected fails with what the grammar asks for and what stands there instead.
func (d *Decoder) expected(what string) {
	c, ok := d.peek()
	if !ok {
		return
	}
	d.fail(&SyntaxError{Message: "expected " + what + ", found " + describe(c)})
}

func describe(c byte) string {
	switch {
	case c == '\r' || c == '\n':
		return "the end of the line"
	case c == ' ':
		return "a space"
	case c > ' ' && c < 0x7f:
		return "'" + string(rune(c)) + "'"
	default:
		return "byte 0x" + strconv.FormatUint(uint64(c), 16)
	}
}
