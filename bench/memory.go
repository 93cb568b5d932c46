package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	idlersStarling = 10_000
	idlersDovecot  = 500   // each is a process
	idleSettle     = "30s" // within which a node that has become quiet gives back what the logins took
)

// idleMemory is what a session costs that waits in IDLE: of Starling's by one node that has just begun, plain and under
// TLS.
func (b *bench) idleMemory(ctx context.Context) error {
	most := idlersStarling
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil && limit.Max < idlersStarling+1000 {
		most = int(limit.Max) - 1000 //nolint:gosec // just compared
	}
	few := min(idlersDovecot, most)
	settle := idleSettle
	if b.quick {
		most, few, settle = 100, 20, "1s"
	}
	for _, over := range []string{"plain", "TLS"} {
		flags := []string{"-run", "idlemem", "-clients", strconv.Itoa(accounts), "-settle", settle}
		if over == "TLS" {
			flags = append(flags, "-tls")
		}
		r := row{Name: fmt.Sprintf("memory of a session in IDLE, %s, KB (b)", over), Goal: "≤ 6"}
		limit := 6.0
		if over == "TLS" {
			r.Goal, limit = "≤ 16", 16
		}
		own, err := b.idleNode(ctx, over == "TLS", append(flags, "-idlers", strconv.Itoa(most)))
		if err != nil {
			return err
		}
		r.Starling = own
		r.meets(own <= limit)
		if b.other != nil {
			if r.Dovecot, err = b.idleDovecot(ctx, over == "TLS", append(flags, "-idlers", strconv.Itoa(few))); err != nil {
				return err
			}
			r.Ratio = r.Dovecot / r.Starling
		}
		b.report.Rows = append(b.report.Rows, r)
	}
	return nil
}

// idleNode measures by a node of its own.
func (b *bench) idleNode(ctx context.Context, tls bool, flags []string) (float64, error) {
	n, err := b.cluster.startNode(ctx, len(b.cluster.nodes)+1)
	if err != nil {
		return 0, err
	}
	address := n.at["IMAP"]
	if tls {
		address = n.at["IMAPS"]
	}
	if err := n.warm(ctx); err != nil {
		return 0, errors.Join(err, n.end())
	}
	kilobytes, err := b.idleBytes(ctx, &target{name: "Starling", pids: []int{n.pid()}}, address, flags)
	return kilobytes, errors.Join(err, n.end())
}

// idleDovecot measures by a Dovecot of its own, since one that has served keeps its processes.
func (b *bench) idleDovecot(ctx context.Context, tls bool, flags []string) (float64, error) {
	dir, err := os.MkdirTemp(b.dir, "dovecot-")
	if err == nil {
		err = os.Chmod(dir, 0o755) //nolint:gosec // Dovecot's users pass through
	}
	if err != nil {
		return 0, err
	}
	d, err := startDovecot(ctx, dir, runtime.NumCPU())
	if err != nil {
		return 0, err
	}
	address := d.at["IMAP"]
	if tls {
		address = d.at["IMAPS"]
	}
	kilobytes, err := b.idleBytes(ctx, &target{name: "Dovecot", pids: []int{d.pid()}}, address, flags)
	return kilobytes, errors.Join(err, d.end())
}

// warm has each account log in once, and waits until the node has given back the memory that verifying a password takes for
// the first time: many megabytes, beside which a session is nothing.
func (n *node) warm(ctx context.Context) error {
	for i := range accounts {
		c, err := dial(ctx, n.at["IMAP"])
		if err != nil {
			return err
		}
		err = c.commands(fmt.Sprintf("LOGIN user%d@%s %s", i, domain, password), "SELECT INBOX", "LOGOUT")
		if err := errors.Join(err, c.Close()); err != nil {
			return err
		}
	}
	const interval, still, most = 500 * time.Millisecond, 6, 90
	least, since := int64(math.MaxInt64), 0
	for range most {
		if _, err := n.heap(ctx); err != nil { // collects garbage
			return err
		}
		now, err := resident(n.pid())
		if err != nil {
			return err
		}
		if since++; now < least-least/100 {
			least, since = now, 0
		}
		if since >= still {
			return nil
		}
		pause(ctx, interval)
	}
	return ctx.Err()
}

// resident is the memory of a process, in octets.
func resident(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	return int64(number(strings.Fields(string(text))[1])) * int64(os.Getpagesize()), nil
}

func (b *bench) idleBytes(ctx context.Context, t *target, address string, flags []string) (float64, error) {
	results, err := b.load.load(ctx, t, "", append(flags, "-addr", address)...)
	if err != nil {
		return 0, fmt.Errorf("memory of sessions: %w", err)
	}
	return float64(results["memory"].PerClient) / 1000, nil
}

