package mailstore

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"starling/metadata"
)

// kind is what an operation does.
type kind int

const (
	kindAppend kind = iota
	kindStore
	kindExpunge
	kindCopy
	kindMove
	kindUndelete
	kindCollect
	kindMixed // several in one commit
	kinds
)

var kindNames = [kinds]string{"append", "store", "expunge", "copy", "move", "undelete", "collect", "mixed"}

// reason is why a mailbox is read.
type reason int

const (
	forCommand reason = iota
	forHint
	forSweep
	forSuspicion
	reasons
)

var reasonNames = [reasons]string{"command", "hint", "sweep", "suspect"}

// task is a kind of the collector's work.
type task int

const (
	taskExpunged task = iota
	taskDropped
	taskScan
	taskDoomed
	taskAccounts
	tasks
)

var taskNames = [tasks]string{"expunged", "dropped", "scan", "doomed", "accounts"}

// metrics are the figures of a Store. All series exist from the start.
type metrics struct {
	commits   [kinds]prometheus.Counter
	conflicts prometheus.Counter
	groupSize prometheus.Histogram
	readSize  prometheus.Histogram

	cold        prometheus.Counter
	held        prometheus.Counter
	catchUps    [reasons]prometheus.Counter
	hintLatency prometheus.Histogram

	rowsKept prometheus.Counter
	rowsRead prometheus.Counter

	sweepDuration prometheus.Histogram
	lastSweep     prometheus.Gauge
	sweepFound    prometheus.Counter

	overQuota       prometheus.Counter
	refusedMessage  prometheus.Counter
	refusedSnapshot prometheus.Counter
	refusedRead     prometheus.Counter
	refusedRows     prometheus.Counter
	refusedChange   prometheus.Counter
	corrupt         prometheus.Counter

	collected     prometheus.Counter
	collectFailed prometheus.Counter
	unaccepted    prometheus.Counter
	lastCollect   prometheus.Gauge
	removed       [len(removedNames)]prometheus.Counter
	backlog       [tasks]prometheus.Gauge
}

var removedNames = [...]string{"messages", "mailboxes", "objects", "accounts", "deliveries"}

// latencyBuckets are seconds, from what a fast network takes to what the sweep does.
var latencyBuckets = []float64{.0005, .001, .002, .003, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 10, 30}

// newMetrics registers the figures with reg, if it is not nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: "starling_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return auto.NewGauge(prometheus.GaugeOpts{Name: "starling_" + name, Help: help})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return auto.NewHistogram(prometheus.HistogramOpts{Name: "starling_" + name, Help: help, Buckets: buckets})
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		return auto.NewCounterVec(prometheus.CounterOpts{Name: "starling_" + name, Help: help}, []string{label})
	}
	loads := counters("mailstore_loads_total", "Readings of a mailbox: whole (cold), or of what changed since (held).", "kind")
	refused := counters("mailstore_memory_refused_total", "Requests that found no memory in their budget in time.", "what")
	rows := counters("mailstore_rows_total", "Messages' rows to answer with: remembered (kept), or asked for (read).", "source")
	runs := counters("collector_runs_total", "Runs of the collector on this node.", "result")
	m := &metrics{
		conflicts: counter("mailstore_conflicts_total", "Commits that found the mailbox changed by another node."),
		groupSize: histogram("mailstore_group_size", "Changes in one commit.", prometheus.ExponentialBuckets(1, 2, 10)),
		readSize:  histogram("mailstore_read_group_size", "Mailboxes asked about in one statement.", prometheus.ExponentialBuckets(1, 2, 9)),
		cold:      loads.WithLabelValues("cold"), held: loads.WithLabelValues("held"),
		hintLatency: histogram("mailstore_hint_latency_seconds",
			"Time from a commit on another node until this one takes in the hint, of hints that have news.", latencyBuckets),
		rowsKept:        rows.WithLabelValues("kept"),
		rowsRead:        rows.WithLabelValues("read"),
		sweepDuration:   histogram("mailstore_sweep_duration_seconds", "Time to compare all that is held with PostgreSQL.", prometheus.ExponentialBuckets(.001, 4, 8)),
		lastSweep:       gauge("mailstore_last_sweep_timestamp_seconds", "When all that is held was last compared with PostgreSQL."),
		sweepFound:      counter("mailstore_sweep_found_total", "Changes that a comparison with PostgreSQL found and no hint had told of."),
		overQuota:       counter("mailstore_over_quota_total", "Changes refused because the account has no room."),
		refusedMessage:  refused.WithLabelValues("message"),
		refusedSnapshot: refused.WithLabelValues("snapshot"),
		refusedRead:     refused.WithLabelValues("read"),
		refusedRows:     refused.WithLabelValues("rows"),
		refusedChange:   refused.WithLabelValues("change"),
		corrupt:         counter("mailstore_corrupt_objects_total", "Reads of objects whose bytes are not those that were stored."),
		collected:       runs.WithLabelValues("ok"), collectFailed: runs.WithLabelValues("failed"),
		unaccepted:  runs.WithLabelValues("unaccepted"),
		lastCollect: gauge("collector_last_run_timestamp_seconds", "When the collector last came to its end on this node."),
	}
	commits := counters("mailstore_commits_total", "Commits, by what they do.", "operation")
	for k, name := range kindNames {
		m.commits[k] = commits.WithLabelValues(name)
	}
	catchUps := counters("mailstore_catch_ups_total", "Readings of what changed in a mailbox that is held, by what asked for it.", "cause")
	for r, name := range reasonNames {
		m.catchUps[r] = catchUps.WithLabelValues(name)
	}
	removed := counters("collector_removed_total", "What the collector of this node removed for good.", "what")
	for i, name := range removedNames {
		m.removed[i] = removed.WithLabelValues(name)
	}
	backlog := auto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "starling_collector_backlog",
		Help: "Mailboxes (expunged, dropped) and accounts (scan, doomed, accounts) found due and not done, of the last up to 1000 that were listed.",
	}, []string{"what"})
	for i, name := range taskNames {
		m.backlog[i] = backlog.WithLabelValues(name)
	}
	return m
}

