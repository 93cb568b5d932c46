package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"starling/blobstore/memory"
	"starling/events"
	hub "starling/events/memory"
	"starling/frontend/auth"
	"starling/frontend/imap"
	"starling/frontend/lmtp"
	"starling/frontend/mailstore"
	"starling/metadata"
	"starling/metadata/metadatatest"
)

// server is two nodes with the accounts user0 to user3@example.org.
type server struct {
	imap, lmtp []string
}

func newServer(t *testing.T) *server {
	t.Helper()
	dsn := metadatatest.DSN(t)
	blobs, bus, log := memory.New(), new(hub.Hub), zap.NewNop()
	s := &server{}
	for node := range 2 {
		db, err := metadata.Open(t.Context(), metadata.Config{DSN: dsn})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		for i := range 4 * (1 - node) {
			metadatatest.Account(t, db, fmt.Sprintf("user%d@example.org", i), func(n *metadata.NewAccount) { n.PasswordHash = "{PLAIN}password" })
		}
		end, err := bus.Open(events.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = end.Close() })
		store, err := mailstore.New(context.WithoutCancel(t.Context()), mailstore.Config{DB: db, Blobs: blobs, Bus: end, Log: log, TempDir: t.TempDir(), Collect: -1})
		if err != nil {
			t.Fatal(err)
		}
		checker, err := auth.New(db, auth.Config{Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, log)
		if err != nil {
			t.Fatal(err)
		}
		s.start(t, store,
			imap.NewServer(imap.Config{Store: store, Auth: checker, Log: log, PlaintextLogin: true}),
			lmtp.NewServer(lmtp.Config{Store: store, Log: log, Hostname: "mx.example.org", TempDir: t.TempDir()}))
	}
	return s
}

func (s *server) start(t *testing.T, store *mailstore.Store, mailboxes *imap.Server, mail *lmtp.Server) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	listen := func(serve func(net.Listener) error) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			if err := serve(l); err != nil {
				t.Error(err)
			}
		})
		return l.Addr().String()
	}
	s.imap = append(s.imap, listen(func(l net.Listener) error { return mailboxes.Serve(l, false) }))
	s.lmtp = append(s.lmtp, listen(mail.Serve))
	running.Go(func() {
		if err := store.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stopping, done := context.WithTimeout(ctx, 30*time.Second)
		defer done()
		if err := mailboxes.Shutdown(stopping); err != nil {
			t.Error(err)
		}
		if err := mail.Shutdown(stopping); err != nil {
			t.Error(err)
		}
		cancel()
		running.Wait()
	})
}

func small(addrs []string, more ...string) []string {
	return append([]string{
		"-addr", strings.Join(addrs, ","), "-messages", "8", "-size", "100", "-operations", "12", "-repeats", "2",
		"-clients", "3", "-idlers", "4", "-most", "20s", "-timeout", "30s",
	}, more...)
}

