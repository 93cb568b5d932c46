package metadata

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// statements are the names under which statements are measured and traced. They
// are those that errors begin with, without what follows in quotes. The last is for a
// name that is missing here.
var statements = [...]string{
	"accept the epoch", "add alias", "bump the epoch", "change the subscription of", "claim recent messages",
	"claim work", "commit a new message", "commit collected messages", "commit flags", "commit new messages", "commit one mailbox",
	"commit two mailboxes", "count the chunks of a mailbox", "compare the usage with the limits", "confirm the version of a mailbox", "count the owners of objects",
	"count the quota of an account", "count what is left of an account", "create account", "create domain", "create mailbox", "create tenant",
	"delete domain", "delete mailbox", "delete tenant", "doom orphans", "empty an account", "find accounts to be deleted",
	"find accounts to look through", "find deleted mailboxes", "find doomed objects", "find expunged messages",
	"find mailboxes", "find old deliveries", "find the mailbox", "find the recipient", "find why a mailbox was not made", "forget a deleted mailbox", "forget deleted objects",
	"forget old deliveries", "forget threads", "forget what was expunged", "list accounts", "list aliases", "list deleted mailboxes", "list domains",
	"list doomed objects", "list mailboxes", "list objects of messages", "list tenants", "lift the hold of an account", "list threads without a message", "load deleted mailbox",
	"load mailbox", "lock mailboxes", "log in", "look for children", "mark the mailboxes of an account as deleted",
	"note a listing", "note that the account was looked through", "ping", "postpone doomed objects", "read chunks as they are stored", "read messages", "read the days of expunges", "read the hold",
	"read objects of messages", "read sizes of messages", "read the accepted epoch", "read the account", "read the clock", "read the epoch",
	"read the number of the schema", "read the objects of an account", "read the settings of the server",
	"read the usage", "read the version of a mailbox", "read the versions of accounts", "read the versions of mailboxes", "read what is known of objects", "release work", "remove alias",
	"remove an account", "rename mailbox", "repair a row", "replace chunks that cannot be read", "repair the owners of objects", "repair the quota of an account",
	"resolve a commit in doubt", "restore mailbox", "set the first limit", "set the hold of", "set the limits of", "set the password of",
	"set the state of", "set the trace of an account", "take the mailbox into the new epoch",
	otherStatement,
}

const otherStatement = "other"

// The classes of errors that are counted. What is an answer, such as ErrConflict or
// ErrNotFound, is none.
const (
	classUnavailable = "unavailable" // no connection, or it broke, or the server is going down or up
	classTimeout     = "timeout"     // of the server's for locks and statements, or no answer in time
	classInDoubt     = "in_doubt"
	classOther       = "other" // the server refused it for good: something is wrong with it, or with us
)

var classes = [...]string{classUnavailable, classTimeout, classInDoubt, classOther}

// What became of commits in doubt.
const (
	doubtHappened  = "happened"
	doubtLost      = "lost"      // it had not happened, and another commit came first
	doubtDuplicate = "duplicate" // it had not happened, and another made the same delivery
	doubtResent    = "resent"    // it had not happened, and was sent again
	doubtUnknown   = "unknown"
)

var doubts = [...]string{doubtHappened, doubtLost, doubtDuplicate, doubtResent, doubtUnknown}

// Why calls are turned away without waiting for a connection.
const (
	shedAway = "away" // none can be had
	shedLong = "long" // the wait would be too long
)

// metrics are the figures of a DB.
type metrics struct {
	statements map[string]*statement
	errors     map[string]prometheus.Counter // by class
	doubts     map[string]prometheus.Counter // by outcome
	retries    prometheus.Counter
	shed       map[string]prometheus.Counter // by reason
	warnings   prometheus.Gauge
	refused    prometheus.Counter // of the past
	tracer     trace.Tracer       // nil: no traces
}

// statement is one of them, with what is made of its name once for all.
type statement struct {
	duration prometheus.Observer
	span     string
	options  []trace.SpanStartOption
}

func newMetrics(reg prometheus.Registerer, traces trace.TracerProvider) *metrics {
	in := promauto.With(reg)
	durations := in.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "starling_postgres_statement_duration_seconds",
		Help:    "From sending a statement to the end of its answer, without the wait for a connection.",
		Buckets: []float64{.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 15},
	}, []string{"statement"})
	failed := in.NewCounterVec(prometheus.CounterOpts{
		Name: "starling_postgres_errors_total",
		Help: "Calls that PostgreSQL did not do, after what was tried again.",
	}, []string{"class"})
	doubted := in.NewCounterVec(prometheus.CounterOpts{
		Name: "starling_postgres_in_doubt_total",
		Help: "Commits whose answer was lost, by what was found out about them.",
	}, []string{"outcome"})
	shed := in.NewCounterVec(prometheus.CounterOpts{
		Name: "starling_postgres_shed_total",
		Help: "Calls that were turned away at once: no connection can be had (away), or too many wait for one (long).",
	}, []string{"reason"})
	m := &metrics{
		statements: map[string]*statement{}, errors: map[string]prometheus.Counter{}, doubts: map[string]prometheus.Counter{},
		shed: map[string]prometheus.Counter{shedAway: shed.WithLabelValues(shedAway), shedLong: shed.WithLabelValues(shedLong)},
		retries: in.NewCounter(prometheus.CounterOpts{
			Name: "starling_postgres_retries_total",
			Help: "Statements that were sent again, most often on another connection.",
		}),
		warnings: in.NewGauge(prometheus.GaugeOpts{
			Name: "starling_postgres_durability_warnings",
			Help: "Settings of the server with which acknowledged changes may be lost, when they were last looked at.",
		}),
		refused: in.NewCounter(prometheus.CounterOpts{
			Name: "starling_postgres_past_refused_total",
			Help: "Connections and answers that were refused because their server is of an older epoch than one that was seen.",
		}),
	}
	for _, name := range statements {
		m.statements[name] = &statement{
			duration: durations.WithLabelValues(name),
			span:     "postgres " + name,
			options: []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
				attribute.String("db.system.name", "postgresql"), attribute.String("db.operation.name", name))},
		}
	}
	for _, class := range classes {
		m.errors[class] = failed.WithLabelValues(class)
	}
	for _, outcome := range doubts {
		m.doubts[outcome] = doubted.WithLabelValues(outcome)
	}
	if traces != nil {
		m.tracer = traces.Tracer("starling/metadata")
	}
	return m
}

