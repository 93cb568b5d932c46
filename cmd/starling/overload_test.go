package main_test

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

var (
	overloadConns    = flag.Int("overload.conns", 300, "connections of TestOverload")
	overloadMessages = flag.Int("overload.messages", 2000, "messages in each mailbox that they read")
	overloadLimit    = flag.Int64("overload.limit", 128, "MiB that the node may have")
	overloadOctets   = flag.Int("overload.octets", 30_000_000, "octets of each message that they append")
)

// overloadAccounts share the connections: no account may have more than a part of a
// node's memory, so that one alone would not be much of a load.
const overloadAccounts = 16

// crowd is connections that are logged in and have a mailbox selected.
type crowd struct {
	t     *testing.T
	names []string // of the accounts
	conns []*crowdConn
}

type crowdConn struct {
	net.Conn
	r    *bufio.Reader
	name string // of its account
}

// answers are what a crowd was told, and when.
type answers struct {
	mu     sync.Mutex
	counts map[string]int
	took   []time.Duration // until the answer
}

func (a *answers) add(what string, took time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts[what]++
	a.took = append(a.took, took)
}

func (a *answers) String() string {
	slices.Sort(a.took)
	if len(a.took) == 0 {
		return "none"
	}
	return fmt.Sprintf("%v, after %v (half), %v (99 %%), %v (last)", a.counts, a.took[len(a.took)/2], a.took[len(a.took)*99/100], a.took[len(a.took)-1])
}

// overloadPatience is how long any one answer may take under overload.
const overloadPatience = 5 * time.Minute

// line reads a line of any length, and returns its beginning.
func (c *crowdConn) line() (string, error) {
	begin, more, err := c.r.ReadLine()
	text := string(begin)
	for more && err == nil {
		_, more, err = c.r.ReadLine()
	}
	return text, err
}

// until reads to the answer to a tag, or a BYE or a continuation, and counts the lines
// that have a text.
func (c *crowdConn) until(tag, count string) (answer string, n int, err error) {
	for {
		text, err := c.line()
		switch {
		case err != nil:
			return "", n, err
		case strings.HasPrefix(text, tag+" "), strings.HasPrefix(text, "* BYE"), strings.HasPrefix(text, "+ "):
			return strings.TrimPrefix(text, tag+" "), n, nil
		case count != "" && strings.Contains(text, count):
			n++
		}
	}
}

// kindOf is an answer without its text.
func kindOf(answer string) string {
	if strings.HasPrefix(answer, "* BYE") {
		return "BYE"
	}
	word, rest, _ := strings.Cut(answer, " ")
	if code, _, ok := strings.Cut(rest, "]"); ok && strings.HasPrefix(code, "[") {
		code, _, _ = strings.Cut(code, " ")
		return word + " " + strings.TrimSuffix(code, "]") + "]"
	}
	return word
}

// gather logs connections in.
func gather(t *testing.T, address string, names []string, n int) *crowd {
	t.Helper()
	g := &crowd{t: t, names: names, conns: make([]*crowdConn, n)}
	var next atomic.Int64
	var logins sync.WaitGroup
	for range 16 {
		logins.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				conn, err := net.Dial("tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { _ = conn.Close() }) // it is at its end either way
				c := &crowdConn{conn, bufio.NewReader(conn), names[i%len(names)]}
				if err := conn.SetDeadline(time.Now().Add(overloadPatience)); err != nil {
					t.Error(err)
					return
				}
				_, err = fmt.Fprintf(conn, "a login %s %q\r\nb select INBOX\r\n", c.name, testPassword)
				if err == nil {
					var answer string
					if answer, _, err = c.until("b", ""); err == nil && !strings.HasPrefix(answer, "OK") {
						err = errors.New(answer)
					}
				}
				if err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
				g.conns[i] = c
			}
		})
	}
	logins.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return g
}

// all has each connection do something at the same moment, which comes to an answer.
func (g *crowd) all(do func(c *crowdConn) (string, error)) *answers {
	g.t.Helper()
	a := &answers{counts: make(map[string]int)}
	begin := make(chan struct{})
	var running sync.WaitGroup
	for _, c := range g.conns {
		running.Go(func() {
			<-begin
			began := time.Now()
			if err := c.SetDeadline(began.Add(overloadPatience)); err != nil {
				g.t.Error(err)
				return
			}
			answer, err := do(c)
			if err != nil {
				answer = "cut off"
				g.t.Log(err)
			}
			a.add(kindOf(answer), time.Since(began))
		})
	}
	close(begin)
	running.Wait()
	return a
}

func (g *crowd) leave() {
	for _, c := range g.conns {
		_ = c.Close() // it is at its end either way
	}
}

// light is a client with little to ask for: a NOOP now and then.
type light struct {
	stop   chan struct{}
	ended  sync.WaitGroup
	counts answers
}

