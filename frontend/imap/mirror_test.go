package imap

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"starling/metadata"
)

// mirror is a client that believes what it is told and nothing else: by number where
// it is, by UID what flags it has. Whatever it is told must fit what it knows, and in
// the end it must know what is true.
type mirror struct {
	*client
	node    *clusterNode
	user    string
	box     string
	enable  string
	rnd     *rand.Rand
	log     []string
	tag     int
	uids    []uint32 // by number; 0: not told yet
	flags   map[uint32]string
	modseqs map[uint32]int64
	names   []string // flags that FLAGS named
	valid   string
	highest int64

	// Of the command that runs.
	told     int64 // greatest MODSEQ
	code     int64 // HIGHESTMODSEQ
	modified []uint32
	plain    map[uint32]bool // FETCH with FLAGS came
}

func (m *mirror) qresync() bool   { return strings.Contains(m.enable, "QRESYNC") }
func (m *mirror) condstore() bool { return m.enable != "" && m.enable != "IMAP4rev2" }

func (m *mirror) fail(format string, args ...any) {
	m.t.Helper()
	m.t.Errorf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(m.log[max(0, len(m.log)-60):], "\n"))
	panic(errMirror)
}

var mirrorBoxes = []string{"INBOX", "Archive"}

var errMirror = fmt.Errorf("a mirror differs")

var (
	mirrorFetch   = regexp.MustCompile(`^\* (\d+) FETCH \((.*)\)$`)
	mirrorUID     = regexp.MustCompile(`UID (\d+)`)
	mirrorFlags   = regexp.MustCompile(`FLAGS \(([^)]*)\)`)
	mirrorModSeq  = regexp.MustCompile(`MODSEQ \((\d+)\)`)
	mirrorCount   = regexp.MustCompile(`^\* (\d+) (EXISTS|EXPUNGE)$`)
	mirrorGone    = regexp.MustCompile(`^\* VANISHED (\(EARLIER\) )?([\d:,]+)$`)
	mirrorHighest = regexp.MustCompile(`\[HIGHESTMODSEQ (\d+)\]`)
	mirrorHeld    = regexp.MustCompile(`\[MODIFIED ([\d:,]+)\]`)
	mirrorStatus  = regexp.MustCompile(`^\* STATUS .*MESSAGES (\d+)`)
	mirrorValid   = regexp.MustCompile(`\[UIDVALIDITY (\d+)\]`)
)

func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func numbers(text string) (all []uint32) {
	for part := range strings.SplitSeq(text, ",") {
		lo, hi, found := strings.Cut(part, ":")
		if !found {
			hi = lo
		}
		for n := number(lo); n <= number(hi); n++ {
			all = append(all, uint32(n))
		}
	}
	return all
}

// run sends a command and takes in what it is answered with; it returns the tagged response.
func (m *mirror) run(format string, args ...any) string {
	m.t.Helper()
	m.tag++
	tag := fmt.Sprintf("t%d ", m.tag)
	command := fmt.Sprintf(format, args...)
	m.told, m.code, m.modified, m.plain = 0, 0, nil, make(map[uint32]bool)
	m.log = append(m.log, fmt.Sprintf("  > %s%s", tag, command))
	m.send(tag + command)
	for {
		line := m.read()
		m.take(line)
		if strings.HasPrefix(line, "+ ") { // of IDLE
			m.send("DONE")
		}
		if rest, found := strings.CutPrefix(line, tag); found {
			if m.code > 0 {
				m.highest = m.code
			} else {
				m.highest = max(m.highest, m.told)
			}
			return rest
		}
	}
}

// read reads a response. The text of the messages is empty, and so are the literals of it.
func (m *mirror) read() string {
	m.t.Helper()
	response := ""
	for {
		line, err := m.in.ReadString('\n')
		if err != nil {
			m.fail("%v", err)
		}
		response += strings.TrimRight(line, "\r\n")
		if !strings.HasSuffix(response, " {0}") {
			m.log = append(m.log, "  < "+response)
			return response
		}
	}
}