// databaseBytes is what a message costs in PostgreSQL, with indexes, flags and all: by how much the database grew with a mailbox.
func (b *bench) databaseBytes(ctx context.Context) error {
	corpora := []string{""}
	if b.corpus != "" {
		corpora = append(corpora, b.corpus)
	}
	for _, corpus := range corpora {
		before, err := b.cluster.databaseSize(ctx)
		if err != nil {
			return err
		}
		if _, err := b.load.load(ctx, b.starling, corpus, "-run", "fill", "-addr", b.starling.imap[0], "-size", strconv.Itoa(b.size)); err != nil {
			return err
		}
		after, err := b.cluster.databaseSize(ctx)
		if err != nil {
			return err
		}
		r := row{Name: "PostgreSQL, octets a message", Starling: float64(after-before) / float64(b.size), Goal: "≤ 350"}
		if corpus != "" {
			r.Name += ", of the corpus"
		}
		r.meets(r.Starling <= 350)
		b.report.Rows = append(b.report.Rows, r)
	}
	return nil
}

// heldMessages is how many messages the mailbox has by which memory for them is measured.
const heldMessages = 100_000

// messageBytes is how much memory a node has for each message of a mailbox that a client has selected: by how much what Go
// holds grows with SELECT of a large one, garbage collected.
func (b *bench) messageBytes(ctx context.Context) error {
	n := b.cluster.nodes[0]
	c, err := dial(ctx, n.at["IMAP"])
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // every command was answered
	if err := c.commands(fmt.Sprintf("LOGIN user0@%s %s", domain, password), "CREATE bench-held", "SELECT load-filled"); err != nil {
		return err
	}
	for range heldMessages / b.size {
		if err := c.commands("COPY 1:* bench-held"); err != nil {
			return err
		}
	}
	// A node that begins has nothing else in memory.
	fresh, err := b.cluster.startNode(ctx, len(b.cluster.nodes)+1)
	if err != nil {
		return err
	}
	r := row{Name: "memory of a message of an open mailbox, octets", Goal: "≤ 24"}
	r.Starling, err = fresh.selected(ctx, "bench-held", heldMessages/b.size*b.size)
	if err := errors.Join(err, fresh.end()); err != nil {
		return err
	}
	r.meets(r.Starling <= 24)
	b.report.Rows = append(b.report.Rows, r)
	return nil
}

// selected is what a node holds more, for each message, once a mailbox is selected.
func (n *node) selected(ctx context.Context, mailbox string, messages int) (float64, error) {
	c, err := dial(ctx, n.at["IMAP"])
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }() // every command was answered
	if err := c.commands(fmt.Sprintf("LOGIN user0@%s %s", domain, password), "SELECT INBOX", "UNSELECT"); err != nil {
		return 0, err
	}
	before, err := n.heap(ctx)
	if err != nil {
		return 0, err
	}
	if err := c.commands("SELECT " + mailbox); err != nil {
		return 0, err
	}
	after, err := n.heap(ctx)
	return (after - before) / float64(messages), err
}

var heapPattern = regexp.MustCompile(`(?m)^go_memstats_heap_alloc_bytes ([0-9.e+]+)$`)

// heap is what the node holds of Go's memory, garbage collected.
func (n *node) heap(ctx context.Context) (float64, error) {
	for range 2 { // what was in pools goes with the second
		if _, err := n.get(ctx, "/debug/pprof/heap?gc=1"); err != nil {
			return 0, err
		}
	}
	metrics, err := n.get(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	found := heapPattern.FindStringSubmatch(metrics)
	if found == nil {
		return 0, errors.New("the node's metrics do not say how much memory it has")
	}
	return strconv.ParseFloat(found[1], 64)
}

// client is a connection to a server, for the few commands that measure nothing.
type client struct {
	net.Conn
	in *bufio.Reader
}

func dial(ctx context.Context, address string) (*client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &client{Conn: conn, in: bufio.NewReader(conn)}
	if err := conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if _, err := c.in.ReadString('\n'); err != nil { // the greeting
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// commands are sent one after the other; each must be answered with OK.
func (c *client) commands(texts ...string) error {
	for _, text := range texts {
		if _, err := fmt.Fprintf(c, "a %s\r\n", text); err != nil {
			return err
		}
		for {
			line, err := c.in.ReadString('\n')
			if err != nil {
				return err
			}
			if rest, ok := strings.CutPrefix(line, "a "); ok {
				if !strings.HasPrefix(rest, "OK") {
					verb, _, _ := strings.Cut(text, " ") // the rest may be a password
					return fmt.Errorf("%s was answered by %q", verb, rest)
				}
				break
			}
		}
	}
	return nil
}
