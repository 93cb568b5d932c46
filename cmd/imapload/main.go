// Command imapload puts load on an IMAP server, any of them, and says how fast it
// answered. It is bounded by counts and time, and believes nothing: every response
// is compared with what must come, every message with the bytes that were sent.
//
// It needs accounts user0, user1 and so on (see -user), whose INBOX it empties and in
// which it makes mailboxes that begin with "load-". Several nodes of a cluster are
// given as -addr a:143,b:143; connections are spread over them.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// config is what the flags say.
type config struct {
	addrs    []string
	lmtp     []string
	sources  []string
	tls      bool
	user     string
	password string
	corpus   string
	seed     uint64
	run      []string
	label    string
	json     string
	pids     []int

	messages   int           // that are appended or delivered
	size       int           // of the mailbox for reading
	operations int           // of a scenario that repeats one
	repeats    int           // of a scenario that reads the whole mailbox
	clients    int           // at the same time
	idlers     int           // at the same time
	slice      int           // octets
	reuse      bool          // the mailbox for reading
	settle     time.Duration // before memory is looked at
	timeout    time.Duration // of a command
	most       time.Duration // of a scenario
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "imapload:", err)
		os.Exit(1)
	}
}

// parse reads the command line.
func parse(args []string) (*config, error) {
	cfg := &config{}
	var addrs, lmtp, sources, scenarios, pids string
	f := flag.NewFlagSet("imapload", flag.ContinueOnError)
	f.StringVar(&addrs, "addr", "127.0.0.1:143", "`addresses` of the server's nodes, separated by commas")
	f.StringVar(&lmtp, "lmtp", "", "`addresses` for LMTP; without, nothing is delivered")
	f.StringVar(&sources, "source", "", "own `addresses` to connect from, such as 127.0.0.2,127.0.0.3, where a server bounds the connections of one")
	f.BoolVar(&cfg.tls, "tls", false, "TLS from the first byte; certificates are not looked at")
	f.StringVar(&cfg.user, "user", "user%d@example.org", "`name` of an account; %d stands for its number")
	f.StringVar(&cfg.password, "password", "password", "of all accounts")
	f.StringVar(&cfg.corpus, "corpus", "", "`folder` of .eml files to send; without, messages are made up")
	f.Uint64Var(&cfg.seed, "seed", 1, "of everything random")
	f.StringVar(&scenarios, "run", "all", "`scenarios`, separated by commas: "+strings.Join(names(), ", "))
	f.StringVar(&cfg.label, "label", "", "what the report calls the server")
	f.StringVar(&cfg.json, "json", "", "`file` for the report as JSON")
	f.StringVar(&pids, "pids", "", "`processes` of the server, separated by commas; those that they started are counted too")
	f.IntVar(&cfg.messages, "messages", 500, "that are appended, delivered, and told of by IDLE")
	f.IntVar(&cfg.size, "size", 10_000, "messages in the mailbox that is read")
	f.IntVar(&cfg.operations, "operations", 500, "of a scenario that does one thing over and over")
	f.IntVar(&cfg.repeats, "repeats", 5, "of a scenario that reads or writes the whole mailbox")
	f.IntVar(&cfg.clients, "clients", 8, "at the same time")
	f.IntVar(&cfg.idlers, "idlers", 100, "connections that wait in IDLE")
	f.IntVar(&cfg.slice, "slice", 64<<10, "`octets` of a part of a large body that is read at once")
	f.BoolVar(&cfg.reuse, "reuse", false, "read the mailbox that an earlier run left, if it has the same messages, and leave it to the next one")
	f.DurationVar(&cfg.timeout, "timeout", time.Minute, "for a command")
	f.DurationVar(&cfg.settle, "settle", time.Second, "before a server's memory is looked at")
	f.DurationVar(&cfg.most, "most", time.Minute, "for each thing that is measured")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	list := func(text string) []string {
		return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
	}
	cfg.addrs, cfg.lmtp, cfg.sources, cfg.run = list(addrs), list(lmtp), list(sources), list(scenarios)
	for _, text := range list(pids) {
		pid, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("-pids: %q is no process", text)
		}
		cfg.pids = append(cfg.pids, pid)
	}
	return cfg, cfg.check(f.Args())
}

// check refuses what cannot be run, and finds out what "all" is.
func (c *config) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("what is %q?", rest[0])
	case len(c.addrs) == 0:
		return errors.New("-addr: no address")
	case slices.ContainsFunc(c.sources, func(text string) bool { return net.ParseIP(text) == nil }):
		return errors.New("-source: want IP addresses")
	case min(c.messages, c.operations, c.repeats, c.clients, c.idlers, c.slice) < 1:
		return errors.New("every count must be at least 1")
	case c.size < 100:
		return errors.New("-size: at least 100")
	}
	if slices.Equal(c.run, []string{"all"}) {
		c.run = nil
		for _, s := range scenarios() {
			if (s.name != "deliver" || len(c.lmtp) > 0) && (s.name != "idlemem" || len(c.pids) > 0) {
				c.run = append(c.run, s.name)
			}
		}
	}
	for _, name := range c.run {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("-run: there is no scenario %q", name)
		}
	}
	if slices.Contains(c.run, "deliver") && len(c.lmtp) == 0 {
		return errors.New("-run: deliver needs -lmtp")
	}
	if slices.Contains(c.run, "idlemem") && len(c.pids) == 0 {
		return errors.New("-run: idlemem needs -pids")
	}
	return nil
}

// scenario is one kind of load.
type scenario struct {
	name string
	run  func(*bench, context.Context) error
}

// scenarios are all of them, in the order in which they are run.
func scenarios() []scenario {
	return []scenario{
		{"append", (*bench).append},
		{"deliver", (*bench).deliver},
		{"fill", (*bench).refill},
		{"login", (*bench).login},
		{"poll", (*bench).poll},
		{"flags", (*bench).flags},
		{"headers", (*bench).headers},
		{"body", (*bench).body},
		{"slices", (*bench).slices},
		{"search", (*bench).search},
		{"store", (*bench).store},
		{"move", (*bench).move},
		{"idle", (*bench).idle},
		{"idlemem", (*bench).idleMemory},
		{"mixed", (*bench).mixed},
	}
}

func names() []string {
	var all []string
	for _, s := range scenarios() {
		all = append(all, s.name)
	}
	return all
}

// run is the program. Its error says that something was wrong with an answer, or
// could not be measured; the report is printed all the same.
func run(ctx context.Context, args []string, out io.Writer) error {
	cfg, err := parse(args)
	if err != nil {
		return err
	}
	mails, err := loadMails(cfg)
	if err != nil {
		return err
	}
	b := &bench{cfg: cfg, mails: mails, report: report{Label: cfg.label, Addresses: cfg.addrs, Began: time.Now().UTC().Truncate(time.Second), Mails: describe(mails)}}
	for _, s := range scenarios() {
		if !slices.Contains(cfg.run, s.name) {
			continue
		}
		b.scenario = s.name
		if err := s.run(b, ctx); err != nil {
			b.wrong(fmt.Errorf("%s: %w", s.name, err))
		}
		if err := ctx.Err(); err != nil {
			b.wrong(err)
			break
		}
	}
	if err := b.report.print(out); err != nil {
		return err
	}
	if cfg.json != "" {
		text, err := json.MarshalIndent(b.report, "", "  ")
		if err == nil {
			err = os.WriteFile(cfg.json, append(text, '\n'), 0o600)
		}
		if err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	if n := b.report.Wrong; n > 0 {
		return fmt.Errorf("%d answers were wrong or missing", n)
	}
	return nil
}
