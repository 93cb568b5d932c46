package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	quick   bool
	serve   bool
	rounds  int
	time    time.Duration
	size    int
	nodes   int
	corpus  string
	out     string
	dir     string
	servers string
	program string
	steps   string
}

// accounts is how many there are, one for each client.
const accounts = 32

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.BoolVar(&o.quick, "quick", false, "one small round, to see that everything works; its figures mean nothing")
	f.BoolVar(&o.serve, "serve", false, "measure nothing: say where the servers listen, for other tools, and wait for Ctrl-C")
	f.IntVar(&o.rounds, "rounds", 3, "how often everything is measured")
	f.DurationVar(&o.time, "time", 15*time.Minute, "after which nothing more is begun")
	f.IntVar(&o.size, "size", 10_000, "messages in the mailbox that is read")
	f.IntVar(&o.nodes, "nodes", 2, "of Starling")
	f.StringVar(&o.corpus, "corpus", "", "`folder` of .eml files to send; without, messages are made up")
	f.StringVar(&o.out, "out", "", "`folder` for the report as text, Markdown and JSON")
	f.StringVar(&o.dir, "dir", "/var/tmp", "`folder` on the disk that both are to use")
	f.StringVar(&o.servers, "server", "", "starling, to measure it alone")
	f.StringVar(&o.program, "program", "", "Starling's `program`, if it is not to be built from this tree")
	f.StringVar(&o.steps, "run", "", "only these `steps`, separated by commas: "+strings.Join(stepNames(), ", "))
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("what is %q?", f.Arg(0))
	case min(o.rounds, o.nodes) < 1 || o.size < 100:
		return nil, errors.New("-rounds and -nodes: at least 1, -size: at least 100")
	case o.servers != "" && o.servers != "starling":
		return nil, fmt.Errorf("-server: %q is not starling", o.servers)
	}
	for _, name := range o.chosen() {
		if !slices.Contains(stepNames(), name) {
			return nil, fmt.Errorf("-run: there is no step %q", name)
		}
	}
	if o.quick {
		o.rounds, o.size = 1, 300
	}
	return o, nil
}

// chosen are the steps that were asked for; none: all.
func (o *options) chosen() []string {
	return strings.FieldsFunc(o.steps, func(r rune) bool { return r == ',' })
}

func stepNames() []string {
	var names []string
	for _, s := range plan {
		names = append(names, s.name)
	}
	return append(names, "database", "held", "idlemem")
}

// run is the program. Its error says that something could not be measured, or that an answer was wrong; goals that are not
// met are no error.
func run(ctx context.Context, args []string, out io.Writer) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if runtime.GOOS != "linux" {
		return errors.New("Dovecot is measured on Linux only") //nolint:staticcheck // a name
	}
	if o.servers == "" { // before anything is built
		if _, _, err := findDovecot(ctx); err != nil {
			return err
		}
	}
	began := time.Now()
	dir, err := os.MkdirTemp(o.dir, "starling-bench-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the servers' users pass through
		return err
	}
	b := &bench{options: o, out: out, dir: dir}
	if err := b.build(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.start(ctx); err != nil {
		return err
	}
	if o.serve {
		b.wait(ctx)
		return nil
	}
	r := &report{Began: began.UTC().Truncate(time.Second), Command: "make bench"}
	if len(args) > 0 {
		r.Command = "bench " + strings.Join(args, " ")
	}
	if r.Machine, err = machine(ctx, dir, b.cluster, b.dovecot, b.program != ""); err != nil {
		return err
	}
	b.report = r
	if err := b.measure(ctx, began); err != nil {
		return err
	}
	r.Took = time.Since(began)
	if err := r.text(out); err != nil {
		return err
	}
	if o.out != "" {
		if err := r.write(o.out); err != nil {
			return err
		}
	}
	if len(r.Wrong) > 0 {
		return fmt.Errorf("%d loads found answers that were wrong or missing", len(r.Wrong))
	}
	return ctx.Err()
}

// bench is a run.
type bench struct {
	*options
	out     io.Writer
	dir     string
	load    *loader
	cluster *starling
	dovecot *dovecot
	report  *report

	starling, other *target // other is nil without Dovecot
}

// build builds what is run, from this tree.
func (b *bench) build(ctx context.Context) error {
	b.say("building")
	for _, command := range []string{"starling", "imapload"} {
		if command == "starling" && b.program != "" {
			continue
		}
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(b.dir, command), "starling/cmd/"+command) //nolint:gosec // our own
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", command, err, out)
		}
	}
	idlers := 100
	if b.quick {
		idlers = 4
	}
	b.load = &loader{program: filepath.Join(b.dir, "imapload"), dir: b.dir, corpus: b.corpus, size: b.size, idlers: idlers, timeout: "60s"}
	return nil
}

