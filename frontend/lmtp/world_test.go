package lmtp

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
	logged  atomic.Pointer[func(zapcore.Entry)]
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
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(io.Discard), zap.InfoLevel),
		zap.Hooks(func(e zapcore.Entry) error {
			if e.Level >= zap.ErrorLevel {
				w.alarms.Add(1)
			}
			if look := w.logged.Load(); look != nil {
				(*look)(e)
			}
			return nil
		}))
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
	w.servers[i].conns.lull = time.Minute // a busy machine is silent for long
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
