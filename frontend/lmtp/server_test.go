package lmtp

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"starling/blobstore"
	"starling/metadata"
	"starling/metadata/metadatatest"
)

// One reply for each recipient; what is delivered is what came, after the trace.
func TestDelivery(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conn, err := net.Dial("tcp", w.addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	c := smtp.NewClientLMTP(conn)
	defer c.Close()
	if err := c.Hello("client.example.net"); err != nil {
		t.Fatal(err)
	}
	for _, extension := range []string{"8BITMIME", "SMTPUTF8", "SIZE", "PIPELINING", "ENHANCEDSTATUSCODES"} {
		if ok, _ := c.Extension(extension); !ok {
			t.Errorf("%s is not offered", extension)
		}
	}
	for _, to := range [][]string{{"a@example.org"}, {"ALIAS@Example.ORG", "b@example.org"}, {"a+Work@example.org"}, {"a+nothing@example.org"}, {"a+inbox@example.org"}} {
		if err := c.Mail("sender@example.net", &smtp.MailOptions{Body: smtp.Body8BitMIME, Size: 100}); err != nil {
			t.Fatal(err)
		}
		for _, address := range to {
			if err := c.Rcpt(address, nil); err != nil {
				t.Fatal(err)
			}
		}
		data, err := c.Data()
		if err != nil {
			t.Fatal(err)
		}
		text := "Subject: to " + to[0] + "\r\n\r\n.leading dot\r\n..two\r\nöäü \xff\x80\r\n.\r\nend\r\n"
		if _, err := io.WriteString(data, text); err != nil {
			t.Fatal(err)
		}
		replies, err := data.CloseWithLMTPResponse()
		if err != nil || len(replies) != len(to) {
			t.Fatalf("%v: %v, %v", to, replies, err)
		}
		var mails []string
		for _, mailbox := range []string{"INBOX", "Work"} {
			mails = append(mails, w.mails("a@example.org", mailbox)...)
		}
		found := false
		for _, mail := range mails {
			found = found || received(t, mail) == text
		}
		if !found {
			t.Errorf("%q is not in %q", text, mails)
		}
	}
	w.count("a@example.org", "INBOX", 4)
	w.count("a@example.org", "Work", 1)
	w.count("b@example.org", "INBOX", 1)
	first := w.mails("a@example.org", "INBOX")[0]
	for i, want := range []string{
		"Return-Path: <sender@example.net>", "Delivered-To: a@example.org", "Received: from client.example.net",
		"\tby mx.example.org with LMTP", "\tfor <a@example.org>; ",
	} {
		if line := strings.Split(first, "\r\n")[i]; !strings.HasPrefix(line, want) {
			t.Errorf("line %d is %q, want %q", i, line, want)
		}
	}
	if w.alarms.Load() != 0 {
		t.Error("something was logged as an error")
	}
}

// Who cannot get mail is told at RCPT.
func TestRefusedRecipients(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	metadatatest.Account(t, w.db, "suspended@example.org")
	metadatatest.Account(t, w.db, "deleted@example.org")
	if err := w.db.SetState(ctx, "suspended@example.org", metadata.Suspended); err != nil {
		t.Fatal(err)
	}
	if err := w.db.DeleteAccount(ctx, "deleted@example.org"); err != nil {
		t.Fatal(err)
	}
	a := w.dial(0)
	a.say("MAIL FROM:<> SIZE=999", "250")
	for address, want := range map[string]string{
		"nobody@example.org":        "550 5.1.1",
		"nobody+x@example.org":      "550 5.1.1",
		"+x@example.org":            "550 5.1.1",
		"a@elsewhere.org":           "550 5.1.1",
		"\xff@example.org":          "550 5.1.1",
		"a\x00@example.org":         "550 5.1.1",
		"deleted@example.org":       "550 5.1.1",
		"suspended@example.org":     "250",
		"full@example.org":          "250",
		"a+INBOX/x\x01@example.org": "250",
	} {
		a.say("RCPT TO:<"+address+">", want)
	}
	a.say("RSET", "250")
	a.say("MAIL FROM:<sender@example.net> SIZE=1001", "250")
	a.say("RCPT TO:<full@example.org>", "552 5.2.2")
	a.say("RCPT TO:<a@example.org>", "250")
	a.say("RSET", "250")
	a.say(fmt.Sprintf("MAIL FROM:<sender@example.net> SIZE=%d", maxMessage+1), "552 5.3.4")
	a.say("MAIL FROM:<sender@example.net>", "250")
	for range 5 {
		a.say("RCPT TO:<a@example.org>", "250")
	}
	a.say("RCPT TO:<b@example.org>", "452 4.5.3")
	if w.alarms.Load() != 0 {
		t.Error("something was logged as an error")
	}
}

// A message that turns out to be too much is refused for whom it is too much,
// and the connection stays in step, whether it was read as it came or kept.
func TestTooMuchData(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.dial(0)
	line := strings.Repeat("0123456789", 7) + "\r\n"
	large := "Subject: large\r\n\r\n" + strings.Repeat(line, maxMessage/len(line))
	some := "Subject: some\r\n\r\n" + strings.Repeat(line, 100)
	a.send(large, []string{"a@example.org"}, "552 5.3.4")
	a.send(large, []string{"a@example.org", "b@example.org"}, "552 5.3.4", "552 5.3.4")
	a.send(some, []string{"full@example.org"}, "552 5.2.2")
	a.send(some, []string{"a@example.org", "full@example.org", "b@example.org"}, "250", "552 5.2.2", "250")
	a.send(letter, []string{"full@example.org"}, "250")
	// What is announced is taken, trace and all.
	fits := large[:maxMessage-traceRoom-2-len(line)] + "\r\n"
	a.say(fmt.Sprintf("MAIL FROM:<sender@example.net> SIZE=%d", maxMessage-traceRoom), "250")
	a.say("RCPT TO:<a@example.org>", "250")
	a.say("DATA", "354")
	a.write(fits + ".\r\n")
	a.want("250")
	w.count("a@example.org", "INBOX", 2)
	w.count("b@example.org", "INBOX", 1)
	w.count("full@example.org", "INBOX", 1)
	if w.alarms.Load() != 0 {
		t.Error("something was logged as an error")
	}
}

// BDAT (RFC 3030) is answered like DATA, also when the message is refused before
// it has come.
func TestChunking(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.dial(0)
	chunk := "Subject: chunk\r\n\r\n" + strings.Repeat("0123456789abcde\r\n", 10_000)
	begin := func(to ...string) {
		a.say("MAIL FROM:<sender@example.net>", "250")
		for _, address := range to {
			a.say("RCPT TO:<"+address+">", "250")
		}
	}
	begin("a@example.org", "b@example.org")
	a.write(fmt.Sprintf("BDAT %d\r\n%s", len(chunk), chunk))
	a.want("250")
	a.write(fmt.Sprintf("BDAT %d LAST\r\n%s", len(chunk), chunk))
	a.want("250")
	a.want("250")
	if got := received(t, w.mails("a@example.org", "INBOX")[0]); got != chunk+chunk {
		t.Errorf("%d octets came through of %d", len(got), 2*len(chunk))
	}
	begin("full@example.org")
	a.write(fmt.Sprintf("BDAT %d\r\n%s", len(chunk), chunk))
	a.want("250")
	a.write(fmt.Sprintf("BDAT %d LAST\r\n%s", len(chunk), chunk))
	a.want("552 5.2.2")
	w.blobs.onPut(func(context.Context) error { return blobstore.ErrUnavailable })
	begin("a@example.org")
	a.write(fmt.Sprintf("BDAT %d\r\n%s", len(chunk), chunk))
	a.want("250")
	a.write("BDAT 0 LAST\r\n")
	a.want("451 4.3.0")
	begin("a@example.org")
	a.write(fmt.Sprintf("BDAT %d\r\n%s", len(chunk), chunk))
	a.want("250")
	a.say("RSET", "250") // ends it
	w.count("a@example.org", "INBOX", 1)
}

// The mailbox may be gone, and the account's room taken, before the data comes:
// the data is passed over, and the connection stays in step.
func TestRefusedBeforeTheData(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.dial(0)
	owner, err := w.db.Recipient(t.Context(), "a@example.org")
	if err != nil {
		t.Fatal(err)
	}
	a.begin("a+Work@example.org")
	if _, err := w.db.DeleteMailbox(t.Context(), owner.ID, "Work"); err != nil {
		t.Fatal(err)
	}
	a.write(letter + ".\r\n")
	a.want("451 4.2.0")
	a.send(letter, []string{"a+Work@example.org"}, "250") // by now to INBOX
	w.count("a@example.org", "INBOX", 1)
}

// RFC 5321 §4.1.4: go-smtp keeps the recipients of a transaction over a second
// MAIL, and would say of them that they have the mail.
func TestSecondMail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.dial(0)
	a.say("MAIL FROM:<sender@example.net>", "250")
	a.say("RCPT TO:<a@example.org>", "250")
	a.say("MAIL FROM:<other@example.net>", "503 5.5.1")
	a.say("RCPT TO:<b@example.org>", "250")
	a.say("DATA", "354")
	a.write(letter + ".\r\n")
	a.want("250")
	a.want("250")
	w.count("a@example.org", "INBOX", 1)
	w.count("b@example.org", "INBOX", 1)
}

