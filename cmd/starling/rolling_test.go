package main_test

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-smtp"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

var (
	rollSeed   = flag.Uint64("roll.seed", 1, "seed of TestRollingRestart")
	rollRounds = flag.Int("roll.rounds", 1, "how often TestRollingRestart restarts both nodes")
)

const (
	rollWorkers = 6
	rollIdlers  = 4
	rollLeast   = 40 // acknowledged changes between two restarts
	rollUser    = "bob@example.org"
)

// rolling is a load on two nodes that are restarted one after the other. What is
// told of a node that stops is only that: its clients come back.
type rolling struct {
	t       *testing.T
	boxes   []string
	stopped atomic.Bool

	mu    sync.Mutex
	nodes []*server // that new connections are sent to

	acked, delivered, again, reconnects atomic.Int64
}

// pick is a node that takes connections.
func (r *rolling) pick() *server {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nodes[rand.IntN(len(r.nodes))]
}

func (r *rolling) take(n *server) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.nodes {
		if r.nodes[i] == n {
			r.nodes = append(r.nodes[:i], r.nodes[i+1:]...)
			return
		}
	}
}

func (r *rolling) add(n *server) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nodes = append(r.nodes, n)
}

// refused says that a node has answered with NO or BAD, which no client should see.
func refused(err error) bool {
	var said *imap.Error
	return errors.As(err, &said) && said.Type != imap.StatusResponseTypeBye
}

// change lets a worker change its messages; whenever its connection ends, it connects
// again and looks what has become of the change that it had asked for.
func (r *rolling) change(w *killWorker) error {
	for !r.stopped.Load() {
		err := r.connect(w)
		for err == nil && !r.stopped.Load() {
			err = w.step()
		}
		if refused(err) {
			return fmt.Errorf("worker %d: %s: %w", w.no, w.pending.what, err)
		}
		if err != nil {
			r.reconnects.Add(1)
		}
		if w.client != nil {
			_ = w.client.Close() // it is at its end either way
			w.client = nil
		}
	}
	return nil
}

func (r *rolling) connect(w *killWorker) error {
	client, err := imapclient.DialInsecure(r.pick().imap, nil)
	if err != nil {
		return err
	}
	w.client = client
	if err := client.Login(testUser, testPassword).Wait(); err != nil {
		return err
	}
	if w.pending.what != "" {
		actual, err := r.look(client)
		if err != nil {
			return err
		}
		w.settle(r.t, actual)
	}
	_, err = client.Select(w.home, nil).Wait()
	return err
}

// look is what there is, by a connection.
func (r *rolling) look(client *imapclient.Client) (map[place]copyOf, error) {
	actual := make(map[place]copyOf)
	for _, box := range r.boxes {
		if _, err := client.Select(box, nil).Wait(); err != nil {
			return nil, err
		}
		all, err := client.Fetch(imap.UIDSet{imap.UIDRange{Start: 1}}, &imap.FetchOptions{UID: true, Flags: true, Envelope: true}).Collect()
		if err != nil {
			return nil, err
		}
		for _, m := range all {
			actual[place{box, m.UID}] = copyOf{m.Envelope.Subject, flagText(m.Flags)}
		}
	}
	return actual, nil
}

// deliver delivers one mail after the other, each until it is taken, as a mail
// transfer agent does.
func (r *rolling) deliver() error {
	var client *smtp.Client
	for n := 0; !r.stopped.Load(); n++ {
		for {
			err := r.deliverOnce(&client, n)
			if err == nil {
				break
			}
			var said *smtp.SMTPError
			if errors.As(err, &said) && said.Code != 421 {
				return fmt.Errorf("delivery %d: %w", n, err)
			}
			r.again.Add(1)
			if client != nil {
				_ = client.Close() // it is at its end either way
				client = nil
			}
		}
		r.delivered.Add(1)
	}
	if client != nil {
		return client.Quit()
	}
	return nil
}

func (r *rolling) deliverOnce(client **smtp.Client, n int) error {
	if *client == nil {
		conn, err := net.Dial("tcp", r.pick().lmtp)
		if err != nil {
			return err
		}
		*client = smtp.NewClientLMTP(conn)
		if err := (*client).Hello("mta.example.org"); err != nil {
			return err
		}
	}
	if err := (*client).Mail("sender@example.org", nil); err != nil {
		return err
	}
	if err := (*client).Rcpt(rollUser, nil); err != nil {
		return err
	}
	data, err := (*client).Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(data, numberedMail(n)); err != nil {
		return err
	}
	_, err = data.CloseWithLMTPResponse()
	return err
}

// rollIdler waits in IDLE, and comes back whenever it is told to go.
type rollIdler struct {
	heard atomic.Int64
	mu    sync.Mutex
	conn  net.Conn
}

