package main_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"starling/metadata"
)

// importer runs starling import on a cluster.
type importer struct {
	*cluster
	state string
}

func newImporter(t *testing.T) *importer {
	t.Helper()
	return &importer{newCluster(t), t.TempDir()}
}

func (im *importer) invocation(args []string) invocation {
	return invocation{args: append([]string{"import"}, args...), env: append(slices.Clone(im.env), "XDG_STATE_HOME="+im.state)}
}

// good imports, and returns what is said at the end.
func (im *importer) good(args ...string) string {
	im.t.Helper()
	stdout, stderr, status := run(im.t, im.invocation(args))
	if status != 0 || stderr != "" {
		im.t.Fatalf("import %v: status %d\n%s%s", args, status, stdout, stderr)
	}
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	return lines[len(lines)-1]
}

// bad imports what cannot be imported, or not whole.
func (im *importer) bad(status int, args ...string) string {
	im.t.Helper()
	stdout, stderr, got := run(im.t, im.invocation(args))
	if got != status {
		im.t.Errorf("import %v: status %d, want %d\n%s%s", args, got, status, stdout, stderr)
	}
	return stdout + stderr
}

// stored is a message as a client finds it.
type stored struct {
	flags string
	date  time.Time
	text  string
}

// mailbox is what is in a mailbox, in its order.
func (im *importer) mailbox(name string) []stored {
	im.t.Helper()
	client := login(im.t, im.nodes[0].imap, testUser, testPassword, nil)
	defer func() { _ = client.Close() }() // nothing follows
	// The client writes names in UTF-8 because of IMAP4rev2, whether it is enabled or not.
	if _, err := client.Enable(imap.CapUTF8Accept).Wait(); err != nil {
		im.t.Fatal(err)
	}
	data, err := client.Select(name, nil).Wait()
	if err != nil {
		im.t.Fatalf("select %s: %v", name, err)
	}
	if data.NumMessages == 0 {
		return nil
	}
	body := &imap.FetchItemBodySection{Peek: true}
	all, err := client.Fetch(imap.SeqSet{imap.SeqRange{Start: 1}}, &imap.FetchOptions{
		Flags: true, InternalDate: true, BodySection: []*imap.FetchItemBodySection{body},
	}).Collect()
	if err != nil {
		im.t.Fatal(err)
	}
	var found []stored
	for _, m := range all {
		found = append(found, stored{flagText(m.Flags), m.InternalDate.UTC(), string(m.FindBodySection(body))})
	}
	return found
}

func (im *importer) same(mailbox string, want ...stored) {
	im.t.Helper()
	if got := im.mailbox(mailbox); !slices.Equal(got, want) {
		im.t.Errorf("in %s there are\n%+v, want\n%+v", mailbox, got, want)
	}
}

// write writes a file, with the folders above it, of a time.
func write(t *testing.T, at time.Time, text string, path ...string) string {
	t.Helper()
	name := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(name, at, at); err != nil {
		t.Fatal(err)
	}
	return name
}

var (
	importOne = time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	importTwo = time.Date(2021, 6, 7, 8, 9, 10, 0, time.UTC)
)

func TestImportMbox(t *testing.T) {
	t.Parallel()
	im := newImporter(t)
	box := write(t, importTwo, "From a@b Thu Jan  2 03:04:05 2020\nSubject: one\nStatus: RO\nX-Status: F\n\n>From here\n\n"+
		"From - \n\nis no line before a message\n\n"+
		"From MAILER-DAEMON 10:00\nSubject: two\nDate: Mon, 7 Jun 2021 10:09:10 +0200\n\ntext\n", t.TempDir(), "old.mbox")
	want := []stored{
		{`\flagged \seen`, importOne, "Subject: one\r\nStatus: RO\r\nX-Status: F\r\n\r\nFrom here\r\n\r\nFrom - \r\n\r\nis no line before a message\r\n"},
		{"", importTwo, "Subject: two\r\nDate: Mon, 7 Jun 2021 10:09:10 +0200\r\n\r\ntext\r\n"},
	}
	if out := im.good(testUser, box, "--parallel", "1"); out != "imported: 2" {
		t.Errorf("it says %q", out)
	}
	im.same("INBOX", want...)
	if out := im.good(testUser, box); out != "imported: 0, there already: 2" {
		t.Errorf("the second time it says %q", out)
	}
	// Without its notes the server still knows.
	if out := im.good(testUser, box, "--state", filepath.Join(t.TempDir(), "other")); out != "imported: 0, there already: 2" {
		t.Errorf("without the state file it says %q", out)
	}
	im.same("INBOX", want...)
	if out := im.good(testUser, box, "--mailbox", "Old/Mail", "--format", "mbox", "--parallel", "1"); out != "imported: 2" {
		t.Errorf("into another mailbox it says %q", out)
	}
	im.same("Old/Mail", want...)
	im.same("INBOX", want...)
}