// A message that names an account twice is there once.
func TestOneAccountTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.dial(0)
	a.send(letter, []string{"a@example.org", "alias@example.org", "a@example.org", "a+x@example.org", "a+Work@example.org"},
		"250", "250", "250", "250", "250")
	w.count("a@example.org", "INBOX", 1)
	w.count("a@example.org", "Work", 1)
	if puts := w.blobs.puts.Load(); puts != 2 {
		t.Errorf("%d objects were put", puts)
	}
}

// A delivery whose 250 was lost is tried again, there or elsewhere, and is there once.
func TestTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 4 {
		a := w.dial(i % 2)
		a.begin("a@example.org", "b@example.org")
		a.write(letter + ".\r\n")
		a.want("250") // of one recipient at least
		_ = a.conn.Close()
	}
	w.dial(1).send(letter, []string{"alias@example.org", "b@example.org"}, "250", "250")
	w.count("a@example.org", "INBOX", 1)
	w.count("b@example.org", "INBOX", 1)
	w.dial(1).send(letter+"other\r\n", []string{"b@example.org"}, "250")
	w.count("b@example.org", "INBOX", 2)
}

// What is cut off leaves nothing behind, and is nobody's alarm.
func TestCutOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, to := range [][]string{{"a@example.org"}, {"a@example.org", "b@example.org"}} {
		for _, text := range []string{"Subject: x\r\n", letter + strings.Repeat("0123456789abcdef", 30_000), letter + "."} {
			a := w.dial(0)
			a.begin(to...)
			a.write(text)
			_ = a.conn.Close()
		}
	}
	if err := w.stop[0](); err != nil { // when all that was under way has ended
		t.Fatal(err)
	}
	w.count("a@example.org", "INBOX", 0)
	w.count("b@example.org", "INBOX", 0)
	if w.blobs.puts.Load() != 0 || w.alarms.Load() != 0 {
		t.Errorf("%d objects put, %d alarms", w.blobs.puts.Load(), w.alarms.Load())
	}
}

