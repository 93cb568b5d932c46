package imap

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest/observer"

	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// Protocol scripts are the files of testdata/script. Each is run twice: with all
// connections on one node, and with its connections spread over two. A script
// begins with a comment that says what it shows, and goes on with lines of these
// forms, in which "#" at the beginning makes a comment:
//
//	server max-message=N tls forgetful
//	                                 the nodes take no larger message; no password without TLS;
//	                                 expunged mail can be collected at once
//	account quota-bytes=N quota-messages=N
//	mailbox NAME [[N*]FILE …] [flags=A,B] [date=RFC3339] [use=\Sent]
//	                                 makes the mailbox if it is not there, and appends
//	                                 files of testdata/mail (CRLF is put in for LF)
//	x> COMMAND                       sends a command on connection x, which is logged in at its
//	                                 first use, and waits for the tagged reply, or for a
//	                                 continuation request; then the next goes on with it
//	x>> COMMAND                      sends without waiting
//	x~ "…" N*"…"                     sends these bytes (Go strings, repeated N times)
//	x< RESPONSE                      is what comes next on x; a tagged one is written without
//	                                 its tag. While x waits (IDLE), the script waits for it.
//	x! connect | connect tls | starttls | lmtp | close | eof | collect
//	                                 connects without a login; begins TLS; connects to LMTP,
//	                                 of which all lines are told; closes; waits for the end;
//	                                 has the first node collect what was expunged
//	assert $a < $b                   compares numbers or strings: < <= > >= == !=
//
// All that a command is answered with has to be there, but a tagged OK at the
// end need not be written, and if there is no "<" at all, only an OK is asked for. "…" stands
// for any text, and alone on a line for any responses. "$name", of small letters, is a
// word that must be the same at each place; $tag is the command's tag, $user the
// account, which is $local@$domain; $user64, $password64 and $sasl are for SASL. Literals are written {file.eml}, {"Go string"} or
//
//	{|
//	 |line
//	 }
//
// with "+" before the brace if they are not to be synchronized, and "~" before it for literal8.
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/script/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	clusters := make(map[clusterOptions]*cluster)
	t.Cleanup(func() {
		var logged []observer.LoggedEntry
		for _, c := range clusters {
			logged = append(logged, c.logs.FilterMessage("protocol").All()...)
		}
		checkProtocol(t, logged)
	})
	for _, file := range files {
		s := parseScript(t, file)
		if clusters[s.options] == nil {
			clusters[s.options] = newCluster(t, 2, s.options)
		}
		c := clusters[s.options]
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for nodes, name := range []string{1: "one", 2: "two"} {
				if nodes > 0 {
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						runScript(t, s, c, nodes)
					})
				}
			}
		})
	}
}

// script is a file of testdata/script.
type script struct {
	name     string
	options  clusterOptions
	limits   metadata.Quota
	fixtures []fixture
	steps    []step
}

// fixture is a mailbox that is there when a script begins, or more messages in it.
type fixture struct {
	mailbox  string
	messages [][]byte
	flags    mailstore.FlagSet
	date     time.Time
	use      []string
}

// step is a line of a script; op is ">", ">>", "~", "<", "!" or "assert".
type step struct {
	line int
	conn string
	op   string
	text string
}

func parseScript(t testing.TB, file string) *script {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{name: strings.TrimSuffix(filepath.Base(file), ".txt")}
	lines := strings.Split(string(text), "\n")
	if !strings.HasPrefix(lines[0], "# ") {
		t.Errorf("%s: does not begin with a comment that says what it shows", file)
	}
	for i := 0; i < len(lines); i++ {
		line, at := strings.TrimRight(lines[i], " \t"), i+1
		if line == "" || line[0] == '#' {
			continue
		}
		for strings.HasSuffix(line, "{|") {
			var literal strings.Builder
			for i++; i < len(lines) && strings.HasPrefix(strings.TrimLeft(lines[i], " "), "|"); i++ {
				literal.WriteString(strings.TrimLeft(lines[i], " ")[1:] + "\r\n")
			}
			if i == len(lines) {
				t.Fatalf("%s:%d: literal without end", file, at)
			}
			line = line[:len(line)-1] + strconv.Quote(literal.String()) + strings.TrimLeft(lines[i], " ")
		}
		if err := s.add(at, line); err != nil {
			t.Fatalf("%s:%d: %v", file, at, err)
		}
	}
	return s
}