func (m *mirror) take(line string) {
	if h := mirrorHighest.FindStringSubmatch(line); h != nil {
		m.code = number(h[1])
	}
	if h := mirrorHeld.FindStringSubmatch(line); h != nil {
		m.modified = numbers(h[1])
	}
	if h := mirrorValid.FindStringSubmatch(line); h != nil {
		m.valid = h[1]
	}
	if h := mirrorCount.FindStringSubmatch(line); h != nil {
		m.takeCount(int(number(h[1])), h[2])
	}
	if h := mirrorGone.FindStringSubmatch(line); h != nil {
		m.takeGone(h[1] != "", numbers(h[2]))
	}
	if h := mirrorFetch.FindStringSubmatch(line); h != nil {
		m.takeFetch(int(number(h[1])), h[2])
	}
	if rest, found := strings.CutPrefix(line, "* FLAGS ("); found {
		m.names = strings.Fields(strings.TrimSuffix(rest, ")"))
	}
	if h := mirrorStatus.FindStringSubmatch(line); h != nil && int(number(h[1])) != len(m.uids) {
		m.fail("STATUS tells of %s messages, %d are known", h[1], len(m.uids))
	}
	if strings.HasPrefix(line, "* BYE") || strings.Contains(line, "SERVERBUG") || strings.Contains(line, " BAD ") {
		m.fail("%s", line)
	}
}

func (m *mirror) takeCount(n int, what string) {
	switch {
	case what == "EXISTS":
		if n < len(m.uids) {
			m.fail("EXISTS %d, %d are known", n, len(m.uids))
		}
		m.uids = append(m.uids, make([]uint32, n-len(m.uids))...)
	case m.qresync():
		m.fail("EXPUNGE with QRESYNC")
	case n < 1 || n > len(m.uids):
		m.fail("EXPUNGE %d of %d", n, len(m.uids))
	default:
		m.drop(n - 1)
	}
}

func (m *mirror) drop(i int) {
	delete(m.flags, m.uids[i])
	delete(m.modseqs, m.uids[i])
	m.uids = slices.Delete(m.uids, i, i+1)
}

func (m *mirror) takeGone(earlier bool, uids []uint32) {
	if !m.qresync() {
		m.fail("VANISHED without QRESYNC")
	}
	for _, uid := range uids {
		i := slices.Index(m.uids, uid)
		switch {
		case i >= 0 && earlier && m.valid != "":
			m.fail("VANISHED (EARLIER) names %d, which is shown", uid)
		case i >= 0:
			m.drop(i)
		case !earlier: // one of those of which only the number is known
			if i = m.place(uid); i < 0 {
				m.fail("VANISHED %d, which is not known", uid)
			}
			m.drop(i)
		}
	}
}

// place is the index of an unknown message that may have uid.
func (m *mirror) place(uid uint32) int {
	at := -1
	for i, known := range m.uids {
		switch {
		case known > uid:
			return at
		case known == 0:
			at = i
		default:
			at = -1
		}
	}
	return at
}

func (m *mirror) takeFetch(seq int, items string) {
	if seq < 1 || seq > len(m.uids) {
		m.fail("FETCH of %d, there are %d", seq, len(m.uids))
	}
	if h := mirrorUID.FindStringSubmatch(items); h != nil {
		uid := uint32(number(h[1]))
		if known := m.uids[seq-1]; known != 0 && known != uid {
			m.fail("%d has UID %d, not %d", seq, known, uid)
		}
		m.uids[seq-1] = uid
	}
	uid := m.uids[seq-1]
	if h := mirrorModSeq.FindStringSubmatch(items); h != nil {
		m.told = max(m.told, number(h[1]))
		m.modseqs[uid] = number(h[1])
	}
	if h := mirrorFlags.FindStringSubmatch(items); h != nil {
		flags := strings.Fields(h[1])
		for _, f := range flags {
			if f != `\Recent` && !slices.Contains(m.names, f) {
				m.fail("flag %s was not named by FLAGS", f)
			}
		}
		m.plain[uid] = true
		m.flags[uid] = sortedFlags(flags)
	}
}

func sortedFlags(flags []string) string {
	flags = slices.DeleteFunc(slices.Clone(flags), func(f string) bool { return f == `\Recent` })
	slices.Sort(flags)
	return strings.Join(slices.Compact(flags), " ")
}

// learn asks for what is known by number only.
func (m *mirror) learn() {
	for {
		i := slices.Index(m.uids, 0)
		if i < 0 {
			return
		}
		first := uint32(1)
		if i > 0 {
			first = m.uids[i-1] + 1
		}
		m.run("UID FETCH %d:* (FLAGS MODSEQ)", first)
	}
}

func (m *mirror) connect() {
	m.client = m.node.dial(m.t).login(m.user)
	if m.enable != "" {
		m.run("ENABLE %s", m.enable)
	}
}

func (m *mirror) open() {
	m.connect()
	m.uids, m.flags, m.modseqs, m.highest, m.valid = nil, make(map[uint32]string), make(map[uint32]int64), 0, ""
	m.run("SELECT %s", m.box)
	if len(m.uids) > 0 {
		m.run("UID FETCH 1:* (FLAGS MODSEQ)")
	}
	m.learn()
}