// start starts the servers.
func (b *bench) start(ctx context.Context) (err error) {
	b.say("starting")
	if b.cluster, err = startStarling(ctx, cmp.Or(b.program, filepath.Join(b.dir, "starling")), b.dir, b.nodes, accounts); err != nil {
		return err
	}
	b.starling = &target{name: "Starling", results: make(map[string][]map[string]measured)}
	for _, n := range b.cluster.nodes {
		b.starling.imap = append(b.starling.imap, n.at["IMAP"])
		b.starling.imaps = append(b.starling.imaps, n.at["IMAPS"])
		b.starling.lmtp = append(b.starling.lmtp, n.at["LMTP"])
		b.starling.pids = append(b.starling.pids, n.pid())
	}
	if b.servers == "starling" {
		return nil
	}
	if b.dovecot, err = startDovecot(ctx, filepath.Join(b.dir, "dovecot"), runtime.NumCPU()); err != nil {
		return err
	}
	b.other = &target{
		name: "Dovecot", results: make(map[string][]map[string]measured), pids: []int{b.dovecot.pid()},
		imap: []string{b.dovecot.at["IMAP"]}, imaps: []string{b.dovecot.at["IMAPS"]}, lmtp: []string{b.dovecot.at["LMTP"]},
	}
	return nil
}

// close ends the servers.
func (b *bench) close() error {
	var errs []error
	if b.dovecot != nil {
		errs = append(errs, b.dovecot.end())
	}
	if b.cluster != nil {
		errs = append(errs, b.cluster.close())
	}
	return errors.Join(errs...)
}

// measure measures everything.
func (b *bench) measure(ctx context.Context, began time.Time) error {
	parts := []struct {
		name string
		run  func(context.Context) error
	}{{"database", b.databaseBytes}, {"held", b.messageBytes}, {"idlemem", b.idleMemory}}
	for _, p := range parts {
		if !b.wanted(p.name) {
			continue
		}
		begin := time.Now()
		if err := p.run(ctx); err != nil {
			return err
		}
		b.say(fmt.Sprintf("%-36s %5.1f s", p.name, time.Since(begin).Seconds()))
	}
	memory := b.report.Rows
	b.report.Rows = nil
	b.rounds(ctx, began)
	for _, g := range goals {
		row := compare(g, b.starling, b.other)
		switch {
		case row != nil:
			b.report.Rows = append(b.report.Rows, *row)
		case b.wanted(g.step):
			b.report.Wrong = append(b.report.Wrong, fmt.Sprintf("%s: nothing was measured of %q", g.name, g.operation))
		}
	}
	b.report.Rows = append(b.report.Rows, memory...)
	if b.quick { // what is so small says nothing about goals
		for i := range b.report.Rows {
			b.report.Rows[i].Goal, b.report.Rows[i].Met = "", nil
		}
	}
	return nil
}

// wanted says whether a step is to be run.
func (b *bench) wanted(name string) bool {
	chosen := b.chosen()
	return len(chosen) == 0 || slices.Contains(chosen, name)
}

// rounds measures, as often as was asked for and there is time.
func (b *bench) rounds(ctx context.Context, began time.Time) {
	for round := range b.options.rounds {
		targets := []*target{b.starling, b.other}
		if round%2 == 1 {
			slices.Reverse(targets)
		}
		for _, s := range plan {
			if !b.wanted(s.name) {
				continue
			}
			if b.quick {
				s = s.quick()
			}
			b.step(ctx, round, s, targets)
			if ctx.Err() != nil || time.Since(began) > b.time {
				return
			}
		}
		b.report.Rounds++
	}
}

// step puts the load of a step on one server after the other.
func (b *bench) step(ctx context.Context, round int, s step, targets []*target) {
	for _, t := range targets {
		if t == nil {
			continue
		}
		settle(ctx)
		begin := time.Now()
		err := b.load.run(ctx, t, s)
		if err != nil {
			b.report.Wrong = append(b.report.Wrong, fmt.Sprintf("round %d, %s: %v", round+1, s.name, err))
		}
		b.say(fmt.Sprintf("round %d of %d  %-10s %-9s %5.1f s", round+1, b.options.rounds, s.name, t.name, time.Since(begin).Seconds()))
	}
}

// wait leaves the servers to others until the end.
func (b *bench) wait(ctx context.Context) {
	for _, t := range []*target{b.starling, b.other} {
		if t != nil {
			b.say(fmt.Sprintf("%s: IMAP %s, IMAPS %s, LMTP %s, processes %v, accounts user0@%s to user%d@%s, password %s",
				t.name, strings.Join(t.imap, ","), strings.Join(t.imaps, ","), strings.Join(t.lmtp, ","), t.pids, domain, accounts-1, domain, password))
		}
	}
	<-ctx.Done()
}

func (b *bench) say(text string) { fmt.Fprintln(b.out, text) }