func TestImportMaildir(t *testing.T) {
	t.Parallel()
	im := newImporter(t)
	dir := t.TempDir()
	write(t, importOne, "Subject: read\n\nx\n", dir, "cur", "1.1.h,S=16:2,RSa")
	write(t, importTwo, "Subject: new\r\n\r\ny\nz\r\n", dir, "new", "2.1.h")
	write(t, importTwo, "0 work\n", dir, "dovecot-keywords")
	write(t, importTwo, "not yet here", dir, "tmp", "3.1.h")
	write(t, importTwo, "Subject: deep\n\nx\n", dir, ".Arbeit.Gr&APwA3w-e", "cur", "1.1.h:2,PT")
	write(t, importTwo, "", dir, ".Arbeit.Gr&APwA3w-e", "maildirfolder")
	write(t, importOne, "Subject: sent\n\nx\n", dir, ".Sent", "cur", "1.1.h:2,S")
	write(t, importOne, "Subject: plain\n\nx\n", dir, "Plain", "Sub", "cur", "1.1.h:2,D")
	if err := os.MkdirAll(filepath.Join(dir, ".Sent", "new"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out := im.good(testUser, dir, "--parallel", "1"); out != "imported: 5" {
		t.Errorf("it says %q", out)
	}
	im.same("INBOX", stored{`\answered \seen work`, importOne, "Subject: read\r\n\r\nx\r\n"}, stored{"", importTwo, "Subject: new\r\n\r\ny\nz\r\n"})
	im.same("Arbeit/Grüße", stored{`$forwarded \deleted`, importTwo, "Subject: deep\r\n\r\nx\r\n"})
	im.same("Sent", stored{`\seen`, importOne, "Subject: sent\r\n\r\nx\r\n"})
	im.same("Plain/Sub", stored{`\draft`, importOne, "Subject: plain\r\n\r\nx\r\n"})
	if err := os.Rename(filepath.Join(dir, "new", "2.1.h"), filepath.Join(dir, "cur", "2.1.h:2,S")); err != nil {
		t.Fatal(err)
	}
	write(t, importTwo, "Subject: another\n\nx\n", dir, "new", "4.1.h")
	if out := im.good(testUser, dir); out != "imported: 1, there already: 5" {
		t.Errorf("the second time it says %q", out)
	}
	if out := im.good(testUser, dir, "--mailbox", "Copy", "--format", "maildir"); out != "imported: 6" {
		t.Errorf("into another mailbox it says %q", out)
	}
	im.same("Copy/Sent", stored{`\seen`, importOne, "Subject: sent\r\n\r\nx\r\n"})
}

func TestImportFolder(t *testing.T) {
	t.Parallel()
	im := newImporter(t)
	dir := t.TempDir()
	write(t, importOne, "Subject: a\r\nDate: Mon, 7 Jun 2021 08:09:10 +0000\r\n\r\nx", dir, "a.eml")
	write(t, importOne, "Subject: b\n", dir, "b.EML")
	write(t, importOne, "not mail", dir, "notes.txt")
	write(t, importOne, "Subject: c\n", dir, "Sub", "c.eml")
	write(t, importOne, "From x 1:00\nSubject: d\n\nFrom x 1:00\n", dir, "Sub", "box.mbox")
	write(t, importOne, "", dir, "Sub", "empty.eml")
	empty := filepath.Join(dir, "Sub", "empty.eml")
	out := im.bad(1, testUser, dir, "--parallel", "1")
	if !strings.Contains(out, empty+": source: it is empty\n") || !strings.Contains(out, "message 2, at byte 36: source: it is empty\n") ||
		!strings.Contains(out, "\nimported: 4, failed: 2\n") || !strings.Contains(out, "starling: messages that could not be imported: 2") {
		t.Errorf("it says %q", out)
	}
	im.same("INBOX", stored{"", importTwo, "Subject: a\r\nDate: Mon, 7 Jun 2021 08:09:10 +0000\r\n\r\nx"}, stored{"", importOne, "Subject: b\r\n"})
	im.same("Sub", stored{"", importOne, "Subject: c\r\n"})
	im.same("Sub/box", stored{"", importOne, "Subject: d\r\n"})
}

func TestImportErrors(t *testing.T) {
	t.Parallel()
	im := newImporter(t)
	im.env = append(im.env, "STARLING_MAIL_MAX_MESSAGE=1048576")
	dir := t.TempDir()
	good := write(t, importOne, "Subject: good\n", dir, "good.eml")
	for _, test := range []struct {
		status int
		want   string
		args   []string
	}{
		{2, "no such file", []string{testUser, filepath.Join(dir, "none")}},
		{2, `--format: is "tar"`, []string{testUser, good, "--format", "tar"}},
		{2, "--parallel: is 0", []string{testUser, good, "--parallel", "0"}},
		{2, "--mailbox: ", []string{testUser, good, "--mailbox", "a//b"}},
		{2, "a Maildir is a folder", []string{testUser, good, "--format", "maildir"}},
		{2, "no mail found in", []string{testUser, t.TempDir()}},
		{1, "account nobody@example.org: ", []string{"nobody@example.org", good}},
		{1, "account ann+x@example.org: not found", []string{"ann+x@example.org", good}},
		{1, good + ": no mbox", []string{testUser, good, "--format", "mbox"}},
		{1, "this is no state file", []string{testUser, good, "--state", write(t, importOne, strings.Repeat("mail\n", 30), dir, "state")}},
		{1, "big.eml: message is too big\ngood", []string{testUser, write(t, importOne, strings.Repeat("x", 1<<20)+"y", dir, "a", "big.eml"), good}},
	} {
		out := im.bad(test.status, test.args...)
		want, last, _ := strings.Cut(test.want, "\n")
		if !strings.Contains(out, want) || last != "" && !strings.Contains(out, "imported: 1, failed: 1") {
			t.Errorf("%v says %q", test.args, out)
		}
	}
	im.same("INBOX", stored{"", importOne, "Subject: good\r\n"})

	// What concerns every message ends the import; it goes on where there is room again.
	for i := range 3 {
		write(t, importOne, fmt.Sprintf("Subject: %d\n", i), dir, "more", fmt.Sprintf("%d.eml", i))
	}
	limit := func(n int64) {
		t.Helper()
		if err := im.db.SetLimits(t.Context(), testUser, metadata.Quota{Messages: n}); err != nil {
			t.Fatal(err)
		}
	}
	limit(2)
	if out := im.bad(1, testUser, filepath.Join(dir, "more"), "--parallel", "1"); !strings.Contains(out, "run it again to go on: "+filepath.Join(dir, "more", "1.eml")+": over quota") {
		t.Errorf("over quota it says %q", out)
	}
	limit(0)
	if out := im.good(testUser, filepath.Join(dir, "more")); out != "imported: 2, there already: 1" {
		t.Errorf("with room again it says %q", out)
	}
}

// An import that is killed, and run again until it comes through, has brought
// every message once.
func TestImportKilled(t *testing.T) {
	t.Parallel()
	const count = 400
	im := newImporter(t)
	var box strings.Builder
	for i := range count {
		fmt.Fprintf(&box, "From x Thu Jan  2 03:04:05 2020\n%s\n", strings.ReplaceAll(numberedMail(i), "\r\n", "\n"))
	}
	path := write(t, importOne, box.String(), t.TempDir(), "many.mbox")
	watch := login(t, im.nodes[0].imap, testUser, testPassword, nil)
	for _, least := range []uint32{40, 120, 260} {
		p := start(t, im.invocation([]string{testUser, path}))
		for im.messages(watch) < least {
			select {
			case <-p.done:
				t.Fatalf("it ended by itself: %s", p.output.String())
			default:
			}
		}
		p.kill()
	}
	p := start(t, im.invocation([]string{testUser, path}))
	for im.messages(watch) < 300 {
	}
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	if status := p.wait(); status == 0 && im.messages(watch) != count {
		t.Errorf("it was interrupted, and ended well: %s", p.output.String())
	} else if out := p.output.String(); status == 1 && !strings.Contains(out, "run it again to go on") {
		t.Errorf("interrupted, it says %q", out)
	}
	if out := im.good(testUser, path); !strings.Contains(out, "there already: ") {
		t.Errorf("in the end it says %q", out)
	}
	times := make(map[string]int)
	for _, m := range im.mailbox("INBOX") {
		times[m.text]++
	}
	for i := range count {
		if n := times[numberedMail(i)]; n != 1 {
			t.Errorf("message %d is there %d times", i, n)
		}
	}
	if len(times) != count {
		t.Errorf("%d different messages", len(times))
	}
}

// An import waits for a PostgreSQL that is away for a moment, and brings every message once.
func TestImportWaits(t *testing.T) {
	t.Parallel()
	const count = 300
	im := newImporter(t)
	watch := login(t, im.nodes[0].imap, testUser, testPassword, nil)
	proxy, dsn := im.hole()
	im.env = append(im.env, dsn)
	var box strings.Builder
	for i := range count {
		fmt.Fprintf(&box, "From x Thu Jan  2 03:04:05 2020\n%s\n", strings.ReplaceAll(numberedMail(i), "\r\n", "\n"))
	}
	p := start(t, im.invocation([]string{testUser, write(t, importOne, box.String(), t.TempDir(), "many.mbox")}))
	waitFor := func(what string, there func() bool) {
		t.Helper()
		for !there() {
			select {
			case <-p.done:
				t.Fatalf("it ended before %s: %s", what, p.output.String())
			default:
			}
		}
	}
	waitFor("it was half done", func() bool { return im.messages(watch) >= 20 })
	proxy.Cut(true)
	waitFor("it was refused", func() bool { return proxy.Refused() >= 3 })
	proxy.Heal()
	if status := p.wait(); status != 0 {
		t.Errorf("status %d: %s", status, p.output.String())
	}
	if n := im.messages(watch); n != count {
		t.Errorf("%d messages, want %d", n, count)
	}
}

// messages is how many messages are in INBOX.
func (im *importer) messages(client *imapclient.Client) uint32 {
	im.t.Helper()
	data, err := client.Status("INBOX", &imap.StatusOptions{NumMessages: true}).Wait()
	if err != nil {
		im.t.Fatal(err)
	}
	return *data.NumMessages
}

// On a terminal a bar says how far it is.
func TestImportTerminal(t *testing.T) {
	t.Parallel()
	needClient(t, "python3")
	im := newImporter(t)
	path := write(t, importOne, "Subject: seen on a screen\n", t.TempDir(), "a.eml")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	env := append(slices.Clone(im.env), asProgram+"=1", "XDG_STATE_HOME="+im.state, "TERM=xterm")
	const withPipe = "import os\nr, w = os.pipe()\nos.dup2(r, 3)\nos.set_inheritable(3, True)\n" // what the program takes for its parent
	out := runTool(t, "", env, "python3", "-c", withPipe+strings.ReplaceAll(underTerminal, "; ", "\n"),
		"sh", "-c", `stty cols 100 rows 30; exec "$@"`, "sh", program, "import", testUser, path)
	if !strings.Contains(out, "100 %") || !strings.Contains(out, "imported: 1") || !strings.Contains(out, "\x1b[") {
		t.Errorf("it says %q", out)
	}
}
