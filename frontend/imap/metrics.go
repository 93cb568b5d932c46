package imap

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"starling/frontend/imapwire"
)

// activity is what a connection does, as the figures tell it.
type activity uint8

const (
	beforeTheLogin activity = iota
	withoutMailbox
	withMailbox
	inIdle
)

// activities are the names of the activities.
var activities = [...]string{"not_authenticated", "authenticated", "selected", "idle"}

// ending is why a connection ended.
type ending uint8

const (
	endClient     ending = iota // it went away
	endLogout                   // it said so
	endTimeout                  // it sent nothing for too long
	endShutdown                 // the server stops
	endLogin                    // the login is no longer valid
	endMailbox                  // the selected mailbox was deleted
	endRestored                 // the selected mailbox was taken back to an earlier state, by a failover or a restore
	endProtocol                 // what it sent cannot be gone on with: no TLS, no IMAP, only guesses of passwords
	endSlow                     // it did not send or take in time what it had begun or asked for
	endOfOurDoing               // a bug
)

var endings = [...]string{"client", "logout", "timeout", "shutdown", "login_ended", "mailbox_deleted", "mailbox_restored", "protocol", "slow", "error"}

// refusal is the limit that turned a login away.
type refusal uint8

const (
	overAccount refusal = iota
	overTenant
)

var refusals = [...]string{"account", "tenant"}

// results are how a command ends; bye is the end of the connection in place of an answer.
var results = [...]imapwire.Status{imapwire.OK, imapwire.NO, imapwire.BAD, imapwire.BYE}

// unknownCommand is what the figures call a command that is not in the table.
const unknownCommand = "unknown"

// metrics are the figures of a server. What is in them is made at the start, so that
// counting allocates nothing, and every series is there from then on.
type metrics struct {
	commands    map[string]*commandMetrics
	sessions    [len(activities)]atomic.Int64
	disconnects [len(endings)]prometheus.Counter
	refused     [len(refusals)]prometheus.Counter

	notifications prometheus.Counter
	latency       prometheus.Histogram
	received      prometheus.Counter
	sent          prometheus.Counter
	panics        prometheus.Counter
}

// commandMetrics are the figures of one command.
type commandMetrics struct {
	results  [len(results)]prometheus.Counter
	duration prometheus.Observer // nil for IDLE
}

// newMetrics makes the figures, and registers them with reg unless that is nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{commands: make(map[string]*commandMetrics, len(commands)+1)}
	counter := func(name, help string) prometheus.Counter {
		return register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: "starling_imap_" + name, Help: help}))
	}
	m.notifications = counter("notifications_total", "Times that a client in IDLE was told what is new.")
	m.received = counter("received_bytes_total", "Bytes received from clients, inside of TLS.")
	m.sent = counter("sent_bytes_total", "Bytes sent to clients, inside of TLS.")
	m.panics = counter("panics_total", "Bugs that ended a command or a connection.")
	m.latency = register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "starling_imap_notification_latency_seconds",
		Help:    "Time from a commit, on whatever node, to when a client in IDLE was sent what is new.",
		Buckets: []float64{.0005, .001, .002, .003, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	}))
	m.registerCommands(reg)
	vec := func(name, help, label string, values []string, into []prometheus.Counter) {
		v := register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "starling_imap_" + name, Help: help}, []string{label}))
		for i, value := range values {
			into[i] = v.WithLabelValues(value)
		}
	}
	vec("disconnects_total", "Connections that ended, by reason.", "reason", endings[:], m.disconnects[:])
	vec("refused_total", "Logins turned away by a limit.", "reason", refusals[:], m.refused[:])
	for i, name := range activities {
		register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "starling_imap_sessions", Help: "Connections that are served, by what they do.",
			ConstLabels: prometheus.Labels{"state": name},
		}, func() float64 { return float64(m.sessions[i].Load()) }))
	}
	return m
}

func (m *metrics) registerCommands(reg prometheus.Registerer) {
	counts := register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "starling_imap_commands_total", Help: "Commands, by how they ended.",
	}, []string{"command", "result"}))
	durations := register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "starling_imap_command_duration_seconds",
		Help:    "Time from a command's line to its answer; what the client takes to send literals and to read is in it.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60},
	}, []string{"command"}))
	add := func(name string) {
		c := new(commandMetrics)
		for i, result := range []string{"ok", "no", "bad", "bye"} {
			c.results[i] = counts.WithLabelValues(name, result)
		}
		if name != "IDLE" { // it takes as long as the client likes
			c.duration = durations.WithLabelValues(name)
		}
		m.commands[name] = c
	}
	for name := range commands {
		add(name)
	}
	add(unknownCommand)
}

// register registers c, unless reg is nil.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg != nil {
		reg.MustRegister(c)
	}
	return c
}

// command counts a command that ended with a result, and how long it took since
// began, unless that is zero.
func (m *metrics) command(name string, result imapwire.Status, began time.Time) {
	c := m.commands[name]
	if c == nil {
		c = m.commands[unknownCommand]
	}
	for i, r := range results {
		if r == result {
			c.results[i].Inc()
		}
	}
	if c.duration != nil && !began.IsZero() {
		c.duration.Observe(time.Since(began).Seconds())
	}
}

// notified counts that a client in IDLE was told of a commit; a zero time is not known.
func (m *metrics) notified(commit time.Time) {
	m.notifications.Inc()
	if !commit.IsZero() {
		m.latency.Observe(max(0, time.Since(commit).Seconds())) // nodes' clocks differ
	}
}
