package lmtp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"starling/blobstore"
	"starling/blobstore/memory"
	"starling/events"
	hub "starling/events/memory"
	"starling/frontend/mailstore"
	"starling/metadata"
	"starling/metadata/metadatatest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The test server runs until the process ends.
		goleak.IgnoreAnyFunction("starling/metadata/postgres.launch.func1"),
		goleak.IgnoreAnyFunction("os/exec.(*Cmd).Wait"),
		goleak.IgnoreAnyFunction("os/exec.(*Cmd).watchCtx"))
}

const maxMessage = 1 << 20

// world is two nodes that take mail for a@example.org, with the alias
// alias@example.org and the mailbox Work, b@example.org, and full@example.org, which
// has room for one small message.
type world struct {
	t       *testing.T
	db      *metadata.DB
	blobs   *blobs
	servers [2]*Server
	stores  [2]*mailstore.Store
	addrs   [2]string
	stop    [2]func() error // shuts the server down, in at most 30 s
	alarms  atomic.Int64    // what was logged as an error
}

// blobs is an object store that counts, and fails or waits when it is told to.
type blobs struct {
	blobstore.Store
	puts atomic.Int64

	mu  sync.Mutex
	put func(context.Context) error // called in each Put
}

func (b *blobs) Put(ctx context.Context, key blobstore.Key, body io.ReadSeeker, size int64) (blobstore.PutResult, error) {
	b.puts.Add(1)
	b.mu.Lock()
	put := b.put
	b.mu.Unlock()
	if put != nil {
		if err := put(ctx); err != nil {
			return blobstore.PutResult{}, err
		}
	}
	return b.Store.Put(ctx, key, body, size)
}

func (b *blobs) onPut(put func(context.Context) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.put = put
}

func newWorld(t *testing.T, tune ...func(*mailstore.Config)) *world {
	t.Helper()
	w := &world{t: t, blobs: &blobs{Store: memory.New()}}
	dsn := metadatatest.DSN(t)
	bus := new(hub.Hub)
	for i := range w.servers {
		db, err := metadata.Open(t.Context(), metadata.Config{DSN: dsn, AcquireTimeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		w.db = db
		w.start(i, db, bus, tune)
	}
	metadatatest.Account(t, w.db, "a@example.org", func(n *metadata.NewAccount) {
		n.Mailboxes = []metadata.NewMailbox{{Name: "Work"}}
	})
	metadatatest.Account(t, w.db, "b@example.org")
	metadatatest.Account(t, w.db, "full@example.org", func(n *metadata.NewAccount) { n.Limits = metadata.Quota{Bytes: 1000} })
	metadatatest.Account(t, w.db, "jürgen@example.org")
	if err := w.db.AddAlias(t.Context(), "a@example.org", "alias@example.org"); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) start(i int, db *metadata.DB, bus *hub.Hub, tune []func(*mailstore.Config)) {
	t := w.t
	end, err := bus.Open(events.Options{})
	if err != nil {
		t.Fatal(err)
	}
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(io.Discard), zap.ErrorLevel),
		zap.Hooks(func(zapcore.Entry) error { w.alarms.Add(1); return nil }))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cfg := mailstore.Config{
		DB: db, Blobs: w.blobs, Bus: end, Log: zap.NewNop(), TempDir: t.TempDir(), MaxMessage: maxMessage, Collect: -1,
	}
	for _, f := range tune {
		f(&cfg)
	}
	w.stores[i], err = mailstore.New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.servers[i] = NewServer(Config{Store: w.stores[i], Log: log, Hostname: "mx.example.org", TempDir: t.TempDir(), MaxRecipients: 5})
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addrs[i] = l.Addr().String()
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.servers[i].Serve(l); err != nil {
			t.Error(err)
		}
	})
	running.Go(func() {
		if err := w.stores[i].Run(ctx); err != nil {
			t.Error(err)
		}
	})
	w.stop[i] = sync.OnceValue(func() error {
		stopping, done := context.WithTimeout(ctx, 30*time.Second)
		defer done()
		return w.servers[i].Shutdown(stopping)
	})
	t.Cleanup(func() {
		if err := w.stop[i](); err != nil {
			t.Error(err)
		}
		cancel()
		running.Wait()
		if err := end.Close(); err != nil {
			t.Error(err)
		}
	})
}

// agent is a mail transfer agent's connection, line by line.
type agent struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func (w *world) dial(i int) *agent {
	w.t.Helper()
	conn, err := new(net.Dialer).DialContext(w.t.Context(), "tcp", w.addrs[i])
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		w.t.Fatal(err)
	}
	a := &agent{t: w.t, conn: conn, in: bufio.NewReader(conn)}
	a.want("220")
	a.say("LHLO client.example.net", "250")
	return a
}

// want reads a reply, of several lines perhaps, and returns its text.
func (a *agent) want(prefix string) string {
	a.t.Helper()
	var all strings.Builder
	for {
		line, err := a.in.ReadString('\n')
		if err != nil {
			a.t.Fatalf("want %s, got %q, %v", prefix, all.String(), err)
		}
		all.WriteString(line)
		if len(line) > 3 && line[3] != '-' {
			if !strings.HasPrefix(line, prefix) {
				a.t.Fatalf("want %s, got %q", prefix, all.String())
			}
			return all.String()
		}
	}
}

func (a *agent) write(text string) {
	a.t.Helper()
	if _, err := io.WriteString(a.conn, text); err != nil {
		a.t.Fatal(err)
	}
}

