package imap

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"starling/frontend/imapwire"
	"starling/metadata"
)

// figures are the figures of a registry as they would be scraped: name and labels, and the
// value, which for a histogram is the count.
func figures(t testing.TB, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			name := strings.TrimPrefix(family.GetName(), "starling_imap_") + "{" + strings.Join(labels, ",") + "}"
			switch family.GetType().String() {
			case "HISTOGRAM":
				all[name] = float64(m.GetHistogram().GetSampleCount())
			case "GAUGE":
				all[name] = m.GetGauge().GetValue()
			default:
				all[name] = m.GetCounter().GetValue()
			}
		}
	}
	return all
}

// await waits until a figure has a value, which it must come to by itself.
func await(t testing.TB, reg *prometheus.Registry, name string, want float64) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		if got := figures(t, reg)[name]; got == want {
			return
		} else if time.Now().After(end) {
			t.Fatalf("%s is %v, want %v", name, got, want)
		}
	}
}

// Every series is there from the start, with names and help as they should be.
func TestMetricsFromTheStart(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	newMetrics(reg)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	all := figures(t, reg)
	for _, name := range []string{
		"commands_total{UID FETCH,ok}", "commands_total{unknown,bad}", "commands_total{IDLE,bye}", "command_duration_seconds{NOOP}",
		"sessions{idle}", "disconnects_total{login_ended}", "refused_total{tenant}", "notifications_total{}",
		"notification_latency_seconds{}", "received_bytes_total{}", "sent_bytes_total{}", "panics_total{}",
	} {
		if value, ok := all[name]; !ok || value != 0 {
			t.Errorf("%s is %v, %v", name, value, ok)
		}
	}
	if _, ok := all["command_duration_seconds{IDLE}"]; ok {
		t.Error("IDLE has a duration")
	}
}

// What sessions do is counted once, and in the end no session is counted as being there.
func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	c := newCluster(t, 1, clusterOptions{}, func(config *Config) { config.Metrics = reg })
	user := c.account(t, "counted@example.org", metadata.Quota{}).Name
	conn := c.nodes[0].dial(t)
	conn.until("* OK ")
	await(t, reg, "sessions{not_authenticated}", 1)
	conn.login(user)
	await(t, reg, "sessions{authenticated}", 1)
	for _, command := range []string{"SELECT INBOX", "NOOP", "NOOP", "FETCH 5 UID", "SELECT none", "NONSENSE", "LOGIN a b"} {
		conn.send("x " + command)
		conn.until("x ")
	}
	conn.send("x SELECT INBOX")
	conn.until("x OK ")
	await(t, reg, "sessions{selected}", 1)
	conn.send("i IDLE")
	conn.until("+ ")
	await(t, reg, "sessions{idle}", 1)
	writer := c.nodes[0].dial(t).login(user)
	writer.send("a APPEND INBOX {5+}\r\nhello")
	conn.until("* 1 EXISTS")
	await(t, reg, "notifications_total{}", 1)
	await(t, reg, "notification_latency_seconds{}", 1)
	conn.send("DONE")
	conn.until("i OK ")
	conn.send("o LOGOUT")
	conn.until("o OK ")
	_ = writer.conn.Close()
	await(t, reg, "disconnects_total{logout}", 1)
	await(t, reg, "disconnects_total{client}", 1)
	all := figures(t, reg)
	for name, want := range map[string]float64{
		"commands_total{NOOP,ok}": 2, "commands_total{SELECT,ok}": 2, "commands_total{SELECT,no}": 1, "commands_total{FETCH,bad}": 1,
		"commands_total{unknown,bad}": 1, "commands_total{LOGIN,ok}": 2, "commands_total{LOGIN,bad}": 1,
		"commands_total{IDLE,ok}": 1, "commands_total{LOGOUT,ok}": 1, "command_duration_seconds{NOOP}": 2,
		"command_duration_seconds{LOGIN}": 2, "panics_total{}": 0,
	} {
		if all[name] != want {
			t.Errorf("%s is %v, want %v", name, all[name], want)
		}
	}
	for _, name := range activities {
		await(t, reg, "sessions{"+name+"}", 0)
	}
	if all["received_bytes_total{}"] < 100 || all["sent_bytes_total{}"] < 500 {
		t.Errorf("%v bytes were received, %v sent", all["received_bytes_total{}"], all["sent_bytes_total{}"])
	}
}

