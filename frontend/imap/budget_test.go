package imap

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"starling/metadata"
)

const (
	// budgetRuns is how often each command is measured; the median counts, so that what
	// runs beside it now and then does not.
	budgetRuns = 41
	// budgetWarm is how often it is run before that: statements are prepared, pools filled.
	budgetWarm = 5
	// budgetBox is how many messages are in INBOX.
	budgetBox = 1000
)

// meter is a client that allocates nothing while it waits for an answer.
type meter struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

// Every command of a meter has this tag.
var meterTag = []byte("m ")

// meter is a connection to the first node that is logged in and has run commands.
func (c *cluster) meter(t *testing.T, user string, commands ...string) *meter {
	t.Helper()
	m := c.dialMeter(t)
	for _, command := range append([]string{"LOGIN " + user + " " + testPassword}, commands...) {
		m.run(meterCommand(command))
	}
	return m
}

func (c *cluster) dialMeter(t *testing.T) *meter {
	t.Helper()
	m := &meter{t: t, conn: c.nodes[0].dial(t).conn}
	m.in = bufio.NewReaderSize(m.conn, 64<<10)
	m.until([]byte("* OK"))
	return m
}

func meterCommand(command string) []byte {
	return append(append(slices.Clone(meterTag), command...), "\r\n"...)
}

func (m *meter) send(command string) {
	m.t.Helper()
	if _, err := m.conn.Write(meterCommand(command)); err != nil {
		m.t.Fatal(err)
	}
}

// run sends a command and reads up to its tagged response, which must be OK.
func (m *meter) run(command []byte) {
	if _, err := m.conn.Write(command); err != nil {
		m.t.Fatal(err)
	}
	if line := m.until(meterTag); !bytes.HasPrefix(line[len(meterTag):], []byte("OK ")) {
		m.t.Fatalf("%.80s: %s", command, line)
	}
}

// until reads up to a line that begins with prefix.
func (m *meter) until(prefix []byte) []byte {
	for {
		line, err := m.in.ReadSlice('\n')
		if bytes.HasPrefix(line, prefix) {
			return line
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			m.t.Fatal(err)
		}
	}
}

// measure is how many objects are allocated in the process while do runs, client and
// all; before prepares each run.
func measure(before, do func()) int {
	counts := make([]int, 0, budgetRuns)
	var was, is runtime.MemStats
	for i := range budgetWarm + budgetRuns {
		if before != nil {
			before()
		}
		runtime.ReadMemStats(&was)
		do()
		runtime.ReadMemStats(&is)
		if i >= budgetWarm {
			counts = append(counts, int(is.Mallocs-was.Mallocs))
		}
	}
	slices.Sort(counts)
	return counts[len(counts)/2]
}

// underRace says that the race detector is on, by which pools forget and more is allocated.
func underRace() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}

