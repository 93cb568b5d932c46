package imap

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"starling/metadata"
)

// scriptRun is one run of a script.
type scriptRun struct {
	t          testing.TB
	script     *script
	cluster    *cluster
	nodes      int
	user       string
	account    metadata.AccountID
	vars       map[string]string
	conns      map[string]*scriptConn
	transcript strings.Builder
	at         step
}

func runScript(t *testing.T, s *script, c *cluster, nodes int) {
	t.Helper()
	r := &scriptRun{
		t: t, script: s, cluster: c, nodes: nodes,
		user:  fmt.Sprintf("%s@nodes%d.example", s.name, nodes),
		conns: make(map[string]*scriptConn),
	}
	local, domain, _ := strings.Cut(r.user, "@")
	base64 := base64.StdEncoding.EncodeToString
	r.vars = map[string]string{
		"user": r.user, "local": local, "domain": domain,
		"sasl":   base64([]byte("\x00" + r.user + "\x00" + testPassword)),
		"user64": base64([]byte(r.user)), "password64": base64([]byte(testPassword)),
	}
	r.account = s.prepare(t, c, r.user)
	if nodes > 1 { // the protocol is logged, which must neither change nor tell anything
		if err := c.nodes[0].store.SetTrace(t.Context(), r.user, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		for _, conn := range r.conns {
			conn.close()
		}
	}()
	for _, r.at = range s.steps {
		r.step()
	}
	for _, conn := range r.conns {
		conn.settle()
	}
}

// fatal ends the run with the transcript up to here.
func (r *scriptRun) fatal(format string, args ...any) {
	r.t.Helper()
	r.t.Fatalf("%s.txt:%d: %s\n    %s%s %s\nTranscript:\n%s", r.script.name, r.at.line, fmt.Sprintf(format, args...),
		r.at.conn, r.at.op, r.at.text, r.transcript.String())
}

// note adds to the transcript.
func (r *scriptRun) note(conn, direction, text string) {
	const most = 2000
	if len(text) > most {
		text = text[:most] + "… (" + strconv.Itoa(len(text)) + " bytes)"
	}
	fmt.Fprintf(&r.transcript, "%s%s %s\n", conn, direction, text)
}

func (r *scriptRun) step() {
	switch r.at.op {
	case "assert":
		r.assert()
	case "!":
		r.control()
	case "~":
		r.conn().raw(r.bytes(r.at.text))
	case "<":
		r.conn().expect(r.at.text)
	case ">":
		r.conn().command(r.expand(r.at.text), true)
	case ">>":
		r.conn().command(r.expand(r.at.text), false)
	}
}

// conn is the step's connection, opened and logged in if it is not there.
func (r *scriptRun) conn() *scriptConn {
	if c := r.conns[r.at.conn]; c != nil {
		return c
	}
	c := r.dial(false, false)
	c.quiet = true
	c.greet()
	c.command("login "+r.user+" "+testPassword, true)
	c.settle()
	c.quiet = false
	return c
}

// dial opens the step's connection to the node whose turn it is.
func (r *scriptRun) dial(implicitTLS, lmtp bool) *scriptConn {
	c := &scriptConn{run: r, name: r.at.conn, lmtp: lmtp}
	node := r.cluster.nodes[len(r.conns)%r.nodes]
	address := node.imap
	switch {
	case lmtp:
		address = node.lmtp
	case implicitTLS:
		address = node.imaps
	}
	c.open(address, implicitTLS)
	r.conns[r.at.conn] = c
	return c
}

func (r *scriptRun) control() {
	switch r.at.text {
	case "connect":
		r.dial(false, false)
	case "connect tls":
		r.dial(true, false)
	case "lmtp":
		r.dial(false, true)
	case "starttls":
		r.conn().startTLS()
	case "close":
		c := r.conn()
		c.settle()
		c.close()
		c.name += " (closed)"
		delete(r.conns, r.at.conn)
		r.conns[c.name] = c
	case "collect":
		if _, err := r.cluster.nodes[0].store.Collect(r.t.Context(), r.account); err != nil {
			r.fatal("%v", err)
		}
	case "eof":
		r.conn().eof()
	default:
		r.fatal("what is this?")
	}
}

var variable = regexp.MustCompile(`\$[a-z][a-z0-9]*`)

// expand puts in what variables stand for.
func (r *scriptRun) expand(text string) string {
	return variable.ReplaceAllStringFunc(text, func(name string) string {
		if value, ok := r.vars[name[1:]]; ok {
			return value
		}
		return name
	})
}

// bytes are those of Go strings, each of which may be repeated.
func (r *scriptRun) bytes(text string) string {
	var out strings.Builder
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		n := 1
		if times, rest, found := strings.Cut(text, "*"); found && !strings.Contains(times, `"`) {
			var err error
			if n, err = strconv.Atoi(times); err != nil {
				r.fatal("%v", err)
			}
			text = rest
		}
		quoted, err := strconv.QuotedPrefix(text)
		if err != nil {
			r.fatal("not a Go string: %s", text)
		}
		value, _ := strconv.Unquote(quoted)
		out.WriteString(strings.Repeat(r.expand(value), n))
		text = text[len(quoted):]
	}
	return out.String()
}

