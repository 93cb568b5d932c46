package main_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"starling/metadata/metadatatest"
)

// starling runs a command with the settings of the cluster's nodes.
func (c *cluster) starling(args ...string) (out string, status int) {
	c.t.Helper()
	stdout, stderr, status := run(c.t, invocation{args: args, env: c.env})
	return stdout + stderr, status
}

// good runs a command that has to succeed and say something.
func (c *cluster) good(want string, args ...string) string {
	c.t.Helper()
	out, status := c.starling(args...)
	if status != 0 || !strings.Contains(out, want) {
		c.t.Fatalf("%v: status %d, want to read %q:\n%s", args, status, want, out)
	}
	return out
}

// enter logs in to a node.
func (c *cluster) enter(node int) *talker {
	c.t.Helper()
	k := talk(c.t, c.nodes[node].imap)
	k.hear("* OK")
	k.say(fmt.Sprintf("in login %s %q\r\n", testUser, testPassword))
	k.hear("in OK")
	return k
}

// What clients have deleted comes back by message, by mailbox and by day, and clients in
// IDLE on any node see it at once.
func TestUndelete(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "STARLING_MAIL_SWEEP=1h") // nothing is found out but by hints
	k, idle := c.enter(0), c.enter(1)
	k.say("a create Old\r\n")
	k.hear("a OK")
	for i := range 5 {
		mail := numberedMail(i)
		k.say(fmt.Sprintf("b append INBOX (\\Flagged) {%d+}\r\n%s\r\nc append Old {%d+}\r\n%s\r\n", len(mail), mail, len(mail), mail))
		k.hear("c OK")
	}
	c.good("Nothing is there to bring back.", "undelete", testUser)
	k.say("d select Old\r\n")
	before := k.hear("d OK")
	k.say("d close\r\nd delete Old\r\ne select INBOX\r\nf store 1:2 +flags.silent (\\Deleted)\r\ng expunge\r\n")
	k.hear("g OK")
	// The days are set, so that no midnight comes between them and what is asked for.
	dsn := strings.TrimPrefix(c.env[1], "STARLING_POSTGRES_DSN=")
	metadatatest.Exec(t, dsn, "update expunged set day = '2099-03-01'")
	k.say("h store 1 +flags.silent (\\Deleted)\r\ni expunge\r\n")
	k.hear("i OK")
	metadatatest.Exec(t, dsn, "update expunged set day = '2099-03-03' where day <> '2099-03-01'")
	metadatatest.Exec(t, dsn, "update mailbox set dropped_at = '2099-03-03 23:59:59.9Z' where dropped")
	idle.say("a select INBOX\r\nb idle\r\n")
	idle.hear("+")

	const today = "2099-03-03"
	ago := func(days int) string {
		return time.Date(2099, time.March, 3-days, 0, 0, 0, 0, time.UTC).Format(time.DateOnly)
	}
	dry := c.good(`mailbox "Old", deleted `, "undelete", testUser, "--dry-run")
	for _, line := range []string{
		"INBOX\t1\t" + ago(2), "INBOX\t2\t" + ago(2), "INBOX\t3\t" + today,
		"\tSender <sender0@example.org>\tMessage 0\n", "\tSender <sender2@example.org>\tMessage 2\n", "\nINBOX: 3 messages to bring back, ",
	} {
		if !strings.Contains(dry, line) {
			t.Errorf("%q is missing in\n%s", line, dry)
		}
	}
	dry = c.good("INBOX: 2 further messages; narrow it by --uid", "undelete", testUser, "--dry-run", "--most", "1")
	if n := strings.Count(dry, "\nINBOX\t"); n != 1 || !strings.Contains(dry, "INBOX: 3 messages to bring back, ") {
		t.Errorf("with --most 1 it lists %d messages of INBOX:\n%s", n, dry)
	}
	for _, test := range []struct { // both sides of each bound
		args []string
		want []string
	}{
		{[]string{"--since", ago(2)}, []string{"1", "2", "3", "Old"}},
		{[]string{"--since", ago(1)}, []string{"3", "Old"}},
		{[]string{"--until", ago(2)}, []string{"1", "2"}},
		{[]string{"--until", ago(3)}, nil},
		{[]string{"--since", ago(1), "--until", ago(1)}, nil},
		{[]string{"--since", today, "--until", today}, []string{"3", "Old"}},
		{[]string{"--mailbox", "Old"}, []string{"Old"}},
		{[]string{"--mailbox", "INBOX", "--uid", "2:3"}, []string{"2", "3"}},
	} {
		out := c.good("", append([]string{"undelete", testUser, "--dry-run"}, test.args...)...)
		var got []string
		for _, uid := range []string{"1", "2", "3"} {
			if strings.Contains(out, "INBOX\t"+uid+"\t") {
				got = append(got, uid)
			}
		}
		if strings.Contains(out, `mailbox "Old"`) {
			got = append(got, "Old")
		}
		if strings.Join(got, " ") != strings.Join(test.want, " ") {
			t.Errorf("%v finds %v, want %v", test.args, got, test.want)
		}
	}

	for _, args := range [][]string{{"--mailbox", "Odl"}, {"--mailbox", "Old", "--uid", "1"}} { // which never was, and is no more
		if out, status := c.starling(append([]string{"undelete", testUser}, args...)...); status != 1 || !strings.Contains(out, "no such mailbox") {
			t.Errorf("%v: status %d\n%s", args, status, out)
		}
	}
	c.good("INBOX: 1 messages brought back", "undelete", testUser, "--mailbox", "inbox", "--uid", "2")
	if told := idle.hear("* 3 EXISTS"); strings.Contains(told, "EXPUNGE") {
		t.Errorf("in IDLE was heard %q", told)
	}
	k.say("j create Old\r\n")
	k.hear("j OK")
	c.good(`mailbox "Old": brought back as "Old (2)" with 5 messages`, "undelete", testUser, "--mailbox", "Old")
	k.say("k select \"Old (2)\"\r\n")
	after := k.hear("k OK")
	if !strings.Contains(after, "* 5 EXISTS") || validity(t, after) <= validity(t, before) {
		t.Errorf("it was\n%s and is\n%s", before, after)
	}
	c.good(`INBOX: 2 messages brought back into "Saved/All"`, "undelete", testUser, "--to", "Saved/All")
	k.say("l select Saved/All\r\nm fetch 1:* (flags body.peek[header.fields (subject)])\r\n")
	if got := k.hear("m OK"); !strings.Contains(got, "* 2 EXISTS") || strings.Count(got, `\Flagged`) < 2 ||
		!strings.Contains(got, "Subject: Message 0\r\n") || !strings.Contains(got, "Subject: Message 2\r\n") {
		t.Errorf("in the mailbox --to are\n%s", got)
	}
	c.good("Nothing is there to bring back.", "undelete", testUser)
	c.good("", "check", testUser) // finds no damage
}

