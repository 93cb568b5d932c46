package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"
)

var mbsyncConfig = template.Must(template.New("mbsyncrc").Parse(`
IMAPAccount account
Host localhost
Port {{.Port}}
User {{.User}}
Pass "{{.Password}}"
SSLType IMAPS
CertificateFile {{.Cert}}

IMAPStore far
Account account

MaildirStore near
Path {{.Dir}}/
Inbox {{.Dir}}/INBOX
SubFolders Verbatim

Channel all
{{.Far}} :far:
{{.Near}} :near:
Patterns *
Create Both
Expunge Both
Remove Both
SyncState *
CopyArrivalDate yes
`))

// replica is a Maildir that mbsync keeps in step with a node.
type replica struct {
	c      *cluster
	dir    string
	config string
}

func newReplica(c *cluster, node int) *replica {
	c.t.Helper()
	dir := c.t.TempDir()
	r := &replica{c: c, dir: filepath.Join(dir, "mail"), config: filepath.Join(dir, "mbsyncrc")}
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	far, near := "Far", "Near"
	if out := runTool(c.t, "", nil, "mbsync", "--version"); strings.Contains(out, "isync 1.3") {
		far, near = "Master", "Slave"
	}
	var text strings.Builder
	err := mbsyncConfig.Execute(&text, map[string]string{
		"Port": c.nodes[node].port(c.nodes[node].imaps), "User": testUser, "Password": testPassword,
		"Cert": c.cert, "Dir": r.dir, "Far": far, "Near": near,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(r.config, []byte(text.String()), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return r
}

func (r *replica) sync() {
	r.c.t.Helper()
	runTool(r.c.t, "", nil, "mbsync", "--config", r.config, "--all")
}

// message is a file of a Maildir.
type message struct{ path, flags, text string }

// messages are those of a mailbox, by what the line of their Subject says. The
// header field that mbsync adds, to find again what it stored, is left out.
func (r *replica) messages(mailbox string) map[string]message {
	r.c.t.Helper()
	found := make(map[string]message)
	for _, sub := range []string{"new", "cur"} {
		dir := filepath.Join(r.dir, mailbox, sub)
		entries, err := os.ReadDir(dir)
		if err != nil {
			r.c.t.Fatal(err)
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			content, err := os.ReadFile(path)
			if err != nil {
				r.c.t.Fatal(err)
			}
			var subject string
			lines := strings.SplitAfter(string(content), "\n")
			lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "X-TUID: ") })
			for _, l := range lines {
				if s, ok := strings.CutPrefix(l, "Subject: "); ok {
					subject = strings.TrimSpace(s)
				}
			}
			_, flags, _ := strings.Cut(e.Name(), ":2,")
			if _, twice := found[subject]; twice {
				r.c.t.Errorf("%q is twice in %s", subject, mailbox)
			}
			found[subject] = message{path, flags, strings.Join(lines, "")}
		}
	}
	return found
}

// flag gives a message's file other flags.
func (r *replica) flag(mailbox, subject, flags string) {
	r.c.t.Helper()
	m, ok := r.messages(mailbox)[subject]
	if !ok {
		r.c.t.Fatalf("no %q in %s", subject, mailbox)
	}
	base, _, _ := strings.Cut(filepath.Base(m.path), ":2,")
	if err := os.Rename(m.path, filepath.Join(r.dir, mailbox, "cur", base+":2,"+flags)); err != nil {
		r.c.t.Fatal(err)
	}
}

// Two computers keep their Maildirs in step, each with another node: mail,
// flags, expunged mail, and mailboxes.
func TestMbsync(t *testing.T) {
	t.Parallel()
	needClient(t, "mbsync")
	c := newCluster(t)
	home, work := newReplica(c, 0), newReplica(c, 1)
	c.deliver(0, testUser, numberedMail(1))
	c.deliver(1, testUser, numberedMail(2))
	c.deliver(0, testUser, numberedMail(3))
	home.sync()
	work.sync()
	if a, b := home.messages("INBOX"), work.messages("INBOX"); len(a) != 3 || len(b) != 3 || a["Message 2"].text != b["Message 2"].text {
		t.Fatalf("pulled %d and %d messages", len(a), len(b))
	}

	home.flag("INBOX", "Message 1", "FS")
	home.flag("INBOX", "Message 2", "T")
	work.flag("INBOX", "Message 3", "RS")
	home.sync()
	work.sync()
	home.sync()
	for _, r := range []*replica{home, work} {
		got := r.messages("INBOX")
		if len(got) != 2 || got["Message 1"].flags != "FS" || got["Message 3"].flags != "RS" {
			t.Errorf("after flags and an expunge: %+v", got)
		}
	}

	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(home.dir, "Old Life", sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(home.dir, "Old Life", "cur", "1.2.here:2,F")
	if err := os.WriteFile(file, []byte("Subject: of another life\n\nText.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	home.sync()
	work.sync()
	if got := work.messages("Old Life"); got["of another life"].flags != "F" {
		t.Errorf("in the new mailbox: %+v", got)
	}
}

// A thousand messages go up to one node and come down from the other as they were.
func TestMbsyncThousand(t *testing.T) {
	t.Parallel()
	needClient(t, "mbsync")
	const count = 1000
	c := newCluster(t)
	home, work := newReplica(c, 0), newReplica(c, 1)
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(home.dir, "INBOX", sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	flags := []string{"", "S", "FS", "R", "FRS"}
	for i := range count {
		name := filepath.Join(home.dir, "INBOX", "cur", fmt.Sprintf("%d.%d.here:2,%s", 1700000000+i, i, flags[i%len(flags)]))
		if err := os.WriteFile(name, []byte(strings.ReplaceAll(numberedMail(i), "\r\n", "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	home.sync()
	work.sync()
	got := work.messages("INBOX")
	if len(got) != count {
		t.Errorf("%d messages came down", len(got))
	}
	for i := range count {
		m := got[fmt.Sprintf("Message %d", i)]
		if want := strings.ReplaceAll(numberedMail(i), "\r\n", "\n"); m.text != want {
			t.Fatalf("message %d came down as %q, want %q", i, m.text, want)
		}
		if m.flags != flags[i%len(flags)] {
			t.Errorf("message %d has the flags %q", i, m.flags)
		}
	}
	work.sync() // nothing left to do
	home.sync()
	if n := len(home.messages("INBOX")); n != count {
		t.Errorf("%d messages at home in the end", n)
	}
}