// register adds the figures that are read off the Store.
func (s *Store) register(reg prometheus.Registerer) {
	auto := promauto.With(reg)
	gauge := func(name, help string, value func() int64) {
		auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "starling_mailstore_" + name, Help: help}, func() float64 { return float64(value()) })
	}
	gauge("mailboxes", "Mailboxes held in memory.", s.boxes.Load)
	gauge("inflight_bytes", "Memory reserved for messages on their way in.", s.inflight.inUse)
	gauge("snapshot_bytes", "Memory of mailboxes held, and reserved for those being loaded.", s.snapshots.inUse)
	gauge("kept_rows_bytes", "Memory of rows that were read to answer with.", s.kept.bytes)
	gauge("search_bytes", "Memory of what searches asked of messages.", s.recall.bytes)
	gauge("read_bytes", "Memory reserved for bodies that are read to answer with.", s.reads.inUse)
	gauge("rows_bytes", "Memory reserved for rows of messages that are read to answer with.", s.rows.inUse)
	gauge("change_bytes", "Memory reserved for changes of many messages.", s.changes.inUse)
	limit := auto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "starling_mailstore_memory_limit_bytes",
		Help: "Memory that there may be for messages on their way in (inflight_bytes), mailboxes (snapshot_bytes), changes of many messages (change_bytes), and rows and bodies to answer with (rows_bytes, read_bytes).",
	}, []string{"what"})
	for what, b := range map[string]*budget{"message": s.inflight, "snapshot": s.snapshots, "rows": s.rows, "read": s.reads, "change": s.changes} {
		limit.WithLabelValues(what).Set(float64(b.most))
	}
}

// commit counts a commit of n changes.
func (m *metrics) commit(k kind, n int) {
	m.commits[k].Inc()
	m.groupSize.Observe(float64(n))
}

// refuse counts a change that came to nothing.
func (m *metrics) refuse(err error) {
	if errors.Is(err, metadata.ErrOverQuota) {
		m.overQuota.Inc()
	}
}

// collect counts a run of the collector.
func (m *metrics) collect(r *CollectReport, err error) {
	for i, n := range [len(removedNames)]int64{r.Messages, int64(r.Dropped), r.Objects, int64(r.Accounts), r.Deliveries} {
		m.removed[i].Add(float64(n))
	}
	m.commits[kindCollect].Add(float64(r.Mailboxes))
	switch {
	case err != nil || r.Failed > 0:
		m.collectFailed.Inc()
	case r.Unaccepted:
		m.unaccepted.Inc()
	default:
		m.collected.Inc()
	}
	if err == nil {
		m.lastCollect.Set(seconds(time.Now()))
	}
}

// seconds is the Unix time.
func seconds(t time.Time) float64 { return float64(t.UnixNano()) / float64(time.Second) }
