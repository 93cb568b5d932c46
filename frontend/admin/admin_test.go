package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"starling/frontend/admin"
	"starling/frontend/mailstore"
	"starling/metadata"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dependency is one that a test takes away and brings back.
type dependency struct {
	mu    sync.Mutex
	err   error
	asked chan struct{} // has an element after each question
}

func (d *dependency) set(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *dependency) ask(context.Context) error {
	select {
	case d.asked <- struct{}{}:
	default:
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// store is one that knows one account.
type store struct {
	mu    sync.Mutex
	until time.Time
	err   error
}

func (s *store) Status() mailstore.Status { return mailstore.Status{Mailboxes: 7} }

func (s *store) SetTrace(_ context.Context, account string, until time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if account != "ann@example.org" {
		return metadata.ErrNotFound
	}
	s.until = until
	return nil
}

// node is a server with what it shows.
type node struct {
	t        *testing.T
	url      string
	health   *admin.Health
	server   *admin.Server
	registry *prometheus.Registry
	store    *store
}

func newNode(t *testing.T, pprof bool) *node {
	t.Helper()
	n := &node{t: t, health: admin.NewHealth(zap.NewNop()), registry: prometheus.NewRegistry(), store: &store{}}
	n.server = admin.New(admin.Config{
		Hostname: "one.example", Version: "v1.2.3", Health: n.health, Metrics: n.registry, Log: zap.NewNop(), PProf: pprof,
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.url = "http://" + l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- n.server.Serve(l) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := n.server.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		n.health.Close()
	})
	return n
}

// ask asks the node; header are pairs of a name and a value.
func (n *node) ask(method, path string, header ...string) (status int, kind, text string) {
	n.t.Helper()
	r, err := http.NewRequestWithContext(n.t.Context(), method, n.url+path, http.NoBody)
	if err != nil {
		n.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		n.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return answer.StatusCode, answer.Header.Get("Content-Type"), string(body)
}

// await asks /readyz until it answers so.
func (n *node) await(status int, text string) {
	n.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		gotStatus, _, got := n.ask(http.MethodGet, "/readyz")
		if gotStatus == status && got == text {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("/readyz says %d %q; want %d %q", gotStatus, got, status, text)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (n *node) attach() {
	n.server.Attach(admin.Parts{
		Store: n.store, Sessions: func() map[string]int { return map[string]int{"idle": 3} },
		Deliveries: func() int { return 2 }, Bus: func() admin.Bus { return admin.Bus{Connected: true, Peers: 1} },
	})
}

// A node says what it waits for, serves, does without some, and drains.
func TestReadiness(t *testing.T) {
	t.Parallel()
	n := newNode(t, false)
	postgres := &dependency{err: errors.New("connection\nrefused"), asked: make(chan struct{}, 1)}
	schema := &dependency{err: admin.ErrUnknown, asked: make(chan struct{}, 1)}
	nats := &dependency{asked: make(chan struct{}, 1)}
	const soon = 5 * time.Millisecond
	n.health.Watch(admin.Dependency{Name: "postgres", Required: true, Patience: time.Hour, Ask: postgres.ask, Every: soon})
	n.health.Watch(admin.Dependency{Name: "schema", Required: true, Ask: schema.ask, Every: soon})
	n.health.Watch(admin.Dependency{Name: "nats", Ask: nats.ask, Every: soon})
	if status, _, text := n.ask(http.MethodGet, "/livez"); status != 200 || text != "ok\n" {
		t.Errorf("/livez: %d %q", status, text)
	}
	n.await(503, "postgres: connection refused\nschema: not known yet\n")

	postgres.set(nil)
	schema.set(errors.New("too old"))
	n.await(503, "schema: too old\n")
	short, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if err := n.health.Await(short, "schema"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("awaited what is not there: %v", err)
	}
	schema.set(nil)
	if err := n.health.Await(t.Context(), "schema"); err != nil {
		t.Error(err)
	}
	n.await(503, "starting\n")
	n.health.Serve()
	n.await(200, "ok\n")

	nats.set(errors.New("away"))
	n.await(200, "ok\ndegraded: nats: away\n")
	// Required, but there is patience with it; and what could not be found out is as it was.
	postgres.set(errors.New("gone"))
	schema.set(admin.ErrUnknown)
	n.await(200, "ok\ndegraded: postgres: gone\ndegraded: nats: away\n")
	status, kind, text := n.ask(http.MethodGet, "/readyz", "Accept", "application/json")
	var ready admin.Readiness
	if err := json.Unmarshal([]byte(text), &ready); err != nil || status != 200 || kind != "application/json" || !ready.Ready ||
		len(ready.Dependencies) != 3 || ready.Dependencies[0].Up || ready.Dependencies[0].Error != "gone" || !ready.Dependencies[1].Up {
		t.Errorf("%d %s %v %s", status, kind, err, text)
	}
	if err := testutil.GatherAndCompare(n.registry, strings.NewReader(`
# HELP starling_dependency_up 1 while a server that the node needs is there, or what it needs of one.
# TYPE starling_dependency_up gauge
starling_dependency_up{dependency="nats"} 0
starling_dependency_up{dependency="postgres"} 0
starling_dependency_up{dependency="schema"} 1
# HELP starling_ready 1 while the node should get new connections.
# TYPE starling_ready gauge
starling_ready 1
`), "starling_dependency_up", "starling_ready"); err != nil {
		t.Error(err)
	}
	schema.set(errors.New("too new"))
	n.await(503, "schema: too new\ndegraded: postgres: gone\ndegraded: nats: away\n")
	n.health.Drain()
	n.await(503, "draining\nschema: too new\ndegraded: postgres: gone\ndegraded: nats: away\n")
	if status, _, _ := n.ask(http.MethodGet, "/livez"); status != 200 {
		t.Errorf("/livez: %d while draining", status)
	}
}

// A required dependency that stays away takes the node's readiness in the end.
func TestPatienceEnds(t *testing.T) {
	t.Parallel()
	n := newNode(t, false)
	postgres := &dependency{asked: make(chan struct{}, 1)}
	n.health.Watch(admin.Dependency{Name: "postgres", Required: true, Patience: 50 * time.Millisecond, Ask: postgres.ask, Every: time.Millisecond})
	n.health.Serve()
	n.await(200, "ok\n")
	postgres.set(errors.New("gone"))
	n.await(503, "postgres: gone\n")
	postgres.set(nil)
	n.await(200, "ok\n")
}

// A dependency that never answers holds up neither probes nor the end.
func TestDependencyHangs(t *testing.T) {
	t.Parallel()
	n := newNode(t, false)
	n.health.Watch(admin.Dependency{Name: "postgres", Required: true, Ask: func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}})
	n.await(503, "postgres: not known yet\n")
}

func TestNode(t *testing.T) {
	t.Parallel()
	n := newNode(t, false)
	var got map[string]any
	read := func() {
		t.Helper()
		got = nil
		status, kind, text := n.ask(http.MethodGet, "/node")
		if err := json.Unmarshal([]byte(text), &got); err != nil || status != 200 || kind != "application/json" {
			t.Fatalf("%d %s %v %s", status, kind, err, text)
		}
	}
	read()
	if got["hostname"] != "one.example" || got["version"] != "v1.2.3" || got["ready"] != false || got["imap"] != nil {
		t.Errorf("while it starts: %v", got)
	}
	n.attach()
	n.health.Serve()
	read()
	path := func(keys ...string) any {
		var at any = got
		for _, key := range keys {
			at, _ = at.(map[string]any)[key]
		}
		return at
	}
	if path("imap", "sessions", "idle") != 3.0 || path("lmtp", "sessions") != 2.0 || path("nats", "peers") != 1.0 ||
		path("mailstore", "mailboxes") != 7.0 || path("ready") != true {
		t.Errorf("it says %v", got)
	}
}

// The trace of an account is switched on and off; what is wrong is said.
func TestTrace(t *testing.T) {
	t.Parallel()
	n := newNode(t, false)
	put := func(query string) (int, string, string) {
		return n.ask(http.MethodPut, "/accounts/ann@example.org/trace"+query)
	}
	if status, kind, text := put(""); status != 503 || kind != "application/problem+json" || !strings.Contains(text, "starting") {
		t.Errorf("while it starts: %d %s %s", status, kind, text)
	}
	n.attach()
	before := time.Now()
	status, _, text := put("?for=30m")
	var said struct {
		Account string
		Until   time.Time
	}
	if err := json.Unmarshal([]byte(text), &said); err != nil || status != 200 || said.Account != "ann@example.org" {
		t.Errorf("%d %v %s", status, err, text)
	}
	if length := said.Until.Sub(before); length < 29*time.Minute || length > 31*time.Minute || !n.store.until.Equal(said.Until) {
		t.Errorf("it says %v from now, and did %v", length, n.store.until)
	}
	for _, query := range []string{"?for=0s", "?for=-1m", "?for=25h", "?for=soon"} {
		if status, kind, text := put(query); status != 400 || kind != "application/problem+json" || !strings.Contains(text, "at most 24h") {
			t.Errorf("%s: %d %s %s", query, status, kind, text)
		}
	}
	if status, _, _ := n.ask(http.MethodDelete, "/accounts/ann@example.org/trace"); status != 204 || !n.store.until.IsZero() {
		t.Errorf("DELETE: %d, and it is until %v", status, n.store.until)
	}
	if status, kind, text := n.ask(http.MethodPut, "/accounts/bob@example.org/trace"); status != 404 || kind != "application/problem+json" {
		t.Errorf("%d %s %s", status, kind, text)
	}
	n.store.err = metadata.ErrUnavailable
	if status, _, text := put(""); status != 503 {
		t.Errorf("%d %s", status, text)
	}
	n.store.err = errors.New("secret of the house")
	if status, _, text := put(""); status != 500 || strings.Contains(text, "secret") {
		t.Errorf("%d %s", status, text)
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	n := newNode(t, false)
	for _, test := range []struct {
		method, path string
		status       int
	}{
		{http.MethodGet, "/", 404},
		{http.MethodGet, "/none", 404},
		{http.MethodGet, "/debug/pprof/", 404}, // it is off
		{http.MethodPost, "/livez", 405},
		{http.MethodGet, "/accounts/ann@example.org/trace", 405},
	} {
		status, kind, text := n.ask(test.method, test.path)
		var got struct {
			Title  string
			Status int
		}
		err := json.Unmarshal([]byte(text), &got)
		if err != nil || status != test.status || got.Status != test.status || got.Title == "" || kind != "application/problem+json" {
			t.Errorf("%s %s: %d %s %v %s", test.method, test.path, status, kind, err, text)
		}
	}
	if status, _, _ := n.ask(http.MethodGet, "/livez", "X-Long", strings.Repeat("x", 64<<10)); status != 431 {
		t.Errorf("a header of 64 KiB: status %d", status)
	}
}

func TestProfiles(t *testing.T) {
	t.Parallel()
	n := newNode(t, true)
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/goroutine?debug=1", "/debug/pprof/cmdline"} {
		if status, _, text := n.ask(http.MethodGet, path); status != 200 || text == "" {
			t.Errorf("%s: %d", path, status)
		}
	}
}

// Figures go by Prometheus' rules; those of the process are among them.
func TestMetrics(t *testing.T) {
	t.Parallel()
	n := newNode(t, false)
	n.health.Watch(admin.Dependency{Name: "nats", Ask: func(context.Context) error { return nil }})
	status, _, text := n.ask(http.MethodGet, "/metrics")
	for _, want := range []string{"go_goroutines ", "process_cpu_seconds_total ", `starling_build_info{`, `version="v1.2.3"`, "starling_draining 0\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in what is scraped", want)
		}
	}
	problems, err := testutil.GatherAndLint(n.registry)
	if err != nil || status != 200 {
		t.Fatal(status, err)
	}
	ours := slices.DeleteFunc(problems, func(p promlint.Problem) bool { return !strings.HasPrefix(p.Metric, "starling_") })
	if len(ours) > 0 {
		t.Errorf("%+v", ours)
	}
}