// A login over a limit is refused, and may be tried again when others have gone; nothing
// is left of sessions that have ended.
func TestLoginLimits(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]func(*Config){
		"account": func(c *Config) { c.MaxPerAccount = 2 }, "tenant": func(c *Config) { c.MaxPerTenant = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := prometheus.NewPedanticRegistry()
			c := newCluster(t, 1, clusterOptions{}, limit, func(config *Config) { config.Metrics = reg })
			one := c.account(t, "one@example.org", metadata.Quota{}).Name
			other := c.account(t, "two@example.org", metadata.Quota{}).Name
			node := c.nodes[0]
			first, second := node.dial(t).login(one), node.dial(t).login(one)
			waits := node.dial(t)
			waits.send("l LOGIN " + one + " " + testPassword)
			waits.until("l NO [LIMIT] ")
			if name == "account" {
				node.dial(t).login(other)
			} else {
				stranger := node.dial(t)
				stranger.send("l LOGIN " + other + " " + testPassword)
				stranger.until("l NO [LIMIT] ")
				_ = stranger.conn.Close()
			}
			first.send("o LOGOUT")
			first.until("o OK ")
			first.until("")
			await(t, reg, "disconnects_total{logout}", 1)
			for { // the session is counted out as it closes
				waits.send("l LOGIN " + one + " " + testPassword)
				if strings.HasPrefix(waits.until("l "), "l OK ") {
					break
				}
			}
			for range 50 {
				_ = node.dial(t).conn.Close()
			}
			_ = second.conn.Close()
			_ = waits.conn.Close()
			if name == "tenant" {
				for node.server.logins.count() > 0 {
					runtime.Gosched()
				}
			}
			if got := figures(t, reg)["refused_total{"+name+"}"]; got < 1 {
				t.Errorf("%v refusals were counted", got)
			}
		})
	}
}

func (l *logins) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accounts) + len(l.tenants)
}

// Many that log in and out at once never are more than the limit, and leave nothing.
func TestLoginLimitsUnderChurn(t *testing.T) {
	t.Parallel()
	l := newLogins(3, 5)
	accounts := []metadata.Account{{ID: 1, Tenant: 1}, {ID: 2, Tenant: 1}, {ID: 3, Tenant: 2}}
	done := make(chan int)
	for i := range 8 {
		go func() {
			admitted := 0
			for n := range 2000 {
				account := &accounts[(i+n)%len(accounts)]
				if _, ok := l.admit(account); !ok {
					continue
				}
				admitted++
				l.mu.Lock()
				if l.accounts[account.ID] > 3 || l.tenants[account.Tenant] > 5 {
					t.Errorf("%v sessions of accounts, %v of tenants", l.accounts, l.tenants)
				}
				l.mu.Unlock()
				l.leave(account)
			}
			done <- admitted
		}()
	}
	total := 0
	for range 8 {
		total += <-done
	}
	if total == 0 || l.count() > 0 {
		t.Errorf("%d were admitted, %d are left", total, l.count())
	}
}

// The spans of commands have their names and how they ended, and nothing of what they
// were about; that of a notification on another node is part of the command's trace.
func TestSpans(t *testing.T) {
	t.Parallel()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	c := newCluster(t, 2, clusterOptions{traces: provider}, func(config *Config) { config.Traces = provider })
	user := c.account(t, "spans@example.org", metadata.Quota{}).Name
	writer, idles := c.nodes[0].dial(t).login(user), c.nodes[1].dial(t).login(user)
	idles.send("s SELECT INBOX")
	idles.until("s OK ")
	idles.send("i IDLE")
	idles.until("+ ")
	writer.send("a APPEND INBOX {5+}\r\nhello")
	writer.until("a OK ")
	idles.until("* 1 EXISTS")
	writer.send("n STATUS none (MESSAGES)")
	writer.until("n NO ")
	find := func(name string) sdktrace.ReadOnlySpan {
		t.Helper()
		for end := time.Now().Add(time.Minute); time.Now().Before(end); {
			for _, span := range recorder.Ended() {
				if span.Name() == name {
					return span
				}
			}
		}
		t.Fatalf("there is no span %s", name)
		return nil
	}
	command, notified := find("IMAP APPEND"), find("IMAP notify")
	if command.SpanKind() != trace.SpanKindServer || notified.SpanKind() != trace.SpanKindConsumer {
		t.Errorf("kinds are %v and %v", command.SpanKind(), notified.SpanKind())
	}
	if notified.SpanContext().TraceID() != command.SpanContext().TraceID() {
		t.Errorf("the notification is of trace %v, the command of %v", notified.SpanContext().TraceID(), command.SpanContext().TraceID())
	}
	for name, result := range map[string]string{"IMAP APPEND": "OK", "IMAP STATUS": "NO", "IMAP SELECT": "OK"} {
		if got := find(name).Attributes(); !slices.Equal(got, []attribute.KeyValue{attribute.String("imap.result", result)}) {
			t.Errorf("%s has %v", name, got)
		}
	}
}