func validity(t *testing.T, selected string) int {
	t.Helper()
	_, rest, _ := strings.Cut(selected, "[UIDVALIDITY ")
	digits, _, _ := strings.Cut(rest, "]")
	n, err := strconv.Atoi(digits)
	if err != nil {
		t.Fatalf("%v in %q", err, selected)
	}
	return n
}

// What the quota has no room for stays deleted, and is told of.
func TestUndeleteOverQuota(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	k := c.enter(0)
	mail := numberedMail(1)
	k.say("a create Old\r\n")
	for range 4 {
		k.say(fmt.Sprintf("b append INBOX {%d+}\r\n%s\r\nc append Old {%d+}\r\n%s\r\n", len(mail), mail, len(mail), mail))
	}
	k.say("d delete Old\r\ne select INBOX\r\nf store 1:* +flags.silent (\\Deleted)\r\ng expunge\r\n")
	k.hear("g OK")
	c.good("", "account", "quota", testUser, "--quota-messages", "3")
	out, status := c.starling("undelete", testUser)
	for _, want := range []string{`mailbox "Old": over quota`, "INBOX: over quota; 1 messages stay deleted", `INBOX: 3 messages brought back`, "could not be brought back: 2"} {
		if status != 1 || !strings.Contains(out, want) {
			t.Errorf("status %d, %q is missing in\n%s", status, want, out)
		}
	}
	c.good("", "account", "quota", testUser, "--quota-messages", "0")
	c.good(`"Old" with 4 messages`, "undelete", testUser)
	c.good("Nothing is there", "undelete", testUser)
}

func TestUndeleteCommandLine(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	for want, args := range map[string][]string{
		"needs --mailbox":    {"--uid", "1"},
		"is before --since":  {"--since", "2026-02-01", "--until", "2026-01-31"},
		"--most":             {"--dry-run", "--most", "-1"},
		"is not a rising":    {"--uid", "5,1:3", "--mailbox", "INBOX"},
		"--since":            {"--since", "yesterday"},
		"--until":            {"--until", "2026-02-30"},
		"--to":               {"--to", "a//b"},
		"rising list of UID": {"--uid", "0", "--mailbox", "INBOX"},
	} {
		s.bad(2, want, "", append([]string{"undelete", "ann@example.org"}, args...)...)
	}
}