func (r *scriptRun) assert() {
	words := strings.Fields(r.at.text)
	if len(words) != 3 {
		r.fatal("an assertion is two values with a comparison between them")
	}
	a, b := r.expand(words[0]), r.expand(words[2])
	order := strings.Compare(a, b)
	if x, err := strconv.ParseUint(a, 10, 64); err == nil {
		if y, err := strconv.ParseUint(b, 10, 64); err == nil {
			order = int(int64(x) - int64(y))
		}
	}
	holds := map[string]bool{
		"<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0, "==": order == 0, "!=": order != 0,
	}
	if !holds[words[1]] {
		r.fatal("not so: %s %s %s", a, words[1], b)
	}
}

// match says whether a response is what a line of the script asks for, and takes
// the variables that are new in it.
func (r *scriptRun) match(want, got string) bool {
	pattern, names := r.pattern(want)
	found := pattern.FindStringSubmatch(got)
	if found == nil {
		return false
	}
	values := make(map[string]string)
	for i, name := range names {
		if old, ok := values[name]; ok && old != found[i+1] {
			return false
		}
		values[name] = found[i+1]
	}
	for name, value := range values {
		r.vars[name] = value
	}
	return true
}

// pattern turns a line into an expression, with a group for each variable that is not known yet.
func (r *scriptRun) pattern(want string) (pattern *regexp.Regexp, names []string) {
	var b strings.Builder
	b.WriteString(`^(?s:`)
	want = r.literals(want)
	for want != "" {
		dots, name := strings.Index(want, "…"), variable.FindStringIndex(want)
		switch {
		case dots == 0:
			b.WriteString(`.*?`)
			want = want[len("…"):]
		case name != nil && name[0] == 0:
			word := want[1:name[1]]
			if value, ok := r.vars[word]; ok {
				b.WriteString(regexp.QuoteMeta(value))
			} else {
				b.WriteString(`([^\s()\[\]<>"]+)`)
				names = append(names, word)
			}
			want = want[name[1]:]
		default:
			n := len(want)
			if dots > 0 {
				n = dots
			}
			if name != nil {
				n = min(n, name[0])
			}
			b.WriteString(regexp.QuoteMeta(want[:n]))
			want = want[n:]
		}
	}
	b.WriteString(`)$`)
	return regexp.MustCompile(b.String()), names
}

// scriptLiteral is how scripts write a literal.
var scriptLiteral = regexp.MustCompile(`(~?)\{("(?:[^"\\]|\\.)*"|[\w-]+\.eml)(\+?)\}`)

// literals puts the bytes of files, as Go strings, in the place of their names.
func (r *scriptRun) literals(text string) string {
	return scriptLiteral.ReplaceAllStringFunc(text, func(literal string) string {
		m := scriptLiteral.FindStringSubmatch(literal)
		return m[1] + "{" + strconv.Quote(r.literal(m[2])) + "}"
	})
}

// literal is the bytes that a file's name or a Go string stands for.
func (r *scriptRun) literal(text string) string {
	if strings.HasPrefix(text, `"`) {
		value, err := strconv.Unquote(text)
		if err != nil {
			r.fatal("%s: %v", text, err)
		}
		return value
	}
	value, err := testMail(text)
	if err != nil {
		r.fatal("%v", err)
	}
	return string(value)
}