// The moments at which sessions are told to go are spread evenly over the window, one in
// each share of it, and a few are not kept waiting.
func TestDrainSchedule(t *testing.T) {
	t.Parallel()
	const n = 2000
	window := drainWindow(n, 30*time.Second)
	if window != 24*time.Second {
		t.Errorf("the window is %v", window)
	}
	share := window / n
	for i := range n {
		for _, jitter := range []float64{0, .5, .999} {
			if at := drainAt(i, n, window, jitter); at < time.Duration(i)*share || at >= time.Duration(i+1)*share {
				t.Fatalf("session %d is told at %v, of %v", i, at, window)
			}
		}
	}
	for sessions, want := range map[int]time.Duration{0: 0, 3: 3 * drainPace} {
		if got := drainWindow(sessions, time.Hour); got != want {
			t.Errorf("%d sessions are spread over %v, want %v", sessions, got, want)
		}
	}
	if got := drainWindow(n, -time.Second); got != 0 {
		t.Errorf("without time the window is %v", got)
	}
}

// Draining ends every session with BYE, within the time it is given, whether it is parked or
// not, and cuts none off.
func TestDrain(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	c := newCluster(t, 1, clusterOptions{parks: true}, func(config *Config) { config.Metrics = reg })
	user := c.account(t, "drain@example.org", metadata.Quota{}).Name
	var clients []*client
	for range 100 {
		idles := c.nodes[0].dial(t).login(user)
		idles.send("i IDLE")
		idles.until("+ ")
		clients = append(clients, idles, c.nodes[0].dial(t).login(user))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.nodes[0].server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	for _, client := range clients {
		client.until("* BYE [UNAVAILABLE] ")
		client.until("")
	}
	if got := figures(t, reg)["disconnects_total{shutdown}"]; got != float64(len(clients)) {
		t.Errorf("%v of %d sessions ended for the shutdown", got, len(clients))
	}
}

// BenchmarkDrain is how long it takes to end 2,000 idle connections that are given no time.
func BenchmarkDrain(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		c := newCluster(b, 1, clusterOptions{})
		c.account(b, "ann@example.org", metadata.Quota{})
		for range 2000 {
			beginIdle(b, c, false)
		}
		b.StartTimer()
		if err := c.nodes[0].server.Shutdown(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCommand is one command over loopback with figures and traces of all kinds: off, of
// which none, and of which all are sampled.
func BenchmarkCommand(b *testing.B) {
	providers := map[string]trace.TracerProvider{
		"off": nil, "unsampled": sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())),
		"sampled": sdktrace.NewTracerProvider(),
	}
	for _, kind := range slices.Sorted(maps.Keys(providers)) {
		c := newCluster(b, 1, clusterOptions{}, func(config *Config) {
			config.Traces = providers[kind]
			config.Metrics = prometheus.NewRegistry()
		})
		user := c.account(b, "ann@example.org", metadata.Quota{}).Name
		client := c.nodes[0].dial(b).login(user)
		if err := client.conn.SetDeadline(time.Now().Add(time.Hour)); err != nil {
			b.Fatal(err)
		}
		client.send("s SELECT INBOX")
		client.until("s OK ")
		for i := range 100 {
			client.send(fmt.Sprintf("a%d APPEND INBOX {5+}\r\nhello", i))
			client.until(fmt.Sprintf("a%d OK ", i))
		}
		for name, command := range map[string]string{
			"capability": "CAPABILITY", "noop": "NOOP", "flags": "FETCH 1:* FLAGS", "store": "STORE 1 FLAGS (\\Seen)",
		} {
			b.Run(name+"/traces="+kind, func(b *testing.B) {
				for b.Loop() {
					client.send("x " + command)
					client.until("x OK ")
				}
			})
		}
	}
}

// BenchmarkCount is what it costs to count a command and to make its span, without the command.
func BenchmarkCount(b *testing.B) {
	b.Run("metrics", func(b *testing.B) {
		m := newMetrics(prometheus.NewRegistry())
		b.ReportAllocs()
		for b.Loop() {
			m.command("UID FETCH", imapwire.OK, time.Now())
		}
	})
	for kind, sampler := range map[string]sdktrace.Sampler{"unsampled": sdktrace.NeverSample(), "sampled": sdktrace.AlwaysSample()} {
		b.Run("span/"+kind, func(b *testing.B) {
			t := newTracer(sdktrace.NewTracerProvider(sdktrace.WithSampler(sampler)))
			b.ReportAllocs()
			for b.Loop() {
				_, span := t.command(context.Background(), "UID FETCH")
				endSpan(span, imapwire.OK, "")
			}
		})
	}
}
