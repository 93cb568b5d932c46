package imapwire

import "time"

// An AppendMessage is what APPEND says of a message before its bytes (RFC 9051 §6.3.12).
type AppendMessage struct {
	Flags   []string
	Date    time.Time // the internal date, the zero time when none is given
	UTF8    bool      // UTF8 (~{n} …): RFC 6855 §4
	Literal Literal   // announced and not read: OpenLiteral takes it, Discard refuses it
}

// AppendMessage reads, from before the space that follows the mailbox (or the message before, RFC 3502), up to the
// literal's header. The caller then reads the literal, calls AppendMessageEnd, and reads the end of the command.
func (d *Decoder) AppendMessage() AppendMessage {
	var m AppendMessage
	d.SP()
	if d.Peek() == '(' {
		m.Flags = d.FlagList()
		d.SP()
	}
	if d.Peek() == '"' {
		m.Date = d.DateTime()
		d.SP()
	}
	if c := d.Peek(); c == 'U' || c == 'u' {
		if b := d.take(classAtom); d.err == nil && !equalFold(string(b), "UTF8") {
			d.Fail("expected a literal or UTF8")
		}
		d.SP()
		d.Byte('(')
		m.UTF8 = true
		if d.Peek() != '~' {
			d.expected("a literal8")
		}
	}
	m.Literal = d.LiteralHeader()
	return m
}

// AppendMessageEnd reads what follows the literal of m and belongs to it.
func (d *Decoder) AppendMessageEnd(m AppendMessage) {
	if m.UTF8 {
		d.Byte(')')
	}
}