// Without the object store mail is to be tried again, and nothing of it shows.
func TestStorageAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.dial(0)
	w.blobs.onPut(func(context.Context) error { return blobstore.ErrUnavailable })
	a.send(letter, []string{"a@example.org"}, "451 4.3.0")
	a.send(letter, []string{"a@example.org", "b@example.org"}, "451 4.3.0", "451 4.3.0")
	w.count("a@example.org", "INBOX", 0)
	w.blobs.onPut(nil)
	a.send(letter, []string{"a@example.org", "b@example.org"}, "250", "250")
	w.count("a@example.org", "INBOX", 1)
}

// Without PostgreSQL likewise: at RCPT, and at the end of the data.
func TestMetadataAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.dial(1), w.dial(1)
	a.begin("a@example.org")
	b.say("MAIL FROM:<sender@example.net>", "250")
	w.db.Close() // that of the second node
	b.say("RCPT TO:<a@example.org>", "451 4.3.0")
	a.write(letter + ".\r\n")
	a.want("451 4.3.0")
}

// Nothing that a client says in the envelope gets a header line of its own.
func TestHeadersCannotBeInjected(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, from := range []string{
		"x\rX-Evil: 1@example.net", "\"x\rX-Evil: 1\"@example.net", "x@example.net\rX-Evil: 1", "x@\x00\x0bX-Evil:1",
		"jürgen@example.net", "x\xff@example.net", `"a>b"@example.net`,
	} {
		a := w.dial(0)
		a.write("MAIL FROM:<" + from + "> SMTPUTF8\r\n")
		if !strings.HasPrefix(a.want(""), "250") {
			continue
		}
		a.say("RCPT TO:<jürgen@example.org>", "250")
		a.say("DATA", "354")
		a.write("Subject: " + fmt.Sprintf("%q", from) + "\r\n\r\nx\r\n.\r\n")
		a.want("250")
	}
	mails := w.mails("jürgen@example.org", "INBOX")
	if len(mails) < 3 {
		t.Errorf("%d were accepted", len(mails))
	}
	for _, mail := range mails {
		lines := strings.Split(mail, "\r\n")
		if len(lines) < 6 || !strings.HasPrefix(lines[5], "Subject: ") || strings.ContainsAny(strings.Join(lines[:5], ""), "\r\n\x00\x0b") {
			t.Errorf("header is %q", mail)
		}
	}
}
