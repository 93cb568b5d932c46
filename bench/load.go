package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// measured is what imapload reports of an operation, as far as it is read here.
type measured struct {
	Operation string  `json:"operation"`
	Count     int     `json:"count"`
	Units     int     `json:"units"`
	PerSecond float64 `json:"per_second"`
	First     float64 `json:"first_ms"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	PerClient int64   `json:"memory_per_client_bytes"`
}

// value is a figure of it; false if there is none.
func (m measured) value(of kind) (float64, bool) {
	if m.Count == 0 {
		return 0, false
	}
	each := 1000 * float64(m.Units) / float64(m.Count) // units times milliseconds in a second
	switch of {
	case rate:
		return m.PerSecond, m.PerSecond > 0
	case warm:
		return each / m.P50, m.P50 > 0
	case first:
		return each / m.First, m.First > 0
	case latency:
		return m.P50, m.P50 > 0
	case tail:
		return m.P99, m.P99 > 0
	}
	return 0, false
}

// target is a server under load.
type target struct {
	name    string
	imap    []string // its nodes
	imaps   []string
	lmtp    []string
	pids    []int
	results map[string][]map[string]measured // by step, by round, by operation
}

// loader runs imapload.
type loader struct {
	program string
	dir     string
	corpus  string
	size    int
	idlers  int
	timeout string
}

// run puts the load of a step on a server, and keeps what was measured. The error says what was wrong with answers.
func (l *loader) run(ctx context.Context, t *target, s step) error {
	addresses := t.imap[:1]
	switch {
	case s.everywhere:
		addresses = t.imap
	case s.reading:
		addresses = t.imap[len(t.imap)-1:]
	}
	s.idlers = cmp.Or(s.idlers, l.idlers)
	args := append(s.args(), "-addr", strings.Join(addresses, ","), "-lmtp", strings.Join(t.lmtp[:1], ","), "-reuse",
		"-size", strconv.Itoa(l.size))
	results, err := l.load(ctx, t, l.corpus, args...)
	if len(results) > 0 {
		t.results[s.name] = append(t.results[s.name], results)
	}
	return err
}

// load runs imapload, and returns what it measured, by operation.
func (l *loader) load(ctx context.Context, t *target, corpus string, more ...string) (map[string]measured, error) {
	file := filepath.Join(l.dir, "imapload.json")
	if err := os.RemoveAll(file); err != nil {
		return nil, err
	}
	args := append(slices.Clone(more), "-user", "user%d@"+domain, "-password", password, "-json", file, "-label", t.name, "-timeout", l.timeout)
	if corpus != "" {
		args = append(args, "-corpus", corpus)
	}
	if pids := fmt.Sprint(t.pids); len(t.pids) > 0 {
		args = append(args, "-pids", strings.ReplaceAll(strings.Trim(pids, "[]"), " ", ","))
	}
	out, failed := exec.CommandContext(ctx, l.program, args...).CombinedOutput() //nolint:gosec // built by us
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("imapload %s: %w\n%s", strings.Join(args, " "), failed, out), err)
	}
	var report struct {
		Results []measured `json:"results"`
		Errors  []string   `json:"errors"`
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return nil, fmt.Errorf("read the report of imapload: %w", err)
	}
	results := make(map[string]measured)
	for _, m := range report.Results {
		results[m.Operation] = m
	}
	if failed != nil {
		return results, fmt.Errorf("%s: %w: %s", t.name, failed, strings.Join(report.Errors, "; "))
	}
	return results, nil
}
