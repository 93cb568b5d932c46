package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"starling/events/nats/natsserver"
	"starling/frontend/auth"
	"starling/metadata"
	"starling/metadata/metadatatest"
)

// benchConn is a client that has INBOX selected, with one message.
type benchConn struct {
	b    *testing.B
	conn net.Conn
	r    *bufio.Reader
}

// ask sends a command and reads up to its answer.
func (c *benchConn) ask(command string) {
	if _, err := io.WriteString(c.conn, "t "+command+"\r\n"); err != nil {
		c.b.Fatal(err)
	}
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.b.Fatal(err)
		}
		if rest, ok := strings.CutPrefix(line, "t "); ok {
			if !strings.HasPrefix(rest, "OK") {
				c.b.Fatalf("%s: %s", command, line)
			}
			return
		}
	}
}

// benchNode is a node under whose settings commands are measured.
func benchNode(b *testing.B, dsn string, change func(*Config)) *benchConn {
	b.Helper()
	broker, err := natsserver.Start(natsserver.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		b.Fatal(err)
	}
	cfg := defaults()
	cfg.IMAP.Listen, cfg.IMAP.ListenTLS, cfg.LMTP.Listen = []string{"127.0.0.1:0"}, nil, nil
	cfg.Admin.Listen, cfg.IMAP.PlaintextLogin = []string{"127.0.0.1:0"}, true
	cfg.Postgres.DSN, cfg.NATS.URLs, cfg.Blobs.Disk = dsn, []string{broker.URL()}, filepath.Join(b.TempDir(), "blobs")
	change(&cfg)
	ctx, stop := context.WithCancel(b.Context())
	n, err := newNode(ctx, cfg, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- n.run(ctx) }()
	conn, err := net.Dial("tcp", n.listeners[0].Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = conn.Close() // nothing follows
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
		broker.Shutdown()
	})
	c := &benchConn{b, conn, bufio.NewReader(conn)}
	c.ask("LOGIN bench@example.org secret")
	const mail = "From: a@example.org\r\nSubject: short\r\n\r\nHello.\r\n"
	c.ask(fmt.Sprintf("APPEND INBOX {%d+}\r\n%s", len(mail), mail))
	c.ask("SELECT INBOX")
	return c
}

// BenchmarkCommands is a command's round trip on a whole node with PostgreSQL, without
// traces and with several shares of them.
func BenchmarkCommands(b *testing.B) {
	dsn := metadatatest.DSN(b)
	db, err := metadata.Open(b.Context(), metadata.Config{DSN: dsn})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	hash, err := auth.Hash("secret")
	if err != nil {
		b.Fatal(err)
	}
	metadatatest.Account(b, db, "bench@example.org", func(n *metadata.NewAccount) {
		n.PasswordHash, n.Mailboxes = hash, metadata.DefaultMailboxes()
	})
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // whatever it is
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer collector.Close()
	traced := func(sample float64) func(*Config) {
		return func(c *Config) { c.Traces = TracesConfig{Endpoint: collector.URL, Sample: sample} }
	}
	for _, mode := range []struct {
		name   string
		change func(*Config)
	}{
		{"traces=off", func(*Config) {}},
		{"traces=0", traced(0)},
		{"traces=0.01", traced(0.01)},
		{"traces=1", traced(1)},
	} {
		c := benchNode(b, dsn, mode.change)
		for _, command := range []struct{ name, on, off string }{
			{"NOOP", "NOOP", "NOOP"},
			{"FETCH", "FETCH 1 (FLAGS ENVELOPE)", "FETCH 1 (FLAGS ENVELOPE)"},
			{"STORE", "STORE 1 +FLAGS.SILENT (x)", "STORE 1 -FLAGS.SILENT (x)"},
		} {
			b.Run(command.name+"/"+mode.name, func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if i%2 == 0 {
						c.ask(command.on)
					} else {
						c.ask(command.off)
					}
				}
			})
		}
	}
}