// TestBudgets holds the commands to how much the whole node allocates for one of them,
// from the socket to PostgreSQL's and the object store's clients and back. What
// they cost of round trips and requests is TestBudgets of frontend/mailstore.
//
// It is not parallel: nothing else may run in the process. A bound is what was measured
// and a sixth of it; where a command needs less by now, lower it.
func TestBudgets(t *testing.T) { //nolint:paralleltest // see above
	if underRace() {
		t.Skip("the race detector allocates too")
	}
	c := newCluster(t, 2, clusterOptions{}) // the second only fills mailboxes, so that they are cold on the first
	user := c.account(t, "budget@example.org", metadata.Quota{}).Name
	c.fillForBudgets(t, user)
	a, b, idle, besides := c.meter(t, user, "SELECT INBOX"), c.meter(t, user), c.meter(t, user, "SELECT Few"), c.meter(t, user, "SELECT Few")
	idle.send("IDLE")
	idle.until([]byte("+ "))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))

	// inTurn sends the commands, one each time.
	inTurn := func(m *meter, commands ...string) func() {
		lines := make([][]byte, len(commands))
		for i, command := range commands {
			lines[i] = meterCommand(command)
		}
		turn := 0
		return func() {
			m.run(lines[turn%len(lines)])
			turn++
		}
	}
	command := func(command string) func() { return inTurn(a, command) }
	var examine []string
	for i := range budgetWarm + budgetRuns {
		examine = append(examine, fmt.Sprint("EXAMINE cold", i))
	}
	var fresh *meter
	login := meterCommand("LOGIN " + user + " " + testPassword)
	mark := inTurn(besides, `STORE 1 +FLAGS.SILENT (\Flagged)`, `STORE 1 -FLAGS.SILENT (\Flagged)`)
	told := []byte("* 1 FETCH ")
	text := "From: a@example.org\r\nSubject: budget\r\n\r\nhello\r\n"

	for _, test := range []struct {
		what       string
		before, do func()
		most       int
	}{
		{"NOOP", nil, command("NOOP"), 45},
		{"STATUS", nil, command("STATUS Archive (MESSAGES UNSEEN UIDNEXT)"), 70},
		{"LIST", nil, command(`LIST "" *`), 525},
		{"SELECT, held", nil, inTurn(b, "SELECT INBOX"), 65},
		{"SELECT, cold", nil, inTurn(b, examine...), 155},
		{"FETCH FLAGS", nil, command("FETCH 1 (FLAGS)"), 16},
		{"FETCH FLAGS of 1,000", nil, command("FETCH 1:1000 (FLAGS)"), 16},
		{"FETCH ENVELOPE", nil, command("FETCH 1 (ENVELOPE)"), 24},
		{"FETCH ENVELOPE of 1,000", nil, command("FETCH 1:1000 (ENVELOPE)"), 75},
		{"FETCH BODYSTRUCTURE", nil, command("FETCH 1 (BODYSTRUCTURE)"), 25},
		{"FETCH of a body", nil, command("FETCH 1 (BODY.PEEK[])"), 39},
		{"FETCH of 100 bodies", nil, command("FETCH 1:100 (BODY.PEEK[])"), 1560},
		{"FETCH of a slice", nil, command("FETCH 1 (BODY.PEEK[TEXT]<3.5>)"), 27},
		{"STORE", nil, inTurn(a, `STORE 1 +FLAGS.SILENT (\Flagged)`, `STORE 1 -FLAGS.SILENT (\Flagged)`), 105},
		{"STORE of 1,000", nil, inTurn(a, `STORE 1:* +FLAGS.SILENT (\Answered)`, `STORE 1:* -FLAGS.SILENT (\Answered)`), 180},
		{"SEARCH UNSEEN", nil, command("UID SEARCH UNSEEN"), 32},
		{"SEARCH SUBJECT", nil, command("UID SEARCH SUBJECT nothing"), 43},
		{"SEARCH LARGER", nil, command("UID SEARCH LARGER 100000"), 38},
		{"SEARCH BODY", nil, command("UID SEARCH UID 1:100 BODY nothing"), 1740},
		{"APPEND", nil, command(fmt.Sprintf("APPEND INBOX {%d+}\r\n%s", len(text), text)), 208},
		{"COPY", nil, command("COPY 1 Archive"), 255},
		{"MOVE", nil, command("UID MOVE * Archive"), 280},
		{"EXPUNGE", command(`UID STORE * +FLAGS.SILENT (\Deleted)`), command("EXPUNGE"), 240},
		{"LOGIN", func() { fresh = c.dialMeter(t) }, func() { fresh.run(login) }, 115},
		{"STORE, and to tell another client in IDLE", nil, func() { mark(); idle.until(told) }, 110},
	} {
		got := measure(test.before, test.do)
		t.Logf("%s: %d", test.what, got)
		if got > test.most {
			t.Errorf("%s: %d objects allocated, at most %d are expected", test.what, got, test.most)
		}
	}
}

// fillForBudgets puts messages into INBOX on the first node, and makes mailboxes that only
// the second one has met.
func (c *cluster) fillForBudgets(t *testing.T, user string) {
	t.Helper()
	here, there := c.nodes[0].dial(t).login(user), c.nodes[1].dial(t).login(user)
	var lines strings.Builder
	for i := range budgetBox {
		text := fmt.Sprintf("From: Anna <anna%d@example.org>\r\nTo: b@example.org\r\nSubject: Message %d\r\n"+
			"Date: Fri, 02 Feb 2024 10:00:00 +0000\r\nMessage-ID: <%d@example.org>\r\n\r\nHello, this is message %d\r\n", i, i, i, i)
		fmt.Fprintf(&lines, "a APPEND INBOX {%d+}\r\n%s\r\n", len(text), text)
	}
	here.send(lines.String() + "a CREATE Archive\r\na CREATE Few\r\nb APPEND Few {5+}\r\nhello")
	here.until("b OK ")
	lines.Reset()
	for i := range budgetWarm + budgetRuns {
		fmt.Fprintf(&lines, "a CREATE cold%d\r\na APPEND cold%d {5+}\r\nhello\r\n", i, i)
	}
	there.send(lines.String() + "b NOOP")
	there.until("b OK ")
}