func (l *light) run(t *testing.T, address, name string) {
	t.Helper()
	g := gather(t, address, []string{name}, 1)
	l.stop, l.counts.counts = make(chan struct{}), make(map[string]int)
	l.ended.Go(func() {
		c := g.conns[0]
		for i := 0; ; i++ {
			select {
			case <-l.stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
			began := time.Now()
			err := c.SetDeadline(began.Add(overloadPatience))
			if err == nil {
				_, err = fmt.Fprintf(c, "n%d noop\r\n", i)
			}
			var answer string
			if err == nil {
				answer, _, err = c.until("n"+strconv.Itoa(i), "")
			}
			if err != nil {
				t.Errorf("NOOP of a light client: %v", err)
				return
			}
			l.counts.add(kindOf(answer), time.Since(began))
		}
	})
}

// watcher is a client in IDLE, for whom mail comes in on another node now and then.
type watcher struct {
	stop  chan struct{}
	ended sync.WaitGroup
	told  answers
}

func (w *watcher) run(t *testing.T, c *cluster, address, name string) {
	t.Helper()
	idle := gather(t, address, []string{name}, 1).conns[0]
	w.stop, w.told.counts = make(chan struct{}), make(map[string]int)
	if _, err := io.WriteString(idle, "i idle\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := idle.until("i", ""); err != nil { // the continuation
		t.Fatal(err)
	}
	w.ended.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-w.stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
			began := time.Now()
			err := idle.SetDeadline(began.Add(overloadPatience))
			if err == nil {
				err = c.letter(name, i)
			}
			for text := ""; err == nil && !strings.HasSuffix(text, " EXISTS"); {
				text, err = idle.line()
			}
			if err != nil {
				t.Errorf("a client in IDLE: %v", err)
				return
			}
			w.told.add("EXISTS", time.Since(began))
		}
	})
}

// letter delivers a message by the second node.
func (c *cluster) letter(to string, n int) error {
	conn, err := net.Dial("tcp", c.nodes[1].lmtp)
	if err != nil {
		return err
	}
	client := smtp.NewClientLMTP(conn)
	defer func() { _ = client.Close() }() // nothing follows
	if err := client.Mail("sender@example.org", nil); err != nil {
		return err
	}
	if err := client.Rcpt(to, nil); err != nil {
		return err
	}
	data, err := client.Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(data, numberedMail(n)); err != nil {
		return err
	}
	_, err = data.CloseWithLMTPResponse()
	return err
}

func (w *watcher) end() {
	close(w.stop)
	w.ended.Wait()
}

func (l *light) end() {
	close(l.stop)
	l.ended.Wait()
}

// peak is the most memory that the process has had, in MiB.
func (s *server) peak() int64 {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Skip("no /proc here")
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return kib >> 10
		}
	}
	s.t.Fatalf("no VmHWM in %s", text)
	return 0
}

// raced says that the race detector watches, which takes many times the memory.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// overloaded is a node with little memory, beside those of a cluster, and accounts whose
// mailboxes are large; the last has none, and is for others.
func overloaded(t *testing.T) (c *cluster, n *server, names []string) {
	t.Helper()
	c = newCluster(t, "STARLING_IMAP_MAX_PER_ADDRESS=0", "STARLING_IMAP_MAX_PER_ACCOUNT=0")
	for i := range overloadAccounts + 1 {
		name := fmt.Sprintf("crowd%d@example.org", i)
		metadatatest.Account(t, c.db, name, func(n *metadata.NewAccount) {
			// A hash that takes memory, one after the other, would hide what commands take.
			n.PasswordHash, n.Mailboxes = "{PLAIN}"+testPassword, metadata.DefaultMailboxes()
		})
		names = append(names, name)
	}
	for _, name := range names[:overloadAccounts] {
		fill(t, c.nodes[1].imap, name, *overloadMessages)
	}
	limit := fmt.Sprintf("GOMEMLIMIT=%d", *overloadLimit<<20/10*9) // as memory.go would have it in a container
	c.env = append(c.env, limit)
	n = c.serve()
	t.Cleanup(func() {
		if status := n.stop(os.Interrupt); status != 0 {
			t.Errorf("status %d", status)
		}
		if said := n.output.String(); strings.Contains(said, `"level":"error"`) || t.Failed() {
			t.Errorf("the node said:\n%s", said[:min(len(said), 20_000)])
		}
	})
	return c, n, names
}

// fill puts n messages into a mailbox, most of them as copies.
func fill(t *testing.T, address, name string, n int) {
	t.Helper()
	k := talk(t, address)
	k.hear("* OK")
	k.say(fmt.Sprintf("a login %s %q\r\n", name, testPassword))
	k.hear("a OK")
	have := min(n, 125)
	for i := range have {
		mail := numberedMail(i)
		k.say(fmt.Sprintf("b%d append INBOX {%d+}\r\n%s\r\n", i, len(mail), mail))
	}
	k.hear(fmt.Sprintf("b%d OK", have-1))
	k.say("c select INBOX\r\n")
	k.hear("c OK")
	for have < n {
		more := min(have, n-have)
		k.say(fmt.Sprintf("d copy 1:%d INBOX\r\n", more))
		k.hear("d OK")
		have += more
	}
}

