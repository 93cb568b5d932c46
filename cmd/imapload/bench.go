package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

// bench is a run of scenarios.
type bench struct {
	cfg      *config
	mails    [][]byte
	scenario string

	filled bool     // the large mailbox is there
	sent   [][]byte // what it has, by UID - 1

	mu     sync.Mutex // of the report
	report report
}

// report is what a run found out.
type report struct {
	Label     string    `json:"label"`
	Addresses []string  `json:"addresses"`
	Began     time.Time `json:"began"`
	Mails     string    `json:"mails"`
	Results   []result  `json:"results"`
	Wrong     int       `json:"wrong"`
	Errors    []string  `json:"errors,omitempty"` // the first of them
}

// result is what was measured of one operation. Times are in milliseconds.
type result struct {
	Scenario  string  `json:"scenario"`
	Operation string  `json:"operation"`
	Clients   int     `json:"clients"`
	Count     int     `json:"count"` // of latencies
	Units     int     `json:"units"` // messages, or commands where they are what counts
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"per_second"` // units
	First     float64 `json:"first_ms"`
	P50       float64 `json:"p50_ms"`
	P90       float64 `json:"p90_ms"`
	P99       float64 `json:"p99_ms"`
	Max       float64 `json:"max_ms"`
	ServerCPU float64 `json:"server_cpu_seconds"`
	ClientCPU float64 `json:"client_cpu_seconds"`
	Memory    int64   `json:"server_memory_bytes"` // proportional, of all of its processes, at the end
	PerClient int64   `json:"memory_per_client_bytes,omitempty"`
	Hits      int     `json:"hits,omitempty"` // of a search
}

// maxErrors is how many errors a report has in full.
const maxErrors = 20

// wrong notes that an answer was not what it had to be.
func (b *bench) wrong(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.report.Wrong++
	if len(b.report.Errors) < maxErrors {
		b.report.Errors = append(b.report.Errors, err.Error())
	}
}

// errStop says that a scenario cannot go on with a connection.
var errStop = errors.New("connection is out of step")

// load is something to be measured.
type load struct {
	name    string
	clients int // at the same time
	count   int // in all
	units   int // of each; 0: 1
	do      func(client, i int) error
	check   func() error // if set, looks at what do has read, and is not measured; only with one client
}

// measure runs a load, each client one thing after the other, for Config.most at
// the longest.
func (b *bench) measure(ctx context.Context, l load) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.most)
	defer cancel()
	l.clients, l.units = min(l.clients, l.count), max(l.units, 1)
	samples := make([][]time.Duration, l.clients)
	before, began := usageOf(b.cfg.pids), time.Now()
	var checking time.Duration
	var next atomic.Int64
	var clients sync.WaitGroup
	for client := range l.clients {
		clients.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= l.count {
					return
				}
				start := time.Now()
				err := l.do(client, i)
				took := time.Since(start)
				if l.check != nil && err == nil {
					err = l.check()
					checking += time.Since(start) - took
				}
				if err != nil {
					b.wrong(fmt.Errorf("%s, %s: %w", b.scenario, l.name, err))
					if errors.Is(err, errStop) {
						return
					}
					continue
				}
				samples[client] = append(samples[client], took)
			}
		})
	}
	clients.Wait()
	b.add(l, slices.Concat(samples...), time.Since(began)-checking, &before)
}

// add puts what was measured into the report. The first sample is the first client's;
// without before CPU and memory are left out.
func (b *bench) add(l load, samples []time.Duration, took time.Duration, before *usage) {
	r := result{Scenario: b.scenario, Operation: l.name, Clients: l.clients, Count: len(samples), Units: len(samples) * l.units, Seconds: took.Seconds()}
	if before != nil {
		now := usageOf(b.cfg.pids)
		r.ServerCPU, r.ClientCPU, r.Memory = now.server-before.server, now.client-before.client, now.memory
	}
	if len(samples) > 0 {
		r.First = milliseconds(samples[0])
		r.PerSecond = float64(r.Units) / took.Seconds()
		slices.Sort(samples)
		r.P50, r.P90, r.P99 = percentile(samples, .5), percentile(samples, .9), percentile(samples, .99)
		r.Max = milliseconds(samples[len(samples)-1])
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.report.Results = append(b.report.Results, r)
}

// percentile is the nearest rank in sorted samples.
func percentile(sorted []time.Duration, share float64) float64 {
	return milliseconds(sorted[max(int(math.Ceil(share*float64(len(sorted))))-1, 0)])
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// print writes the report as a table.
func (r *report) print(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(out, "%s %s, %s: %s\n", r.Began.Format(time.RFC3339), strings.Join(r.Addresses, ","), r.Label, r.Mails)
	fmt.Fprintln(t, "scenario\toperation\tclients\tunits\t/s\tfirst ms\tp50\tp90\tp99\tmax\tsrv CPU s\tcli CPU s\tsrv MB\t")
	for _, m := range r.Results {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%d\t\n", m.Scenario, m.Operation, m.Clients, m.Units, m.PerSecond,
			m.First, m.P50, m.P90, m.P99, m.Max, m.ServerCPU, m.ClientCPU, m.Memory>>20)
		if m.Hits > 0 {
			fmt.Fprintf(t, "\thits: %d\t\t\t\t\t\t\t\t\t\t\t\t\n", m.Hits)
		}
		if m.PerClient != 0 {
			fmt.Fprintf(t, "\tmemory of one: %d octets\t\t\t\t\t\t\t\t\t\t\t\t\n", m.PerClient)
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	for _, text := range r.Errors {
		fmt.Fprintln(out, "wrong:", text)
	}
	if more := r.Wrong - len(r.Errors); more > 0 {
		fmt.Fprintf(out, "wrong: and %d more\n", more)
	}
	return nil
}