func (r *rolling) idle(i *rollIdler) error {
	for !r.stopped.Load() {
		conn, err := net.Dial("tcp", r.pick().imap)
		if err != nil {
			continue
		}
		i.mu.Lock()
		i.conn = conn
		i.mu.Unlock()
		_, err = fmt.Fprintf(conn, "a login %s %q\r\nb select INBOX\r\nc idle\r\n", testUser, testPassword)
		lines := bufio.NewScanner(conn)
		for err == nil && lines.Scan() {
			switch line := lines.Text(); {
			case strings.HasPrefix(line, "* BYE"), strings.HasPrefix(line, "a OK"), strings.HasPrefix(line, "b OK"), strings.HasPrefix(line, "+ "):
			case strings.HasPrefix(line, "* "):
				i.heard.Add(1)
			default:
				return fmt.Errorf("one in IDLE reads %q", line)
			}
		}
		_ = conn.Close() // it is at its end either way
		r.reconnects.Add(1)
	}
	return nil
}

func (i *rollIdler) end() {
	i.mu.Lock()
	defer i.mu.Unlock()
	_ = i.conn.Close() // idle does too
}

// await waits until more has happened.
func (r *rolling) await(what string, done func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if r.t.Failed() || time.Now().After(deadline) {
			r.t.Fatalf("waiting for %s: %d changes, %d deliveries", what, r.acked.Load(), r.delivered.Load())
		}
	}
}

// Two nodes are restarted one after the other while 6 connections change mail, one
// delivers and 4 wait in IDLE. Nothing that was acknowledged is lost, no delivery is
// lost or doubled, and clients see nothing but that they have to connect again.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "STARLING_SHUTDOWN_DELAY=200ms", "STARLING_SHUTDOWN_GRACE=20s")
	if err := c.db.SetLimits(t.Context(), testUser, metadata.Quota{Bytes: 1 << 40, Messages: 1 << 40}); err != nil {
		t.Fatal(err)
	}
	hash, err := testHash()
	if err != nil {
		t.Fatal(err)
	}
	metadatatest.Account(t, c.db, rollUser, func(n *metadata.NewAccount) {
		n.PasswordHash, n.Mailboxes = hash, metadata.DefaultMailboxes()
	})
	r := &rolling{t: t, boxes: []string{"INBOX", "Archive"}, nodes: []*server{c.nodes[0], c.nodes[1]}}
	var running sync.WaitGroup
	load := func(do func() error) {
		running.Go(func() {
			if err := do(); err != nil {
				t.Error(err)
			}
		})
	}
	workers := make([]*killWorker, rollWorkers)
	for i := range workers {
		workers[i] = &killWorker{
			no: i, random: rand.New(rand.NewPCG(*rollSeed, uint64(i)+1)), home: r.boxes[i%2], other: r.boxes[1-i%2],
			has: make(map[place]copyOf), acked: &r.acked,
		}
		load(func() error { return r.change(workers[i]) })
	}
	idlers := make([]*rollIdler, rollIdlers)
	for i := range idlers {
		idlers[i] = new(rollIdler)
		load(func() error { return r.idle(idlers[i]) })
	}
	load(r.deliver)
	end := sync.OnceFunc(func() {
		r.stopped.Store(true)
		for _, i := range idlers {
			i.end()
		}
		running.Wait()
	})
	defer end()
	more := func() {
		t.Helper()
		changes, deliveries := r.acked.Load()+rollLeast, r.delivered.Load()+rollLeast/4
		heard := make([]int64, len(idlers))
		for i := range idlers {
			heard[i] = idlers[i].heard.Load()
		}
		r.await("load", func() bool {
			for i := range idlers {
				if idlers[i].heard.Load() == heard[i] {
					return false
				}
			}
			return r.acked.Load() >= changes && r.delivered.Load() >= deliveries
		})
	}
	more()
	for range *rollRounds {
		for i := range c.nodes {
			r.take(c.nodes[i])
			if status := c.nodes[i].stop(syscall.SIGTERM); status != 0 {
				t.Errorf("node %d: status %d", i+1, status)
			}
			more()
			c.nodes[i] = c.serve()
			r.add(c.nodes[i])
			more()
		}
	}
	end()
	t.Logf("%d changes, %d deliveries of which %d tried again, %d reconnects", r.acked.Load(), r.delivered.Load(), r.again.Load(), r.reconnects.Load())
	actual := inspect(t, c, c.nodes[0].imap, r.boxes)
	for _, w := range workers {
		w.settle(t, actual)
	}
	r.checkDelivered(c.nodes[1].imap)
	if t.Failed() {
		t.Logf("with -roll.seed %d", *rollSeed)
	}
}

// checkDelivered sees to it that each mail was delivered once.
func (r *rolling) checkDelivered(address string) {
	r.t.Helper()
	client := login(r.t, address, rollUser, testPassword, nil)
	defer func() { _ = client.Close() }() // nothing follows
	if _, err := client.Select("INBOX", nil).Wait(); err != nil {
		r.t.Fatal(err)
	}
	all, err := client.Fetch(imap.UIDSet{imap.UIDRange{Start: 1}}, &imap.FetchOptions{Envelope: true}).Collect()
	if err != nil {
		r.t.Fatal(err)
	}
	times := make(map[string]int)
	for _, m := range all {
		times[m.Envelope.Subject]++
	}
	for n := range r.delivered.Load() {
		if subject := fmt.Sprintf("Message %d", n); times[subject] != 1 {
			r.t.Errorf("%s was delivered %d times", subject, times[subject])
		}
	}
	if len(times) != int(r.delivered.Load()) {
		r.t.Errorf("%d mails of %d that were delivered", len(times), r.delivered.Load())
	}
}
