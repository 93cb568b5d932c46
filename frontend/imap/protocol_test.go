package imap

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest/observer"

	"starling/metadata"
)

// Bytes of literals are not recorded, so that they are not in these lines either.
func TestRedactCommand(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"a1 LOGIN ann@example.org secret":        "a1 LOGIN …22",
		"a1 login {3}\r\n {6}\r\n":               "a1 LOGIN …9",
		"a1 AUTHENTICATE PLAIN AGFubgBzZWNyZXQ=": "a1 AUTHENTICATE …22",
		"AGFubgBzZWNyZXQ=":                       "…16",
		"hunter2 12345":                          "…13",
		"a1 12345 678":                           "…12",
		"a1 noop":                                "a1 NOOP",
		"done":                                   "DONE",
		"a1 SELECT INBOX":                        "a1 SELECT …5",
		"a1 SELECT 2024 (QRESYNC (67890 20050715194045000 1:5))": "a1 SELECT …4 (QRESYNC (67890 20050715194045000 1:5))",
		"a1 CREATE seen (USE (\\Sent))":                          "a1 CREATE …4 (USE (\\Sent))",
		"a1 RENAME \"Old \\\"name\" 2024":                        "a1 RENAME \"…10\" …4",
		"a1 LIST \"\" \"*\" RETURN (STATUS (MESSAGES))":          "a1 LIST \"…0\" \"…1\" RETURN (STATUS (MESSAGES))",
		"a1 STATUS Work (MESSAGES UIDNEXT)":                      "a1 STATUS …4 (MESSAGES UIDNEXT)",
		"a1 UID FETCH 1:*,7 (FLAGS BODY.PEEK[1.2.HEADER.FIELDS (SUBJECT X-Secret)]<0.100>) (CHANGEDSINCE 5 VANISHED)": "a1 UID FETCH 1:*,7 (FLAGS BODY.PEEK[1.2.HEADER.FIELDS (SUBJECT …8)]<0.100>) (CHANGEDSINCE 5 VANISHED)",
		"a1 STORE 1:3 (UNCHANGEDSINCE 12) +FLAGS.SILENT (\\Seen $Junk Project 77)":                                    "a1 STORE 1:3 (UNCHANGEDSINCE 12) +FLAGS.SILENT (\\Seen $Junk …7 …2)",
		"a1 COPY 1:3 2024": "a1 COPY 1:3 …4",
		"a1 APPEND Drafts (\\Draft) \"01-Jan-2024 10:00:00 +0000\" {310}\r\n": "a1 APPEND …6 (\\Draft) \"…26\" {310}",
		"a1 SEARCH UNSEEN LARGER 100 SUBJECT 12345 TEXT seen UID 1:5":         "a1 SEARCH UNSEEN LARGER 100 SUBJECT …5 TEXT …4 UID 1:5",
		"a1 SEARCH HEADER seen text FROM {5+}\r\n NOT (TO seen)":              "a1 SEARCH HEADER …4 …4 FROM {5+} NOT (TO …4)",
		"a1 SEARCH SUBJECT \"unfinished":                                      "a1 SEARCH SUBJECT \"…10\"",
		"a1 ID (\"name\" \"Ann's phone\")":                                    "a1 ID …22",
	} {
		if got, _ := redactCommand([]byte(line + "\r\n")); got != want {
			t.Errorf("%q\n got  %s\n want %s", line, got, want)
		}
	}
}

func TestRedactResponse(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"* 5 EXISTS": "* 5 EXISTS",
		"* OK [UIDVALIDITY 17] UIDs of Work valid": "* OK [UIDVALIDITY 17] …18",
		"a1 NO [NONEXISTENT] no mailbox \"Work\"":  "a1 NO [NONEXISTENT] …17",
		"secret BAD There is no command secret":    "…6 BAD …26",
		"+ Ready for Ann":                          "+ …13",
		"* LIST (\\HasNoChildren) \"/\" 2024":      "* LIST (\\HasNoChildren) \"…1\" …4",
		"* STATUS Seen (MESSAGES 3)":               "* STATUS …4 (MESSAGES 3)",
		"* 1 FETCH (FLAGS (\\Seen Project) RFC822.SIZE 44 ENVELOPE (\"Mon, 7 Feb\" \"Raise\" NIL {3}\r\n) EMAILID (M12ab))": "* 1 FETCH (FLAGS (\\Seen …7) RFC822.SIZE 44 ENVELOPE (\"…10\" \"…5\" NIL {3}) EMAILID (…5))",
		"* SEARCH 1 2 3 (MODSEQ 5)":                              "* SEARCH 1 2 3 (MODSEQ 5)",
		"* ESEARCH (TAG \"a1\") UID COUNT 3 ALL 1:3":             "* ESEARCH (TAG \"…2\") UID COUNT 3 ALL 1:3",
		"* VANISHED (EARLIER) 1:3,7":                             "* VANISHED (EARLIER) 1:3,7",
		"* CAPABILITY IMAP4rev1 AUTH=PLAIN APPENDLIMIT=1000":     "* CAPABILITY IMAP4rev1 AUTH=PLAIN APPENDLIMIT=1000",
		"a1 OK [COPYUID 17 1:3 7:9] COPY completed":              "a1 OK [COPYUID 17 1:3 7:9] …14",
		"* FLAGS (\\Seen Project $Junk)":                         "* FLAGS (\\Seen …7 $Junk)",
		"what is this":                                           "…4 …7",
		"* OK [PERMANENTFLAGS (\\Seen Project \\*)] Flags of it": "* OK [PERMANENTFLAGS (\\Seen …7 \\*)] …11",
	} {
		if got := redactResponse([]byte(line+"\r\n"), "a1"); got != want {
			t.Errorf("%q\n got  %s\n want %s", line, got, want)
		}
	}
}

