package lmtp

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	oteltrace "go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"starling/blobstore"
)

// watched makes the first server of a world one that counts, traces and logs.
func watched(t *testing.T, w *world) (reg *prometheus.Registry, spans *tracetest.SpanRecorder, logs *observer.ObservedLogs) {
	t.Helper()
	if err := w.stop[0](); err != nil {
		t.Fatal(err)
	}
	reg, spans = prometheus.NewRegistry(), tracetest.NewSpanRecorder()
	core, logs := observer.New(zapcore.InfoLevel)
	cfg := w.servers[0].cfg
	cfg.Metrics, cfg.Log = reg, zap.New(core)
	cfg.Traces = trace.NewTracerProvider(trace.WithSpanProcessor(spans))
	srv := NewServer(cfg)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.servers[0], w.addrs[0] = srv, l.Addr().String()
	var running sync.WaitGroup
	running.Go(func() {
		if err := srv.Serve(l); err != nil {
			t.Error(err)
		}
	})
	w.stop[0] = sync.OnceValue(func() error {
		ctx, done := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
		defer done()
		err := srv.Shutdown(ctx)
		running.Wait()
		return err
	})
	return reg, spans, logs
}

// Each recipient is counted once, by what it got.
func TestFigures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	reg, spans, logs := watched(t, w)
	a := w.dial(0)
	long := "Subject: x\r\nMessage-ID: <1@example.net>\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 100)
	a.send(long, []string{"a@example.org", "full@example.org"}, "250", "552")
	a.send(long, []string{"a@example.org"}, "250") // again
	a.say("MAIL FROM:<sender@example.net>", "250")
	a.say("RCPT TO:<nobody@example.org>", "550")
	a.say("RSET", "250")
	a.send(strings.Repeat(strings.Repeat("x", 70)+"\r\n", maxMessage/70), []string{"a@example.org"}, "552")
	w.blobs.onPut(func(context.Context) error { return blobstore.ErrUnavailable })
	a.send(long+"other\r\n", []string{"a@example.org", "b@example.org"}, "451", "451")
	cut := w.dial(0)
	cut.begin("a@example.org")
	cut.write(long)
	_ = cut.conn.Close()
	a.say("QUIT", "221")
	if err := w.stop[0](); err != nil {
		t.Fatal(err)
	}
	m := w.servers[0].metrics
	for r, want := range map[result]float64{delivered: 1, duplicate: 1, noSuchUser: 1, overQuota: 1, deferred: 2, refused: 1} {
		if got := testutil.ToFloat64(m.deliveries[r]); got != want {
			t.Errorf("%v %s, want %v", got, results[r], want)
		}
	}
	for what, got := range map[string]float64{
		"too big":    testutil.ToFloat64(m.tooBig) - 1,
		"incomplete": testutil.ToFloat64(m.incomplete) - 1,
		"sessions":   testutil.ToFloat64(m.sessions),
	} {
		if got != 0 {
			t.Errorf("%s is wrong by %v", what, got)
		}
	}
	if got := testutil.ToFloat64(m.received); got < maxMessage {
		t.Errorf("%v octets received", got)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}

	var failed int
	for _, span := range spans.Ended() {
		if span.Name() != "LMTP DATA" || span.SpanKind() != oteltrace.SpanKindServer {
			t.Errorf("span %s", span.Name())
		}
		if span.Status().Code == codes.Error {
			failed++
		}
	}
	if n := len(spans.Ended()); n != 5 || failed != 1 {
		t.Errorf("%d spans, of which %d failed", n, failed)
	}
	lines := logs.FilterMessage("delivery").All()
	if len(lines) != 2 {
		t.Fatalf("%d lines", len(lines))
	}
	for i, want := range []string{"delivered", "duplicate"} {
		if got := fmt.Sprint(lines[i].ContextMap()); !strings.Contains(got, "result:"+want) || !strings.Contains(got, "message_id:1@example.net") ||
			!strings.Contains(got, fmt.Sprintf("size:%d", len(long))) || !strings.Contains(got, "account:a@example.org") {
			t.Errorf("the line is %s", got)
		}
	}
}

// What is logged of a message is its Message-ID, of a reasonable length, and is looked for
// in the header alone.
func TestHead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Subject: x\r\nMessage-ID: <a@b>\r\n\r\nbody": "a@b",
		"Subject: x\r\nmessage-id:\r\n <a@b>\r\n\r\n": "a@b",
		"Subject: x\r\n\r\nMessage-ID: <a@b>\r\n\r\n": "",
		"": "",
		"X: " + strings.Repeat("x", 2*maxHead) + "\r\nMessage-ID: <a@b>\r\n\r\n": "",
		"Message-ID: <" + strings.Repeat("x", 500) + "@b>\r\n\r\n":               strings.Repeat("x", maxMessageID),
	} {
		for _, step := range []int{1, 3, 1 << 20} {
			var h head
			for rest := text; rest != ""; {
				n, err := h.Write([]byte(rest[:min(step, len(rest))]))
				if err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if got := h.messageID(); got != want {
				t.Errorf("%.40q in steps of %d: %q", text, step, got)
			}
			if h.bytes.Len() > maxHead {
				t.Errorf("%d octets are kept", h.bytes.Len())
			}
		}
	}
}

// A slow line has the time that it needs, one that only drips has not, and one that
// stops has that of a read.
func TestLeastRate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		piece  int
		pause  time.Duration
		pieces int
		comes  int // of the pieces
	}{
		"slow and steady": {8 << 10, time.Second, 3600, 3600},
		"dripping":        {1, 1100 * time.Millisecond, 3600, 272},
		"stopping":        {8 << 10, 6 * time.Minute, 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer near.Close()
				cs := &conns{timeout: 5 * time.Minute, metrics: newMetrics(nil), open: make(map[*conn]struct{})}
				server := &conn{Conn: far, conns: cs}
				server.begin(true)
				var sending sync.WaitGroup
				defer sending.Wait()
				sending.Go(func() {
					defer near.Close()
					for range c.pieces {
						time.Sleep(c.pause) // of the bubble
						if _, err := near.Write(make([]byte, c.piece)); err != nil {
							return
						}
					}
				})
				defer server.Close()
				got := 0
				buffer := make([]byte, c.piece)
				for {
					n, err := server.Read(buffer)
					if err != nil {
						if wantsEnd := c.comes == c.pieces; wantsEnd == os.IsTimeout(err) {
							t.Errorf("it ended with %v", err)
						}
						break
					}
					got += n
				}
				if got/c.piece != c.comes {
					t.Errorf("%d of %d pieces came, want %d", got/c.piece, c.pieces, c.comes)
				}
			})
		})
	}
}
