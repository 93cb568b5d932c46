package lmtp

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"
)

// A line of a message may be of any length, whatever brings it: go-smtp's limit would make a deferral
// of it, or a lasting error, and end the connection.
func TestLongLines(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.servers[0].smtp.TLSConfig = certificates(t).TLSConfig()
	text := "Subject: long\r\n\r\n" + strings.Repeat("0123456789", 2*commandRoom/10) + "\r\nend\r\n"
	plain, secure := w.dial(0), w.dial(0)
	secure.say("STARTTLS", "220")
	secure.conn = tls.Client(secure.conn, &tls.Config{InsecureSkipVerify: true})
	secure.in = bufio.NewReader(secure.conn)
	secure.say("LHLO client.example.net", "250")
	for _, a := range []*agent{plain, secure} {
		a.send(text, []string{"a@example.org", "b@example.org"}, "250", "250")
		a.send(letter, []string{"b@example.org"}, "250") // the connection is in step
		a.say("MAIL FROM:<chunks@example.net>", "250")
		a.say("RCPT TO:<a@example.org>", "250")
		for piece := range slices.Chunk([]byte(text), 7000) {
			a.write(fmt.Sprintf("BDAT %d\r\n%s", len(piece), piece))
			a.want("250")
		}
		a.write("BDAT 0 LAST\r\n")
		a.want("250 2.0.0 <a@example.org> OK: delivered")
		a.say("NOOP", "250")
	}
	for i, mail := range w.mails("a@example.org", "INBOX") {
		if got := received(t, mail); got != text {
			t.Errorf("message %d: %d octets came through of %d", i, len(got), len(text))
		}
	}
	w.count("a@example.org", "INBOX", 2) // those of the second connection are deliveries tried again
}

// A command without an end takes no memory without end, between the pieces of a message either.
func TestEndlessCommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before, between := w.dial(0), w.dial(0)
	between.say("MAIL FROM:<sender@example.net>", "250")
	between.say("RCPT TO:<a@example.org>", "250")
	piece := strings.Repeat("0123456\r\n", 2*commandRoom/9)
	between.write(fmt.Sprintf("BDAT %d\r\n%s", len(piece), piece))
	between.want("250")
	for _, a := range []*agent{before, between} {
		_, _ = io.WriteString(a.conn, "NOOP "+strings.Repeat("x", commandRoom+64<<10)) // the server may have gone meanwhile
		a.want("500 5.4.0")
	}
	w.count("a@example.org", "INBOX", 0)
}

// A message by BDAT that is given up has come to its end before RSET is answered: go-smtp would take its outcome
// for that of the next one.
func TestPiecesGivenUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	told := make(chan struct{})
	slow := func(e zapcore.Entry) {
		if e.Message != "refused" {
			return
		}
		select {
		case <-told:
			t.Error("RSET was answered while the message had not ended")
		case <-time.After(100 * time.Millisecond):
		}
	}
	w.logged.Store(&slow)
	a := w.dial(0)
	a.say("MAIL FROM:<sender@example.net>", "250")
	a.say("RCPT TO:<a@example.org>", "250")
	a.write("BDAT 9\r\nSubject: ")
	a.want("250")
	a.say("RSET", "250")
	close(told)
	w.count("a@example.org", "INBOX", 0)
}