// Every scenario measures something, and finds nothing wrong with what is right.
func TestScenarios(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	var out bytes.Buffer
	file := filepath.Join(t.TempDir(), "report.json")
	without := slices.DeleteFunc(names(), func(name string) bool { return name == "mixed" || name == "idlemem" }) // of other tests
	err := run(t.Context(), small(s.imap, "-lmtp", strings.Join(s.lmtp, ","), "-json", file, "-label", "here", "-run", strings.Join(without, ",")), &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	measured := make(map[string]int)
	for _, m := range r.Results {
		measured[m.Scenario]++
		if m.Count == 0 || m.PerSecond <= 0 || m.P50 > m.P99 || m.P99 > m.Max {
			t.Errorf("%+v", m)
		}
		if !strings.Contains(out.String(), m.Operation) {
			t.Errorf("%s is not in the table", m.Operation)
		}
	}
	for _, name := range without {
		if measured[name] == 0 {
			t.Errorf("%s measured nothing", name)
		}
	}
}

// Load that lasts ends by itself, and memory is looked at.
func TestLasting(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	var out bytes.Buffer
	if err := run(t.Context(), append(small(s.imap, "-run", "mixed,idlemem", "-source", "127.0.0.1", "-pids", fmt.Sprint(os.Getpid())), "-most", "2s"), &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if !strings.Contains(out.String(), "all") {
		t.Errorf("the table is %s", &out)
	}
}

// falsify is a proxy before a server, which changes what the server says.
func falsify(t *testing.T, server, from, to string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", server)
			if err != nil {
				t.Error(err)
				_ = near.Close()
				return
			}
			running.Go(func() { pass(near, far, from, to) })
			running.Go(func() { pass(far, near, from, from) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	return l.Addr().String()
}

// pass passes on what comes from far, changed, and closes both in the end.
func pass(near, far net.Conn, from, to string) {
	defer near.Close()
	defer far.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := far.Read(buffer)
		if err != nil {
			return
		}
		if _, err := near.Write(bytes.ReplaceAll(buffer[:n], []byte(from), []byte(to))); err != nil {
			return
		}
	}
}

// What a server says that is not so is found out.
func TestLies(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for scenario, lie := range map[string][2]string{
		"append":  {"report", "rePort"},
		"deliver": {"X-Load: 1 of", "X-Load: 9 of"},
		"login":   {"* 100 EXISTS", "* 101 EXISTS"},
		"flags":   {"* 99 FETCH", "* 99 XETCH"},
		"headers": {"RFC822.SIZE 4", "RFC822.SIZE 5"},
		"body":    {"storage", "st0rage"},
		"slices":  {"AAA", "AAB"},
		"search":  {"* SEARCH 1 2 ", "* SEARCH 1 "},
		"store":   {`\Flagged`, `\FLagged`},
		"move":    {"EXPUNGE", "EXPANGE"},
		"idle":    {"* 3 EXISTS", "* 4 EXISTS"},
		"mixed":   {"budget", "bodget"},
	} {
		t.Run(scenario, func(t *testing.T) {
			var out bytes.Buffer
			address := falsify(t, s.imap[0], lie[0], lie[1])
			args := append(small([]string{address}, "-run", scenario, "-lmtp", s.lmtp[0]), "-timeout", "5s", "-most", "3s")
			if err := run(t.Context(), args, &out); err == nil {
				t.Errorf("nothing was noticed:\n%s", &out)
			} else if !strings.Contains(out.String(), "wrong: ") {
				t.Errorf("%v, but nothing in the report:\n%s", err, &out)
			}
		})
	}
}

// Settings that make no sense are refused, with a word on which.
func TestFlags(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"no scenario \"fly\"": {"-run", "append,fly"},
		"needs -lmtp":         {"-run", "deliver"},
		"needs -pids":         {"-run", "idlemem"},
		"at least 1":          {"-clients", "0"},
		"-size":               {"-size", "5"},
		"no address":          {"-addr", ","},
		"no process":          {"-pids", "x"},
		"want IP":             {"-source", "here"},
		"what is":             {"append"},
		"no message":          {"-corpus", t.TempDir()},
	} {
		if err := run(t.Context(), args, new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", args, err, want)
		}
	}
}

// Mail from files has the line ends of mail; what some servers change stays out.
func TestCorpus(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	for name, text := range map[string]string{
		"a.eml": "Subject: a\n\nText\n", "b.eml": "Subject: b\r\n\r\nText", "c.eml": "Subject: c\n\nlone\rCR\n", "d.eml": "Subject: d\n\nNUL\x00\n", "e.txt": "no",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mails, err := loadMails(&config{corpus: folder})
	if err != nil || len(mails) != 2 || string(mails[0]) != "Subject: a\r\n\r\nText\r\n" || string(mails[1]) != "Subject: b\r\n\r\nText\r\n" {
		t.Errorf("%q, %v", mails, err)
	}
}

func TestPercentile(t *testing.T) {
	t.Parallel()
	var samples []time.Duration
	for i := range 200 {
		samples = append(samples, time.Duration(i+1)*time.Millisecond)
	}
	for share, want := range map[float64]float64{0: 1, .5: 100, .99: 198, 1: 200} {
		if got := percentile(samples, share); got != want {
			t.Errorf("%v: %v, want %v", share, got, want)
		}
	}
	if got := percentile(samples[:1], .99); got != 1 {
		t.Errorf("of one: %v", got)
	}
}