// add adds a line to the script.
func (s *script) add(at int, line string) error {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "server":
		return s.settings(rest, map[string]func(string) error{
			"max-message": func(v string) (err error) { s.options.maxMessage, err = strconv.ParseInt(v, 10, 64); return },
			"tls":         func(string) error { s.options.onlyTLS = true; return nil },
			"forgetful":   func(string) error { s.options.forgetful = true; return nil },
		})
	case "account":
		return s.settings(rest, map[string]func(string) error{
			"quota-bytes":    func(v string) (err error) { s.limits.Bytes, err = strconv.ParseInt(v, 10, 64); return },
			"quota-messages": func(v string) (err error) { s.limits.Messages, err = strconv.ParseInt(v, 10, 64); return },
		})
	case "mailbox":
		return s.mailbox(rest)
	case "assert":
		s.steps = append(s.steps, step{line: at, op: word, text: rest})
		return nil
	}
	for _, op := range []string{">>", ">", "<", "~", "!"} {
		if conn, found := strings.CutSuffix(word, op); found && conn != "" {
			s.steps = append(s.steps, step{line: at, conn: conn, op: op, text: rest})
			return nil
		}
	}
	return fmt.Errorf("what is %q?", line)
}

func (s *script) settings(text string, known map[string]func(string) error) error {
	for _, setting := range strings.Fields(text) {
		name, value, _ := strings.Cut(setting, "=")
		if known[name] == nil {
			return fmt.Errorf("no setting %q", name)
		}
		if err := known[name](value); err != nil {
			return err
		}
	}
	return nil
}

func (s *script) mailbox(text string) error {
	var f fixture
	if quoted, err := strconv.QuotedPrefix(text); err == nil {
		f.mailbox, _ = strconv.Unquote(quoted)
		text = text[len(quoted):]
	} else {
		f.mailbox, text, _ = strings.Cut(text, " ")
	}
	for _, word := range strings.Fields(text) {
		name, value, found := strings.Cut(word, "=")
		var err error
		switch {
		case !found:
			err = f.file(word)
		case name == "flags":
			f.flags, err = flagSet(strings.Split(value, ","))
		case name == "date":
			f.date, err = time.Parse(time.RFC3339, value)
		case name == "use":
			f.use = strings.Split(value, ",")
		default:
			err = fmt.Errorf("no setting %q", name)
		}
		if err != nil {
			return err
		}
	}
	s.fixtures = append(s.fixtures, f)
	return nil
}

func (f *fixture) file(word string) error {
	n := 1
	if times, name, found := strings.Cut(word, "*"); found {
		var err error
		if n, err = strconv.Atoi(times); err != nil {
			return err
		}
		word = name
	}
	message, err := testMail(word)
	for range n {
		f.messages = append(f.messages, message)
	}
	return err
}

// testMail is a file of testdata/mail as a message.
func testMail(name string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join("testdata/mail", name))
	return bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")), err
}

// prepare makes the account with its mailboxes, by way of the first node.
func (s *script) prepare(t testing.TB, c *cluster, name string) metadata.AccountID {
	t.Helper()
	ctx := t.Context()
	row := c.account(t, name, s.limits)
	account := c.nodes[0].store.Account(row, func() {})
	defer account.Close()
	for _, f := range s.fixtures {
		if _, err := account.Create(ctx, f.mailbox, f.use); err != nil && !isExists(err) {
			t.Fatal(err)
		}
		for _, message := range f.messages {
			upload, err := account.Upload(ctx, mailstore.Incoming{Mailbox: f.mailbox, Flags: f.flags, Date: f.date}, int64(len(message)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err = upload.Write(message); err == nil {
				_, err = upload.Append(ctx, nil)
			}
			upload.Discard()
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return row.ID
}

func isExists(err error) bool {
	s := (&session{}).statusOf(err)
	return s.Code == imapwire.CodeAlreadyExists
}
