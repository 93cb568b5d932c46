package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// row is a line of the report.
type row struct {
	Name     string    `json:"name"`
	Starling float64   `json:"starling"`          // the median of the rounds
	Dovecot  float64   `json:"dovecot,omitempty"` // likewise; 0: not measured
	Ratio    float64   `json:"ratio,omitempty"`   // the median of the rounds' ratios
	Ratios   []float64 `json:"ratios,omitempty"`  // of each round
	Goal     string    `json:"goal,omitempty"`
	Met      *bool     `json:"met,omitempty"`
}

// report is what a run found out.
type report struct {
	Began   time.Time     `json:"began"`
	Command string        `json:"command"`
	Machine []string      `json:"machine"`
	Rounds  int           `json:"rounds"`
	Took    time.Duration `json:"took_ns"`
	Rows    []row         `json:"rows"`
	Wrong   []string      `json:"wrong,omitempty"` // answers that were not right
}

// median of values, which it sorts; 0 of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}

// compare makes the row of a goal; nil if Starling was not measured.
func compare(g goal, starling, dovecot *target) *row {
	var own, other, ratios []float64
	against := g.against
	if against == rate {
		against = g.of
	}
	rounds := starling.results[g.step]
	var others []map[string]measured
	if dovecot != nil {
		others = dovecot.results[g.step]
	}
	for i := range max(len(rounds), len(others)) {
		var mine, theirs float64
		var have, haveTheirs bool
		if i < len(rounds) {
			if mine, have = rounds[i][g.operation].value(g.of); have {
				own = append(own, mine)
			}
		}
		if i < len(others) {
			if theirs, haveTheirs = others[i][cmp.Or(g.other, g.operation)].value(against); haveTheirs {
				other = append(other, theirs)
			}
		}
		if have && haveTheirs {
			ratio := mine / theirs
			if g.of == latency || g.of == tail {
				ratio = theirs / mine
			}
			ratios = append(ratios, ratio)
		}
	}
	if len(own) == 0 {
		return nil
	}
	r := &row{Name: g.name, Ratios: slices.Clone(ratios), Starling: median(own), Dovecot: median(other), Ratio: median(ratios)}
	if g.ratio > 0 {
		r.Goal = fmt.Sprintf("≥ %s×", figure(g.ratio))
		if len(ratios) > 0 {
			r.meets(r.Ratio >= g.ratio)
		}
	}
	if g.limit > 0 {
		r.Goal = "≤ " + figure(g.limit)
		r.meets(r.Starling <= g.limit)
	}
	return r
}

func (r *row) meets(met bool) { r.Met = &met }

// figure writes a number with three digits that count.
func figure(x float64) string {
	switch abs := math.Abs(x); {
	case x == 0:
		return "–"
	case abs >= 1000:
		text := fmt.Sprintf("%.0f", x)
		for at := len(text) - 3; at > 0; at -= 3 {
			text = text[:at] + "," + text[at:]
		}
		return text
	case abs >= 100 || x == math.Trunc(x):
		return fmt.Sprintf("%.0f", x)
	case abs >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2g", x)
}

// cells are what a table shows of a row.
func (r *row) cells() []string {
	ratio, met := "", ""
	if r.Ratio > 0 {
		ratio = figure(r.Ratio) + "×"
	}
	if r.Met != nil {
		met = map[bool]string{true: "yes", false: "no"}[*r.Met]
	}
	return []string{r.Name, figure(r.Starling), figure(r.Dovecot), ratio, r.Goal, met}
}

var titles = []string{"", "Starling", "Dovecot", "ratio", "goal", "met"}

// text writes the report for a terminal.
func (r *report) text(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, cells := range append([][]string{titles}, r.cells()...) {
		fmt.Fprintln(t, strings.Join(cells, "\t")+"\t")
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, line := range append(r.about(), r.Wrong...) {
		fmt.Fprintln(out, line)
	}
	return nil
}

// markdown writes the report as it can be pasted into a document: what there are goals for, then the rest.
func (r *report) markdown(out io.Writer) error {
	without := func(goal bool) []row {
		return slices.DeleteFunc(slices.Clone(r.Rows), func(r row) bool { return (r.Goal != "") == goal })
	}
	for _, part := range []report{{Rows: without(false)}, {Rows: without(true)}} {
		if len(part.Rows) == 0 {
			continue
		}
		fmt.Fprintf(out, "| %s |\n| --- | ---: | ---: | ---: | ---: | --- |\n", strings.Join(titles, " | "))
		for _, cells := range part.cells() {
			fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | "))
		}
		fmt.Fprintln(out)
	}
	_, err := fmt.Fprintln(out, strings.Join(r.about(), "\n"))
	return err
}

func (r *report) cells() [][]string {
	var all [][]string
	for _, row := range r.Rows {
		all = append(all, row.cells())
	}
	return all
}

// about says what the figures are of.
func (r *report) about() []string {
	return append([]string{
		fmt.Sprintf("%s, %s, %d rounds in %s: medians; the ratio is the median of the rounds' ratios.",
			r.Began.Format("2 January 2006, 15:04 MST"), r.Command, r.Rounds, r.Took.Round(time.Second)),
	}, append(r.Machine, notes...)...)
}

// write writes the report into a folder, as text, Markdown and JSON.
func (r *report) write(folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil { //nolint:gosec // figures are no secret
		return fmt.Errorf("write the report: %w", err)
	}
	for name, write := range map[string]func(io.Writer) error{
		"bench.txt": r.text, "bench.md": r.markdown,
		"bench.json": func(out io.Writer) error {
			e := json.NewEncoder(out)
			e.SetIndent("", "  ")
			return e.Encode(r)
		},
	} {
		f, err := os.Create(filepath.Join(folder, name))
		if err == nil {
			err = write(f)
			if closed := f.Close(); err == nil {
				err = closed
			}
		}
		if err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	return nil
}
