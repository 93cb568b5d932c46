package imap

import (
	"bytes"
	"strconv"
	"time"

	"go.uber.org/zap"
)

// protocol logs what client and server say to each other, without what is the
// client's own affair (redact.go), for the time that an operator has set for the account.
type protocol struct {
	log     *zap.Logger
	tag     string // of the last command
	line    []byte // of the server's, as far as it was sent
	cut     bool   // and too long to be kept wholly
	literal int    // bytes of a literal that are still to be sent
}

const (
	// maxProtocolLine is how many bytes of a line are looked at, and how many of what is
	// left are logged.
	maxProtocolLine = 4 << 10
	// maxLiteralHeader is the longest header of a literal, with the end of its line.
	maxLiteralHeader = 32
)

// watchProtocol begins or ends logging the protocol, as the account has it. It is asked
// between commands, when nothing is half sent.
func (s *session) watchProtocol() {
	if s.account == nil {
		return
	}
	until := s.account.TraceUntil()
	on := !until.IsZero() && time.Now().Before(until)
	if on == (s.protocol != nil) {
		return
	}
	s.dec.Record(on)
	if !on {
		s.protocol = nil
		return
	}
	if s.enc.Flush() == nil {
		s.protocol = &protocol{log: s.log()}
	}
}

// logReceived logs what the client sent since it was called last.
func (s *session) logReceived() {
	if s.protocol == nil {
		return
	}
	line := s.dec.Recorded()
	if len(bytes.TrimRight(line, "\r\n")) > 0 {
		s.protocol.received(line)
	}
}

func (p *protocol) received(line []byte) {
	text, tag := redactCommand(line)
	if tag != "" {
		p.tag = tag
	}
	p.write("client", text)
}

// sent logs the lines of which b is the next part.
func (p *protocol) sent(b []byte) {
	for len(b) > 0 {
		if p.literal > 0 {
			n := min(p.literal, len(b))
			p.literal -= n
			b = b[n:]
			continue
		}
		end := bytes.IndexByte(b, '\n') + 1
		if end == 0 {
			p.keep(b)
			return
		}
		p.keep(b[:end])
		b = b[end:]
		if n, ok := announced(p.line); ok {
			p.literal = n
			continue
		}
		p.write("server", redactResponse(p.line[:min(len(p.line), maxProtocolLine)], p.tag))
		p.line, p.cut = p.line[:0], false
	}
}

// keep adds b to the line. Of one that is too long the beginning is kept, and the end for
// the header of a literal.
func (p *protocol) keep(b []byte) {
	if p.cut {
		p.line = p.line[:maxProtocolLine+copy(p.line[maxProtocolLine:], tail(p.line[maxProtocolLine:], b))]
		return
	}
	p.line = append(p.line, b...)
	if len(p.line) > maxProtocolLine+maxLiteralHeader {
		end := p.line[len(p.line)-maxLiteralHeader:]
		p.line = append(p.line[:maxProtocolLine], end...)
		p.cut = true
	}
}

// tail is the last maxLiteralHeader bytes of a and b together, of which a has as many.
func tail(a, b []byte) []byte {
	all := append(bytes.Clone(a), b[max(0, len(b)-maxLiteralHeader):]...)
	return all[len(all)-maxLiteralHeader:]
}

// announced is the size of the literal whose header line ends with.
func announced(line []byte) (n int, ok bool) {
	line, ok = bytes.CutSuffix(line, []byte("}\r\n"))
	at := bytes.LastIndexByte(line, '{')
	if !ok || at < 0 {
		return 0, false
	}
	n, err := strconv.Atoi(string(line[at+1:]))
	return n, err == nil
}

func (p *protocol) write(from, text string) {
	if len(text) > maxProtocolLine {
		text = text[:maxProtocolLine] + "…"
	}
	p.log.Info("protocol", zap.String("from", from), zap.String("line", text))
}