// comeBack loses the connection and goes on with what was known.
func (m *mirror) comeBack() {
	_ = m.conn.Close()
	if !m.qresync() {
		m.open()
		return
	}
	known, valid := m.uids, m.valid
	m.connect()
	m.uids, m.valid = nil, ""
	params := fmt.Sprintf("%s %d", valid, m.highest)
	if len(known) > 0 && m.rnd.IntN(2) == 0 {
		params += fmt.Sprintf(" 1:%d", known[len(known)-1]+1000)
	}
	m.log = append(m.log, fmt.Sprintf("  # knows %v %v", known, m.flags))
	m.tag++
	m.told, m.code = 0, 0
	m.log = append(m.log, "  > SELECT "+params)
	m.send(fmt.Sprintf("t%d SELECT %s (QRESYNC (%s))", m.tag, m.box, params))
	all := make(map[uint32]bool)
	for _, uid := range known {
		all[uid] = true
	}
	exists := 0
	for {
		line := m.read()
		if h := mirrorGone.FindStringSubmatch(line); h != nil {
			for _, uid := range numbers(h[2]) {
				delete(all, uid)
				delete(m.flags, uid)
				delete(m.modseqs, uid)
			}
			continue
		}
		if h := mirrorFetch.FindStringSubmatch(line); h != nil {
			all[uint32(number(mirrorUID.FindStringSubmatch(h[2])[1]))] = true
		}
		m.take(line)
		exists = max(exists, len(m.uids))
		if strings.HasPrefix(line, fmt.Sprintf("t%d ", m.tag)) {
			break
		}
	}
	m.highest = m.code
	uids := slices.Sorted(maps.Keys(all))
	if len(uids) != exists {
		m.fail("after QRESYNC %v are known, there are %d", uids, exists)
	}
	for i, uid := range m.uids {
		if uid != 0 && uid != uids[i] {
			m.fail("after QRESYNC %d has UID %d, by FETCH %d", i+1, uids[i], uid)
		}
	}
	m.uids = uids
}

// span is a random range of numbers, and the UIDs in it.
func (m *mirror) span() (text string, uids []uint32) {
	lo := m.rnd.IntN(len(m.uids))
	hi := min(len(m.uids)-1, lo+m.rnd.IntN(4))
	return fmt.Sprintf("%d:%d", lo+1, hi+1), slices.Clone(m.uids[lo : hi+1])
}

func (m *mirror) store() {
	set, uids := m.span()
	by := ""
	if m.rnd.IntN(2) == 0 {
		by, set = "UID ", fmt.Sprintf("%d:%d", uids[0], uids[len(uids)-1])
	}
	op := []string{"", "+", "-"}[m.rnd.IntN(3)]
	flag := []string{`\Seen`, `\Flagged`, `\Deleted`, `\Deleted`, `\Draft`, "k1", "k2", fmt.Sprint("k", m.rnd.IntN(120))}[m.rnd.IntN(8)]
	since := ""
	if m.condstore() && m.rnd.IntN(3) == 0 {
		since = fmt.Sprintf("(UNCHANGEDSINCE %d) ", m.highest)
	}
	if m.rnd.IntN(2) == 0 {
		m.run("%sSTORE %s %s%sFLAGS (%s)", by, set, since, op, flag)
		return
	}
	// What .SILENT leaves unsaid is what the command asked for.
	before := maps.Clone(m.flags)
	for _, uid := range uids {
		now := strings.Fields(before[uid])
		switch op {
		case "":
			now = []string{flag}
		case "+":
			now = append(now, flag)
		case "-":
			now = slices.DeleteFunc(now, func(f string) bool { return f == flag })
		}
		m.flags[uid] = sortedFlags(now)
	}
	knew := slices.Clone(m.uids)
	answer := m.run("%sSTORE %s %s%sFLAGS.SILENT (%s)", by, set, since, op, flag)
	for _, n := range m.modified {
		uid := n
		if by == "" {
			uid = knew[n-1]
		}
		if _, known := m.flags[uid]; known && !m.plain[uid] {
			m.flags[uid] = before[uid]
		}
	}
	if strings.HasPrefix(answer, "NO [LIMIT]") { // of keywords: nothing was stored
		for _, uid := range uids {
			if _, known := m.flags[uid]; known && !m.plain[uid] {
				m.flags[uid] = before[uid]
			}
		}
		return
	}
	if !strings.HasPrefix(answer, "OK") {
		m.fail("STORE: %s", answer)
	}
}