// of finds a statement by what errors of it begin with.
func (m *metrics) of(what string) *statement {
	if s := m.statements[what]; s != nil {
		return s
	}
	name, _, _ := strings.Cut(what, ` "`)
	if s := m.statements[name]; s != nil {
		return s
	}
	return m.statements[otherStatement]
}

// running is a statement that was sent.
type running struct {
	statement *statement
	since     time.Time
	span      trace.Span // nil: none
}

// begin measures a statement from now on; the caller calls end.
func (m *metrics) begin(ctx context.Context, what string) running {
	r := running{statement: m.of(what)}
	if m.tracer != nil && trace.SpanContextFromContext(ctx).IsValid() { // what nobody asked for is no trace of its own
		_, r.span = m.tracer.Start(ctx, r.statement.span, r.statement.options...)
	}
	r.since = time.Now()
	return r
}

func (r running) end(err error) {
	r.statement.duration.Observe(time.Since(r.since).Seconds())
	if r.span == nil {
		return
	}
	if err != nil && r.span.IsRecording() {
		kind := classOther
		var refused *pgconn.PgError
		if errors.As(err, &refused) {
			kind = refused.Code
			r.span.SetAttributes(attribute.String("db.response.status_code", kind))
		} else if errors.Is(err, errBroken) {
			kind = classUnavailable
		}
		r.span.SetAttributes(attribute.String("error.type", kind))
		r.span.SetStatus(codes.Error, "")
	}
	r.span.End()
}

// failed counts an error that a caller gets, and returns it.
func (m *metrics) failed(err error) error {
	if err == nil {
		return nil // before anything is allocated
	}
	if class := classOf(err); class != "" {
		m.errors[class].Inc()
	}
	return err
}

// classOf is the class of a classified error, or "" if it is an answer, the caller's own
// wish to end, or an error of what the caller does with the rows.
func classOf(err error) string {
	var refused *pgconn.PgError
	switch {
	case errors.Is(err, ErrExists) || errors.Is(err, ErrConflict) || errors.Is(err, context.Canceled):
		return ""
	case errors.Is(err, ErrInDoubt):
		return classInDoubt
	case errors.As(err, &refused) && timedOut(refused.Code):
		return classTimeout
	case errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, errNoConnection):
		return classTimeout
	case errors.Is(err, ErrUnavailable):
		return classUnavailable
	case errors.As(err, &refused):
		return classOther
	}
	return ""
}

// timedOut says that the server gave up: a statement, a lock, an idle transaction.
func timedOut(code string) bool { return code == "57014" || code == "55P03" || code == "25P03" }

// poolCollector reads what the pool counts itself.
type poolCollector struct {
	db *DB

	trips, connections, limit, acquires, waiting, waits, waited, dials, epoch *prometheus.Desc
}

func newPoolCollector(db *DB) *poolCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("starling_postgres_"+name, help, labels, nil)
	}
	return &poolCollector{
		db:          db,
		trips:       desc("round_trips_total", "Statements and pipelines that were sent and waited for."),
		connections: desc("connections", "Connections to PostgreSQL.", "state"),
		limit:       desc("max_connections", "How many connections there may be."),
		acquires:    desc("acquires_total", "Connections that were taken from the pool."),
		waiting:     desc("acquires_waiting", "Calls that wait for a connection."),
		waits:       desc("acquire_waits_total", "Of them, those that found no idle connection."),
		waited:      desc("acquire_wait_seconds_total", "How long those waited."),
		dials:       desc("dials_total", "Connections that were tried to be made."),
		epoch:       desc("epoch", "The highest epoch of the database that was seen: its timeline times 2^24, and its generation."),
	}
}

// Describe sends the descriptions of what Collect sends.
func (c *poolCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.trips, c.connections, c.limit, c.acquires, c.waiting, c.waits, c.waited, c.dials, c.epoch} {
		to <- d
	}
}

// Collect sends the figures of now.
func (c *poolCollector) Collect(to chan<- prometheus.Metric) {
	s := c.db.Stats()
	send := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, kind, value, labels...)
	}
	send(c.trips, prometheus.CounterValue, float64(s.RoundTrips))
	send(c.connections, prometheus.GaugeValue, float64(s.Idle), "idle")
	send(c.connections, prometheus.GaugeValue, float64(s.Conns-s.Idle), "used")
	send(c.limit, prometheus.GaugeValue, float64(c.db.config.MaxConns))
	send(c.acquires, prometheus.CounterValue, float64(s.Acquires))
	send(c.waiting, prometheus.GaugeValue, float64(c.db.queue.length()))
	send(c.waits, prometheus.CounterValue, float64(s.AcquireWaits))
	send(c.waited, prometheus.CounterValue, s.AcquireWait.Seconds())
	send(c.dials, prometheus.CounterValue, float64(s.Dials))
	send(c.epoch, prometheus.GaugeValue, float64(c.db.SeenEpoch()))
}
