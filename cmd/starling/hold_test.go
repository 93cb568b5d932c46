package main_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"starling/events/nats/natsserver"
	"starling/metadata/metadatatest"
)

// mailed is a database and a store of objects, with two accounts that have three messages
// each, one of them in a mailbox that was deleted 20 days ago.
type mailed struct {
	*shell
	env []string
}

func withDisk(t *testing.T) []string { return []string{"STARLING_BLOBS_DISK=" + t.TempDir()} }

func newMailed(t *testing.T, store []string) *mailed {
	t.Helper()
	m := &mailed{shell: newShell(t)}
	broker, err := natsserver.Start(natsserver.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Shutdown)
	m.env = append([]string{
		"STARLING_POSTGRES_DSN=" + m.dsn, "STARLING_NATS_URLS=" + broker.URL(),
		"STARLING_IMAP_PLAINTEXT_LOGIN=true", // no certificate
	}, store...)
	m.good("", "tenant", "add", "acme")
	m.good("", "domain", "add", "acme.example", "--tenant", "acme")
	m.good("", "domain", "add", "acme.test", "--tenant", "acme")
	dir := t.TempDir()
	for _, name := range []string{"ann@acme.example", "bea@acme.test"} {
		m.good("secret\n", "account", "add", name)
		for i, mailbox := range []string{"INBOX", "Old", "Archive"} {
			file := write(t, importOne, numberedMail(i), dir, name+mailbox+".eml")
			m.does("", "import", name, file, "--mailbox", mailbox, "--state", filepath.Join(dir, name))
		}
	}
	metadatatest.Exec(t, m.dsn, `update mailbox set dropped = true, dropped_at = now() - interval '20 days', modseq = modseq + 1, stamp = 1 where name = 'Old'`)
	return m
}

// does runs a command with the store of objects, which has to succeed and say something.
func (m *mailed) does(want string, args ...string) string {
	m.t.Helper()
	stdout, stderr, status := run(m.t, invocation{args: args, env: m.env})
	if status != 0 || !strings.Contains(stdout, want) {
		m.t.Fatalf("%v: status %d, want to read %q\n%s%s", args, status, want, stdout, stderr)
	}
	return stdout
}

// later moves what waits for a time back by days.
func (m *mailed) later() {
	m.t.Helper()
	metadatatest.Exec(m.t, m.dsn, `
update account set state_since = state_since - interval '30 days', emptied = emptied - interval '30 days';
update doomed set at = at - interval '30 days'`)
}

var idLine = regexp.MustCompile(`(?m)^id\t([0-9a-f]{16})$`)

// A tenant that is deleted ends in an empty prefix for each of its accounts, but not
// while one of them is on hold; all the way it is said what is left.
func TestDeleteTenant(t *testing.T) {
	t.Parallel()
	for name, store := range map[string]func(*testing.T) []string{"disk": withDisk, "s3": withS3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMailed(t, store(t))
			const ann, bea = "ann@acme.example", "bea@acme.test"
			ids := map[string]string{}
			for _, name := range []string{ann, bea} {
				ids[name] = idLine.FindStringSubmatch(m.does("rows\t3 messages, 7 mailboxes", "account", "show", name))[1]
			}
			m.does("objects\t4,", "account", "show", ids[ann]) // with the list of mailboxes
			m.bad(2, `required flag(s) "reason"`, "", "account", "hold", bea)
			m.bad(2, "is empty", "", "account", "hold", bea, "--reason", " ")
			m.bad(1, "not found", "", "account", "hold", "nobody@acme.test", "--reason", "x")
			m.says("bea@acme.test is on hold: nothing of it is collected until starling account release\n", "", "account", "hold", bea, "--reason", "Case 4711")
			m.does("hold\tCase 4711, since 2", "account", "show", bea)
			m.says("bea@acme.test\tactive, on hold\t"+strings.SplitN(m.good("", "account", "list", "--domain", "acme.test"), "\t", 3)[2],
				"", "account", "list", "--domain", "acme.test")

			m.bad(1, "", "", "tenant", "delete", "acme") // it has domains
			m.bad(2, "--yes", "", "tenant", "delete", "acme", "--with-accounts")
			out := m.good("", "tenant", "delete", "acme", "--with-accounts", "--yes")
			if !strings.Contains(out, "account ann@acme.example, id "+ids[ann]+", is being deleted\n") ||
				!strings.Contains(out, "is being deleted; it is on hold") || !strings.Contains(out, "by the collector: 2, of which on hold: 1\n") {
				t.Errorf("tenant delete says %s", out)
			}
			m.does("", "gc") // too early: a commit may be under way
			m.does("state\tdeleting", "account", "show", ann)
			m.does("account\tann@acme.example\nstate\tdeleting\n", "account", "show", ids[ann])
			m.does("account ann@acme.example, id "+ids[ann]+", is being deleted already\n", "account", "delete", ann, "--yes")
			m.bad(1, "not found", "", "account", "delete", "nobody@acme.example", "--yes")
			m.later()
			m.does("1 deleted accounts to be emptied", "gc", "--dry-run")
			m.does("deleted accounts waiting to be removed", "gc")
			m.does("rows\t0 messages, 0 mailboxes", "account", "show", ids[ann])
			m.does("", "gc") // notes the first listing that found nothing
			m.later()
			m.does("1 deleted accounts removed", "gc")
			m.does("left\tnothing: no row, and no object below the prefix", "account", "show", ids[ann])
			m.bad(1, "not found", "", "account", "quota", ann, "--quota-bytes", "1G")
			m.does("rows\t3 messages, 7 mailboxes", "account", "show", ids[bea]) // the hold wins

			m.says("accounts of acme still to be removed by the collector: 1, of which on hold: 1\n", "", "tenant", "delete", "acme", "--with-accounts", "--yes")
			m.bad(2, "--yes", "", "account", "release", bea)
			m.says("bea@acme.test is on hold no more\n", "", "account", "release", bea, "--yes")
			for range 3 {
				m.does("", "gc")
				m.later()
			}
			m.does("left\tnothing", "account", "show", ids[bea])
			m.says("domain acme.example deleted\ndomain acme.test deleted\ntenant acme deleted\n", "", "tenant", "delete", "acme", "--with-accounts", "--yes")
			m.says("", "", "tenant", "list")
		})
	}
}

// What was deleted longer ago than the retention stays while the account is on hold, can
// be brought back, and goes when the hold ends.
func TestHold(t *testing.T) {
	t.Parallel()
	m := newMailed(t, withDisk(t))
	const ann, bea = "ann@acme.example", "bea@acme.test"
	for _, name := range []string{ann, bea} {
		m.good("", "account", "hold", name, "--reason", "Case 4711")
	}
	m.does("Nothing is due.", "gc", "--dry-run") // with the hold
	m.does("Nothing is due.", "gc")
	m.does("on hold, and nothing of it is collected: Case 4711, since 2", "gc", "--account", bea)
	m.does(`mailbox "Old": brought back as "Old" with 1 messages`, "undelete", ann)
	for _, name := range []string{ann, bea} {
		m.good("", "account", "release", name, "--yes")
		m.good("", "account", "release", name, "--yes") // it is none any more
	}
	m.does("       1 deleted mailboxes to be removed\n", "gc", "--dry-run")
	m.does("1 deleted mailboxes removed", "gc")
	m.does("Nothing is due.", "gc", "--dry-run")
	m.does("rows\t3 messages", "account", "show", ann)
	m.does("rows\t2 messages", "account", "show", bea)
	m.does("Nothing is there", "undelete", bea)
}