// Overload does not take a node's memory: it answers what it can, refuses the rest with
// NO [UNAVAILABLE], and serves others meanwhile.
func TestOverload(t *testing.T) { //nolint:paralleltest // it loads the machine
	c, n, names := overloaded(t)
	other := names[overloadAccounts]
	names = names[:overloadAccounts]
	g := gather(t, n.imap, names, *overloadConns)
	t.Logf("%d connections: %d MiB", len(g.conns), n.peak())
	others, waiting := new(light), new(watcher)
	others.run(t, n.imap, other)
	waiting.run(t, c, n.imap, other)
	step := func(what string, do func(c *crowdConn) (string, error)) *answers {
		began := time.Now()
		a := g.all(do)
		t.Logf("%s: %v; in %v, %d MiB", what, a, time.Since(began), n.peak())
		return a
	}
	list := func(items string, messages int) func(c *crowdConn) (string, error) {
		return func(c *crowdConn) (string, error) {
			if _, err := fmt.Fprintf(c, "f fetch 1:%d %s\r\n", messages, items); err != nil {
				return "", err
			}
			answer, lines, err := c.until("f", " FETCH (")
			if err == nil && strings.HasPrefix(answer, "OK") && lines != messages {
				t.Errorf("FETCH %s: OK after %d messages of %d", items, lines, messages)
			}
			return answer, err
		}
	}
	step("FETCH FLAGS", list("(FLAGS)", *overloadMessages))
	step("FETCH ENVELOPE", list("(UID FLAGS ENVELOPE BODYSTRUCTURE)", *overloadMessages))
	step("FETCH BODY[]", list("(BODY.PEEK[])", 100))
	for _, items := range []string{"(ENVELOPE BODYSTRUCTURE)", "(BODY.PEEK[])"} {
		var stalled sync.WaitGroup
		stalled.Add(len(g.conns))
		step("FETCH that is not read "+items, func(c *crowdConn) (string, error) {
			_, err := fmt.Fprintf(c, "f fetch 1:%d %s\r\n", *overloadMessages, items)
			if err == nil {
				_, err = c.r.Peek(1)
			}
			stalled.Done()
			if err != nil {
				return "", err
			}
			stalled.Wait()
			if c == g.conns[0] {
				t.Logf("all stalled: %d MiB", n.peak())
			}
			answer, _, err := c.until("f", "")
			return answer, err
		})
	}
	var appended sync.Map
	mail := "Subject: large\r\n\r\n" + strings.Repeat("A line that is like others.\r\n", *overloadOctets/29)
	a := step("APPEND", func(c *crowdConn) (string, error) {
		if _, err := fmt.Fprintf(c, "g append INBOX {%d}\r\n", len(mail)); err != nil {
			return "", err
		}
		answer, _, err := c.until("g", "")
		if err != nil || !strings.HasPrefix(answer, "+") {
			return answer, err
		}
		if _, err := io.WriteString(c, mail+"\r\n"); err != nil {
			return "", err
		}
		if answer, _, err = c.until("g", ""); err == nil && strings.HasPrefix(answer, "OK") {
			count, _ := appended.LoadOrStore(c.name, new(atomic.Int64))
			count.(*atomic.Int64).Add(1)
		}
		return answer, err
	})
	if a.counts["OK [APPENDUID]"] == 0 {
		t.Error("nothing was appended")
	}
	others.end()
	waiting.end()
	t.Logf("NOOP meanwhile: %v", &others.counts)
	t.Logf("IDLE meanwhile, delivery on another node included: %v", &waiting.told)
	if others.counts.counts["OK"] == 0 || waiting.told.counts["EXISTS"] == 0 {
		t.Error("nobody else was served")
	}
	g.leave()
	if peak := n.peak(); !raced() && peak > *overloadLimit {
		t.Errorf("the node had %d MiB of %d", peak, *overloadLimit)
	}
	for _, name := range names { // nothing is lost, or there by half
		want := *overloadMessages
		if count, ok := appended.Load(name); ok {
			want += int(count.(*atomic.Int64).Load())
		}
		k := talk(t, n.imap)
		k.hear("* OK")
		k.say(fmt.Sprintf("a login %s %q\r\nb status INBOX (messages)\r\n", name, testPassword))
		if said := k.hear("b OK"); !strings.Contains(said, fmt.Sprintf("(MESSAGES %d)", want)) {
			t.Errorf("%s has not %d messages: %q", name, want, said)
		}
	}
}