// checkProtocol asserts that the log of the scripts has the protocol in it, and no word
// of what accounts wrote, were sent, or called things.
func checkProtocol(t *testing.T, lines []observer.LoggedEntry) {
	t.Helper()
	if len(lines) == 0 {
		t.Error("nothing of the protocol was logged")
	}
	private := privateWords(t)
	words := regexp.MustCompile(`[\pL\pN]{4,}`)
	for _, entry := range lines {
		line, ok := entry.ContextMap()["line"].(string)
		if !ok || entry.ContextMap()["account"] == "" {
			t.Fatalf("logged %v", entry.ContextMap())
		}
		for _, word := range words.FindAllString(strings.ToLower(line), -1) {
			if private[word] {
				t.Errorf("%q is in the log: %s", word, line)
			}
		}
	}
}

// privateWords are the words of the mails and of what scripts say that are none of the protocol's.
func privateWords(t *testing.T) map[string]bool {
	t.Helper()
	private := map[string]bool{testPassword: true}
	letters := regexp.MustCompile(`\pL{4,}`)
	add := func(text string) {
		for _, word := range letters.FindAllString(strings.ToLower(text), -1) {
			private[word] = true
		}
	}
	mails, err := filepath.Glob("testdata/mail/*.eml")
	if err != nil || len(mails) == 0 {
		t.Fatalf("no mails: %v", err)
	}
	for _, file := range mails {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		add(string(text))
	}
	scripts, err := filepath.Glob("testdata/script/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	quotes := regexp.MustCompile(`"[^"]*"`)
	for _, file := range scripts {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			switch {
			case strings.HasPrefix(line, "mailbox "):
				add(strings.Fields(line)[1])
			case strings.HasPrefix(strings.TrimLeft(line, " "), "|"):
				add(line)
			default:
				for _, quoted := range quotes.FindAllString(line, -1) {
					add(quoted)
				}
			}
		}
	}
	for word := range harmless {
		for _, part := range letters.FindAllString(strings.ToLower(word), -1) {
			delete(private, part)
		}
	}
	for name := range commands {
		delete(private, strings.ToLower(name))
	}
	if len(private) < 100 {
		t.Fatalf("only %d words are private", len(private))
	}
	return private
}

// What was set for an account reaches its sessions on every node, from the next command
// on, and ends with the time that was set.
func TestProtocolLog(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, clusterOptions{})
	account := c.account(t, "traced@example.org", metadata.Quota{})
	first, second := c.nodes[0].dial(t).login(account.Name), c.nodes[1].dial(t).login(account.Name)
	logged := func() []string {
		var lines []string
		for _, entry := range c.logs.FilterMessage("protocol").All() {
			lines = append(lines, entry.ContextMap()["from"].(string)+" "+entry.ContextMap()["line"].(string)) //nolint:forcetypeassert // as they are logged
		}
		return lines
	}
	set := func(until time.Time) {
		t.Helper()
		if err := c.nodes[0].store.SetTrace(context.WithoutCancel(t.Context()), account.Name, until); err != nil {
			t.Fatal(err)
		}
	}
	first.send("a NOOP")
	first.until("a OK ")
	if lines := logged(); len(lines) > 0 {
		t.Fatalf("logged before it was asked for: %q", lines)
	}
	set(time.Now().Add(time.Hour))
	for _, client := range []*client{first, second} {
		for ends := time.Now().Add(10 * time.Second); ; {
			client.send("b STATUS Inbox (MESSAGES)")
			client.until("b OK ")
			if lines := logged(); slices.Contains(lines, "client b STATUS …5 (MESSAGES)") && slices.Contains(lines, "server * STATUS …5 (MESSAGES 0)") {
				break
			}
			if time.Now().After(ends) { // the sweep, which asks too, comes later
				t.Fatalf("not logged: %q", logged())
			}
		}
		c.logs.TakeAll()
	}
	set(time.Time{})
	for ends := time.Now().Add(10 * time.Second); ; {
		c.logs.TakeAll()
		second.send("c NOOP")
		second.until("c OK ")
		if len(logged()) == 0 {
			break
		}
		if time.Now().After(ends) {
			t.Fatal("still logged")
		}
	}
}