func (m *mirror) step() {
	if len(m.uids) == 0 || m.rnd.IntN(12) == 0 {
		m.run("APPEND %s (\\Flagged) {4+}\r\nx: y", m.box)
		m.learn()
		return
	}
	set, uids := m.span()
	byUID := fmt.Sprintf("%d:%d", uids[0], uids[len(uids)-1])
	switch m.rnd.IntN(24) {
	case 0:
		m.run("NOOP")
	case 1:
		m.run("EXPUNGE")
	case 2:
		m.run("UID EXPUNGE %s", byUID)
	case 3:
		m.run("STATUS %s (MESSAGES UNSEEN)", m.box)
	case 4:
		m.run("FETCH %s FLAGS", set)
	case 5:
		m.run("UID FETCH %s (FLAGS)", byUID)
	case 6:
		m.run("FETCH %s (UID BODY[TEXT]<0.1>)", set)
	case 7:
		m.run("SEARCH SEEN")
	case 8:
		m.run("UID SEARCH ALL")
	case 9:
		if len(m.uids) < 30 {
			m.run("COPY %s %s", set, mirrorBoxes[m.rnd.IntN(2)])
		}
	case 10:
		m.run("MOVE %s %s", set, mirrorBoxes[m.rnd.IntN(2)])
	case 13:
		m.run("IDLE")
	case 14:
		m.run("CLOSE")
		m.comeBack()
	case 11:
		if m.qresync() {
			m.run("UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d VANISHED)", max(1, m.highest-5))
		}
	case 12:
		m.comeBack()
	default:
		m.store()
		if m.code > 0 && m.rnd.IntN(2) == 0 { // there are ghosts
			m.learn()
			m.comeBack()
		}
	}
	m.learn()
}

// check compares what is known with what is true.
func (m *mirror) check() {
	m.run("NOOP")
	m.learn()
	uids, flags, modseqs := slices.Clone(m.uids), maps.Clone(m.flags), maps.Clone(m.modseqs)
	_ = m.conn.Close()
	m.open()
	if !slices.Equal(uids, m.uids) {
		m.fail("UIDs %v, should be %v", uids, m.uids)
	}
	for uid, f := range m.flags {
		if flags[uid] != f {
			m.fail("flags of %d are %q, should be %q", uid, flags[uid], f)
		}
		if m.condstore() && modseqs[uid] != m.modseqs[uid] {
			m.fail("modseq of %d is %d, should be %d", uid, modseqs[uid], m.modseqs[uid])
		}
	}
}

func (m *mirror) guarded(do func()) {
	defer func() {
		if r := recover(); r != nil && r != any(errMirror) {
			panic(r)
		}
	}()
	do()
}

// Clients of all kinds that change two mailboxes at once, over two nodes, always fit
// what they are told to what they know, and know the truth in the end, also those
// that come back with QRESYNC (RFC 9051 §5.2, §7.5.1; RFC 7162 §3.2), and while
// messages, chunks and keywords are collected as soon as nobody has them.
func TestMirrors(t *testing.T) {
	t.Parallel()
	for name, forgetful := range map[string]bool{"kept": false, "collected": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 2, clusterOptions{forgetful: forgetful})
			mirrors := newMirrors(t, c)
			for range 4 {
				stop := func() {}
				if forgetful {
					stop = c.collectOnAndOn(t)
				}
				var running sync.WaitGroup
				for _, m := range mirrors {
					running.Go(func() {
						m.guarded(func() {
							for range 40 {
								m.step()
							}
						})
					})
				}
				running.Wait()
				stop()
				for _, m := range mirrors {
					if !t.Failed() {
						m.guarded(m.check)
					}
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}

func newMirrors(t *testing.T, c *cluster) []*mirror {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	user := c.account(t, "mirrors@example.org", metadata.Quota{}).Name
	var mirrors []*mirror
	for i, enable := range []string{"", "CONDSTORE", "QRESYNC", "QRESYNC", "IMAP4rev2", "QRESYNC IMAP4rev2", "QRESYNC", "CONDSTORE", ""} {
		m := &mirror{node: c.nodes[i%2], user: user, box: mirrorBoxes[i/6], enable: enable, rnd: rand.New(rand.NewPCG(seed, uint64(i)))}
		m.client = &client{t: t}
		if i == 0 {
			m.client = m.node.dial(t).login(user)
			m.run("CREATE Archive")
		}
		m.open()
		mirrors = append(mirrors, m)
	}
	return mirrors
}

// collectOnAndOn has the first node collect until the function that it returns is called.
func (c *cluster) collectOnAndOn(t *testing.T) (stop func()) {
	t.Helper()
	end := make(chan struct{})
	var collecting sync.WaitGroup
	collecting.Go(func() {
		for {
			select {
			case <-end:
				return
			default:
			}
			if _, err := c.nodes[0].store.Collect(t.Context(), 0); err != nil {
				t.Error(err)
				return
			}
		}
	})
	return func() {
		close(end)
		collecting.Wait()
	}
}