func (a *agent) say(line, want string) string {
	a.t.Helper()
	a.write(line + "\r\n")
	return a.want(want)
}

// begin gives the envelope and asks for the data.
func (a *agent) begin(to ...string) {
	a.t.Helper()
	a.say("MAIL FROM:<sender@example.net>", "250")
	for _, address := range to {
		a.say("RCPT TO:<"+address+">", "250")
	}
	a.say("DATA", "354")
}

// send delivers a message, which ends with a line end, and wants these replies.
func (a *agent) send(text string, to []string, wants ...string) {
	a.t.Helper()
	a.begin(to...)
	a.write(text + ".\r\n")
	for _, want := range wants {
		a.want(want)
	}
}

// mails are the messages in a mailbox, as they were stored, by UID.
func (w *world) mails(address, mailbox string) []string {
	w.t.Helper()
	account, err := w.db.Recipient(w.t.Context(), address)
	if err != nil {
		w.t.Fatal(err)
	}
	session := w.stores[0].Account(account, func() {})
	defer session.Close()
	m, err := session.Open(w.t.Context(), mailbox, func() {})
	if err != nil {
		w.t.Fatal(err)
	}
	defer m.Close()
	var texts []string
	err = m.Messages(w.t.Context(), []metadata.UIDRange{{First: 1, Last: 1 << 30}}, metadata.ColBlob, func(row *metadata.Message) error {
		b, err := m.Body(row)
		if err != nil {
			return err
		}
		defer b.Close()
		var text bytes.Buffer
		err = b.ReadRange(w.t.Context(), &text, 0, b.Size())
		texts = append(texts, text.String())
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if m.Snapshot().Len() != len(texts) {
		w.t.Errorf("%s has %d messages and %d rows", mailbox, m.Snapshot().Len(), len(texts))
	}
	return texts
}

// received cuts what delivery puts before a message.
func received(t *testing.T, stored string) string {
	t.Helper()
	const last = "\tfor <"
	_, rest, found := strings.Cut(stored, last)
	if !found || !strings.HasPrefix(stored, "Return-Path: <") {
		t.Fatalf("not as delivered: %q", stored)
	}
	_, text, _ := strings.Cut(rest, "\r\n")
	return text
}

func (w *world) count(address, mailbox string, want int) {
	w.t.Helper()
	if got := len(w.mails(address, mailbox)); got != want {
		w.t.Errorf("%s of %s has %d messages, want %d", mailbox, address, got, want)
	}
}

const letter = "From: sender@example.net\r\nSubject: hello\r\n\r\nText\r\n"

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

// A stop ends what is idle and waits for what has begun.
func TestShutdownWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	idle, busy, late := w.dial(0), w.dial(0), w.dial(0)
	busy.begin("a@example.org")
	busy.write("Subject: half\r\n")
	late.say("MAIL FROM:<sender@example.net>", "250")
	stopped := make(chan error, 1)
	go func() { stopped <- w.stop[0]() }()
	idle.want("421")
	select {
	case err := <-stopped:
		t.Fatalf("stopped with transactions open: %v", err)
	default:
	}
	late.say("RCPT TO:<a@example.org>", "250")
	late.say("DATA", "354")
	late.write(letter + ".\r\n")
	late.want("250")
	late.want("421")
	busy.write("\r\nof it\r\n.\r\n")
	busy.want("250")
	busy.want("421")
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	w.count("a@example.org", "INBOX", 2)
	if _, err := new(net.Dialer).DialContext(t.Context(), "tcp", w.addrs[0]); err == nil {
		t.Error("a connection was taken after the stop")
	}
}

// When its time is up a stop cuts off what is left, and waits for nothing more.
func TestShutdownCuts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	putting := make(chan struct{})
	w.blobs.onPut(func(ctx context.Context) error {
		close(putting)
		<-ctx.Done() // the store hangs
		return blobstore.ContextError(ctx)
	})
	silent, hanging := w.dial(0), w.dial(0)
	silent.begin("a@example.org")
	hanging.begin("a@example.org")
	hanging.write(letter + ".\r\n")
	<-putting
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.servers[0].Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("shut down with %v", err)
	}
	w.stop[0] = func() error { return nil }
	if _, err := io.ReadAll(silent.conn); err != nil {
		t.Error(err)
	}
	w.count("a@example.org", "INBOX", 0)
}

// Behind STARTTLS a stop ends what is idle, too.
func TestShutdownBehindTLS(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"mx.example.org"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.servers[0].smtp.TLSConfig = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	secure := func() *agent {
		a := w.dial(0)
		a.say("STARTTLS", "220")
		a.conn = tls.Client(a.conn, &tls.Config{InsecureSkipVerify: true})
		a.in = bufio.NewReader(a.conn)
		a.say("LHLO client.example.net", "250")
		return a
	}
	idle, busy := secure(), secure()
	busy.begin("a@example.org")
	stopped := make(chan error, 1)
	go func() { stopped <- w.stop[0]() }()
	if _, err := idle.in.ReadString('\n'); err != nil && !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection ended with %v", err)
	}
	busy.write(letter + ".\r\n")
	busy.want("250")
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	w.count("a@example.org", "INBOX", 1)
}

// A node closes its listeners before it drains: that is no failure.
func TestServeEndsWithItsListener(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- w.servers[0].Serve(l) }()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
}
