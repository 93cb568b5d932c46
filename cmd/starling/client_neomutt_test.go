package main_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/emersion/go-imap/v2"
)

var neomuttConfig = template.Must(template.New("neomuttrc").Parse(`
set imap_user="{{.User}}"
set imap_pass="{{.Password}}"
set folder="imaps://localhost:{{.Port}}/"
set spoolfile="+INBOX"
set certificate_file="{{.Cert}}"
set ssl_verify_host=yes
set header_cache="" sort=mailbox-order
set confirmappend=no delete=yes quit=yes move=no mark_old=no wait_key=no beep=no
`))

// underTerminal runs a program under a terminal of its own: Python's pty makes one everywhere.
const underTerminal = `import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))`

// neomutt runs on a node with keys pressed for it.
func (c *cluster) neomutt(node int, keys string) {
	c.t.Helper()
	rc := filepath.Join(c.t.TempDir(), "neomuttrc")
	var text strings.Builder
	err := neomuttConfig.Execute(&text, map[string]string{
		"User": testUser, "Password": testPassword, "Port": c.nodes[node].port(c.nodes[node].imaps), "Cert": c.cert,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(rc, []byte(text.String()), 0o600); err != nil {
		c.t.Fatal(err)
	}
	env := []string{"TERM=xterm", "HOME=" + filepath.Dir(rc), "LC_ALL=C"}
	runTool(c.t, "", env, "python3", "-c", underTerminal, "neomutt", "-n", "-F", rc, "-e", `push "`+keys+`"`)
}

// neomutt sets flags, copies, saves, deletes, and limits by searching on the
// server; each time on another node than before.
func TestNeomutt(t *testing.T) {
	t.Parallel()
	needClient(t, "neomutt")
	needClient(t, "python3")
	c := newCluster(t)
	for i := range 5 {
		c.deliver(i%2, testUser, numberedMail(i))
	}
	c.neomutt(0, "<tag-pattern>~s 'Message [12]'<enter><tag-prefix><set-flag>!<tag-prefix><copy-message>=Archive<enter>"+
		"<untag-pattern>.<enter><delete-pattern>~s 'Message 3'<enter><sync-mailbox><quit>")
	c.neomutt(1, "<limit>=b 'message 4'<enter><save-message>=Trash<enter><sync-mailbox><limit>all<enter>"+
		"1<enter><display-message><exit><quit>")

	client := login(t, c.nodes[1].imap, testUser, testPassword, nil)
	flags := func(mailbox string) map[string][]imap.Flag {
		t.Helper()
		found := make(map[string][]imap.Flag)
		data, err := client.Select(mailbox, nil).Wait()
		if err != nil {
			t.Fatal(err)
		}
		if data.NumMessages == 0 {
			return found
		}
		all, err := client.Fetch(imap.SeqSet{imap.SeqRange{Start: 1}}, &imap.FetchOptions{Flags: true, Envelope: true}).Collect()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			found[m.Envelope.Subject] = m.Flags
		}
		return found
	}
	inbox := flags("INBOX")
	if len(inbox) != 3 || !slices.Contains(inbox["Message 1"], imap.FlagFlagged) || !slices.Contains(inbox["Message 2"], imap.FlagFlagged) || !slices.Contains(inbox["Message 0"], imap.FlagSeen) {
		t.Errorf("INBOX is %v", inbox)
	}
	if archive := flags("Archive"); len(archive) != 2 || !slices.Contains(archive["Message 2"], imap.FlagFlagged) {
		t.Errorf("Archive is %v", archive)
	}
	if trash := flags("Trash"); len(trash) != 1 || trash["Message 4"] == nil {
		t.Errorf("Trash is %v", trash)
	}
}
