package metadata_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

// figure reads a counter, a gauge, or how many values a histogram has. A series
// that is not there fails the test.
func figure(t *testing.T, reg *prometheus.Registry, name string, labels ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	check(t, err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if slices.EqualFunc(m.GetLabel(), labels, func(l *dto.LabelPair, v string) bool { return l.GetValue() == v }) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	t.Fatalf("there is no %s%v", name, labels)
	return 0
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	db := metadatatest.Open(t, func(c *metadata.Config) { c.Metrics = reg })
	problems, err := testutil.GatherAndLint(reg)
	check(t, err)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	of := func(statement string) float64 {
		return figure(t, reg, "starling_postgres_statement_duration_seconds", statement)
	}
	for _, class := range []string{"unavailable", "timeout", "in_doubt", "other"} {
		if n := figure(t, reg, "starling_postgres_errors_total", class); n != 0 {
			t.Errorf("%v errors of class %s before anything", n, class)
		}
	}
	n := inboxOf(t, db)
	wantErr(t, errOf(db.Login(t.Context(), "nobody@example.org")), metadata.ErrNotFound)
	n = do(t, db, n, n.appending(3))
	do(t, db, n, n.storing(metadata.Seen, 1))
	wantErr(t, errOf(db.Commit(t.Context(), n.storing(metadata.Seen, 2))), metadata.ErrConflict)
	check(t, errOf(db.CommitLocked(t.Context(), n.box.Account, []metadata.MailboxID{n.box.ID}, []metadata.Version{{}}, func(l []metadata.Load) (*metadata.Commit, error) {
		return apply(nil, l[0]).expunging(1), nil
	})))
	check(t, db.SetHold(t.Context(), "alice@example.org", "a lawsuit"))
	warnings, err := db.Warnings(t.Context())
	check(t, err)
	for statement, want := range map[string]float64{
		"log in": 1, "commit new messages": 1, "commit flags": 2, "lock mailboxes": 1, "commit one mailbox": 1, "set the hold of": 1,
		"resolve a commit in doubt": 0, "other": 0,
	} {
		if got := of(statement); got != want {
			t.Errorf("%q was measured %v times, want %v", statement, got, want)
		}
	}
	s := db.Stats()
	for name, want := range map[string]float64{
		"round_trips_total": float64(s.RoundTrips), "max_connections": 8, "acquires_total": float64(s.Acquires),
		"dials_total": float64(s.Dials), "retries_total": 0, "durability_warnings": float64(len(warnings)),
	} {
		if got := figure(t, reg, "starling_postgres_"+name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if used := figure(t, reg, "starling_postgres_connections", "used"); used != 0 {
		t.Errorf("%v connections are used", used)
	}
	for _, class := range []string{"unavailable", "timeout", "in_doubt", "other"} {
		if n := figure(t, reg, "starling_postgres_errors_total", class); n != 0 {
			t.Errorf("answers were counted as %v errors of class %s", n, class)
		}
	}
	_, err = db.Pool().Exec(t.Context(), "drop table subscription")
	check(t, err)
	if errOf(db.List(t.Context(), n.box.Account)) == nil {
		t.Fatal("a list without its table")
	}
	if n := figure(t, reg, "starling_postgres_errors_total", "other"); n != 1 {
		t.Errorf("a refusal counts as %v", n)
	}
}

// What becomes of connections that break, and of commits whose answer is lost.
func TestMetricsOfFailures(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	next := reg
	d := newDoubting(t, func(c *metadata.Config) { c.Metrics, next = next, prometheus.NewRegistry() })
	n := d.n
	d.loseAnswer(func() {})
	done, err := d.through.Commit(t.Context(), n.storing(metadata.Seen, 1))
	check(t, err)
	n.box.Version = metadata.Version{ModSeq: n.box.ModSeq + 1, Stamp: done.Stamps[0], Epoch: done.Epoch}
	d.loseQuestion(func() {})
	check(t, errOf(d.through.Commit(t.Context(), n.storing(metadata.Seen, 2))))
	for outcome, want := range map[string]float64{"happened": 1, "resent": 1, "lost": 0, "duplicate": 0, "unknown": 0} {
		if got := figure(t, reg, "starling_postgres_in_doubt_total", outcome); got != want {
			t.Errorf("%v commits in doubt have %s, want %v", got, outcome, want)
		}
	}
	if n := figure(t, reg, "starling_postgres_retries_total"); n == 0 {
		t.Error("no retries")
	}
	d.setDown(true)
	d.cut()
	wantErr(t, errOf(d.through.List(t.Context(), n.box.Account)), metadata.ErrUnavailable)
	if n := figure(t, reg, "starling_postgres_errors_total", "unavailable"); n != 1 {
		t.Errorf("%v calls found PostgreSQL away, want 1", n)
	}
}

// A lock that is not to be had is a timeout, not an outage.
func TestMetricsOfTimeouts(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	db := metadatatest.Open(t, func(c *metadata.Config) { c.Metrics, c.LockTimeout = reg, 10*time.Millisecond })
	inboxOf(t, db)
	tx, err := db.Pool().Begin(t.Context())
	check(t, err)
	_, err = tx.Exec(t.Context(), "update account set hold = false")
	check(t, err)
	wantErr(t, db.SetHold(t.Context(), "alice@example.org", "a lawsuit"), metadata.ErrUnavailable)
	check(t, tx.Rollback(t.Context()))
	if n := figure(t, reg, "starling_postgres_errors_total", "timeout"); n != 1 {
		t.Errorf("%v timeouts, want 1", n)
	}
}

// The source is held against the table: every statement has its name in it, and no
// name is left over.
func TestStatementsHaveNames(t *testing.T) {
	t.Parallel()
	used := map[string]bool{metadata.OtherStatement: true}
	files, err := filepath.Glob("*.go")
	check(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		check(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if len(n.Args) > 1 && slices.Contains([]string{"row", "rows", "writeRow", "writeRows", "accountIDs", "begin", "underLock", "scan"}, called(n)) {
					use(t, used, n.Args[1])
				}
			case *ast.AssignStmt:
				for i, to := range n.Lhs {
					if ident, ok := to.(*ast.Ident); ok && ident.Name == "what" && i < len(n.Rhs) {
						use(t, used, n.Rhs[i])
					}
					if field, ok := to.(*ast.SelectorExpr); ok && field.Sel.Name == "what" {
						use(t, used, n.Rhs[i])
					}
				}
			}
			return true
		})
	}
	for _, name := range metadata.Statements() {
		if !used[name] {
			t.Errorf("no statement is named %q", name)
		}
		delete(used, name)
	}
	for name := range used {
		t.Errorf("%q is missing in the table of statements", name)
	}
}

func called(c *ast.CallExpr) string {
	if s, ok := c.Fun.(*ast.SelectorExpr); ok {
		return s.Sel.Name
	}
	return ""
}

func use(t *testing.T, used map[string]bool, name ast.Expr) {
	t.Helper()
	if call, ok := name.(*ast.CallExpr); ok && called(call) == "Sprintf" {
		name = call.Args[0]
	}
	if lit, ok := name.(*ast.BasicLit); ok {
		text, err := strconv.Unquote(lit.Value)
		check(t, err)
		text, _, _ = strings.Cut(text, " %")
		used[text] = true
	}
}

// Without traces a statement is measured without a further allocation.
func TestMeasuringAllocatesNothing(t *testing.T) {
	db := metadatatest.Open(t, func(c *metadata.Config) { c.Metrics = prometheus.NewRegistry() })
	if n := testing.AllocsPerRun(100, func() { db.Measure(t.Context(), `create tenant "x"`) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTraces(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(spans))
	db := metadatatest.Open(t, func(c *metadata.Config) { c.Traces = provider })
	n := inboxOf(t, db)
	before := len(spans.Ended())
	ctx, parent := provider.Tracer("test").Start(t.Context(), "parent")
	check(t, errOf(db.Commit(ctx, n.appending(1))))
	check(t, errOf(db.Load(ctx, n.box.Account, n.box.ID, metadata.Version{})))
	_, err := db.Pool().Exec(ctx, "drop table subscription")
	check(t, err)
	if errOf(db.List(ctx, n.box.Account)) == nil {
		t.Fatal("a list without its table")
	}
	ended := spans.Ended()[before:]
	var names []string
	for _, s := range ended {
		names = append(names, s.Name())
		if s.Parent().SpanID() != parent.SpanContext().SpanID() || s.SpanKind() != trace.SpanKindClient {
			t.Errorf("%s has parent %v and kind %v", s.Name(), s.Parent().SpanID(), s.SpanKind())
		}
		attributes := map[string]string{}
		for _, a := range s.Attributes() {
			attributes[string(a.Key)] = a.Value.AsString()
		}
		if attributes["db.system.name"] != "postgresql" || "postgres "+attributes["db.operation.name"] != s.Name() {
			t.Errorf("%s has %v", s.Name(), attributes)
		}
		failed := s.Name() == "postgres list mailboxes"
		if (s.Status().Code == codes.Error) != failed || (attributes["db.response.status_code"] == "42P01") != failed {
			t.Errorf("%s ended with %v and %v", s.Name(), s.Status(), attributes)
		}
	}
	if want := []string{"postgres commit a new message", "postgres load mailbox", "postgres list mailboxes"}; !slices.Equal(names, want) {
		t.Errorf("the spans are %q, want %q", names, want)
	}
}
