package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"starling/metadata/postgres"
)

// A small round works from end to end: every goal of the steps that ran has a row, and the report is written. Without Dovecot it is Starling's half.
func TestQuick(t *testing.T) {
	t.Parallel()
	if _, err := postgres.Find(t.Context(), ""); err != nil {
		t.Skip(err)
	}
	folder := t.TempDir()
	steps := []string{"append 8", "flags", "poll", "store 1", "move", "database", "held"}
	args := []string{"-quick", "-dir", "/tmp", "-out", folder, "-run", strings.Join(steps, ",")}
	_, _, without := findDovecot(t.Context())
	if without != nil {
		args = append(args, "-server", "starling")
	}
	var out bytes.Buffer
	if err := run(t.Context(), args, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	text, err := os.ReadFile(filepath.Join(folder, "bench.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	for _, g := range goals {
		i := slices.IndexFunc(r.Rows, func(r row) bool { return r.Name == g.name })
		switch {
		case !slices.Contains(steps, g.step):
		case i < 0:
			t.Errorf("%s has no row", g.name)
		case r.Rows[i].Starling <= 0 || without == nil && (r.Rows[i].Dovecot <= 0 || len(r.Rows[i].Ratios) != 1):
			t.Errorf("%+v", r.Rows[i])
		}
	}
	for _, name := range []string{"bench.txt", "bench.md"} {
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil || !bytes.Contains(text, []byte("STATUS, /s")) || !bytes.Contains(text, []byte("fsync on")) {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}

func results(perSecond ...float64) []map[string]measured {
	var all []map[string]measured
	for _, each := range perSecond {
		all = append(all, map[string]measured{"op": {Count: 10, Units: 20, PerSecond: each, First: 100, P50: 1000 / each, P99: 2000 / each}})
	}
	return all
}

func TestCompare(t *testing.T) {
	t.Parallel()
	starling := &target{results: map[string][]map[string]measured{"step": results(10, 40, 20)}}
	dovecot := &target{results: map[string][]map[string]measured{"step": results(10, 10, 10)}}
	for _, c := range []struct {
		goal                goal
		own, other, ratio   float64
		met                 bool
		goalText, ratioText string
	}{
		{goal{of: rate, ratio: 2}, 20, 10, 2, true, "≥ 2×", "2×"},
		{goal{of: rate, ratio: 2.5}, 20, 10, 2, false, "≥ 2.5×", "2×"},
		{goal{of: warm, ratio: 1}, 40, 20, 2, true, "≥ 1×", "2×"},                     // two units each time
		{goal{of: first, against: warm, ratio: 0.5}, 20, 20, 1, true, "≥ 0.5×", "1×"}, // 100 ms for two
		{goal{of: latency, limit: 30}, 50, 100, 2, false, "≤ 30", "2×"},               // the smaller the better
		{goal{of: tail, limit: 100}, 100, 200, 2, true, "≤ 100", "2×"},                // likewise
		{goal{of: rate, other: "missing", ratio: 2}, 20, 0, 0, false, "≥ 2×", ""},     // nothing to compare with: neither met nor not
		{goal{of: rate, other: "missing", limit: 40}, 20, 0, 0, true, "≤ 40", ""},     // which a limit does not need
		{goal{of: rate, step: "other"}, 0, 0, 0, false, "", ""},                       // not measured
		{goal{of: rate, operation: "missing"}, 0, 0, 0, false, "", ""},                // likewise
		{goal{of: rate}, 20, 10, 2, false, "", "2×"},                                  // no goal
	} {
		g := c.goal
		g.name = "name"
		if g.step == "" {
			g.step = "step"
		}
		if g.operation == "" {
			g.operation = "op"
		}
		r := compare(g, starling, dovecot)
		if r == nil {
			if c.own != 0 {
				t.Errorf("%+v: no row", c.goal)
			}
			continue
		}
		cells := r.cells()
		if r.Starling != c.own || r.Dovecot != c.other || r.Ratio != c.ratio || r.Goal != c.goalText || cells[3] != c.ratioText {
			t.Errorf("%+v: %+v, %q", c.goal, r, cells)
		}
		decided := c.goal.limit > 0 || c.goal.ratio > 0 && c.ratio > 0
		if (r.Met != nil) != decided || decided && *r.Met != c.met {
			t.Errorf("%+v: %q, want %t", c.goal, cells, c.met)
		}
	}
	if r := compare(goal{step: "step", operation: "op", ratio: 1}, starling, nil); r == nil || r.Ratio != 0 || r.Met != nil {
		t.Errorf("without Dovecot: %+v", r)
	}
}

func TestFigure(t *testing.T) {
	t.Parallel()
	for x, want := range map[float64]string{
		0: "–", 0.0471: "0.047", 0.5: "0.5", 5: "5", 2.345: "2.3", 12.34: "12.3", 123.4: "123", 1234.5: "1,234", 1234567: "1,234,567", -31.14: "-31.1",
	} {
		if got := figure(x); got != want {
			t.Errorf("%v: %q, want %q", x, got, want)
		}
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for want, values := range map[float64][]float64{0: nil, 3: {3}, 2: {3, 1, 2}, 2.5: {4, 1, 3, 2}} {
		if got := median(values); got != want {
			t.Errorf("%v: %v, want %v", values, got, want)
		}
	}
}

// Every goal is of a step that is in the plan, and has a name of its own.
func TestGoals(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, g := range goals {
		if !slices.ContainsFunc(plan, func(s step) bool { return s.name == g.step }) {
			t.Errorf("%s: there is no step %q", g.name, g.step)
		}
		if seen[g.name] {
			t.Errorf("%s is there twice", g.name)
		}
		seen[g.name] = true
	}
	args := step{name: "x", scenario: "store", clients: 8, operations: 400, repeats: 3, seconds: 10}.quick().args()
	if got, want := strings.Join(args, " "), "-run store -clients 4 -operations 20 -repeats 2 -most 2s"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"what is":     {"append"},
		"at least 1":  {"-rounds", "0"},
		"at least 10": {"-size", "5"},
		"no step":     {"-run", "fly"},
		"-server":     {"-server", "cyrus"},
	} {
		if err := run(t.Context(), args, new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", args, err, want)
		}
	}
}
