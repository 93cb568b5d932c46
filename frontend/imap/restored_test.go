package imap

import (
	"fmt"
	"strings"
	"testing"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

// After a failover that lost commits a client is told what is gone, and goes on; but where a message is there again that it was
// told is gone, or a modseq is lower than it was told, the connection ends: neither can be said. A new one sees
// what there is, and with a modseq of the lost future everything anew (RFC 7162 §3.2.5).
func TestLostCommits(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, clusterOptions{})
	for _, test := range []struct {
		name, change string
		told         []string // after NOOP or in IDLE, on a connection that goes on; nil: it ends
		resync       string
	}{
		{
			"an APPEND", "APPEND INBOX {5+}\r\nhello",
			[]string{"* VANISHED 4"},
			"* VANISHED (EARLIER) 4",
		},
		{"an EXPUNGE", "UID EXPUNGE 2", nil, "* 2 FETCH (UID 2 "},
		{"a STORE", `UID STORE 1 +FLAGS (\Flagged)`, nil, `* 1 FETCH (UID 1 FLAGS ()`},
	} {
		t.Run(test.name, func(t *testing.T) { // one after the other: the epoch is everybody's
			account := c.account(t, fmt.Sprintf("lost%d@example.org", len(test.name)), metadata.Quota{})
			writer := c.nodes[0].dial(t).login(account.Name)
			for range 3 {
				writer.send("a APPEND INBOX {5+}\r\nhello")
				writer.until("a OK ")
			}
			idles := c.nodes[1].dial(t).login(account.Name)
			asking := []string{"NOOP", "NOOP", "STATUS INBOX (UIDNEXT HIGHESTMODSEQ)", `LIST "" INBOX RETURN (STATUS (UIDNEXT HIGHESTMODSEQ))`}
			clients := []*client{writer, idles}
			for i := range asking {
				clients = append(clients, c.nodes[i%2].dial(t).login(account.Name))
			}
			for _, one := range clients {
				one.send("e ENABLE QRESYNC")
				one.until("e OK ")
				one.send("s SELECT INBOX")
				one.until("s OK ")
			}
			writer.send(`d UID STORE 2 +FLAGS (\Deleted)`)
			writer.until("d OK ")
			for _, one := range clients { // all know that
				one.send("n NOOP")
				one.until("n OK ")
			}
			restore := keptInbox(t, c.dsn, account.ID)
			writer.send("c " + test.change)
			writer.until("c OK ")
			for _, one := range clients {
				one.send("n NOOP")
				one.until("n OK ")
			}
			idles.send("i IDLE")
			idles.until("+ ")
			restore()

			for i, command := range asking {
				one := clients[2+i]
				one.send("n " + command)
				if test.told == nil {
					if line := one.until("* "); !strings.HasPrefix(line, "* BYE [UNAVAILABLE] ") { // and nothing of what was
						t.Errorf("%s told %q", command, line)
					}
					one.until("")
					continue
				}
				for _, line := range test.told {
					one.until(line)
				}
				one.until("n OK ")
			}
			if test.told == nil {
				idles.until("* BYE [UNAVAILABLE] ")
			} else {
				idles.until(test.told[0])
			}
			again := c.nodes[1].dial(t).login(account.Name)
			again.send("e ENABLE QRESYNC")
			again.until("e OK ")
			box, err := c.db.MailboxByName(t.Context(), account.ID, "INBOX")
			if err != nil {
				t.Fatal(err)
			}
			again.send(fmt.Sprintf("s SELECT INBOX (QRESYNC (%d %d 1:4))", box.UIDValidity, box.Jumps[0]+1))
			again.until(test.resync)
			again.until("s OK ")
		})
	}
}

// keptInbox returns what makes an account's INBOX what it is now again, as a failover to a standby does that has had no more.
func keptInbox(t *testing.T, dsn string, account metadata.AccountID) (restore func()) {
	suffix := fmt.Sprintf("_%d", account)
	metadatatest.Exec(t, dsn, fmt.Sprintf(`
create table kept_mailbox%[1]s as select * from mailbox where account_id = %[2]d and name = 'INBOX';
create table kept_flags%[1]s as select f.* from flags f join kept_mailbox%[1]s m on f.account_id = m.account_id and f.mailbox_id = m.id;
create table kept_message%[1]s as select r.* from message r join kept_mailbox%[1]s m on r.account_id = m.account_id and r.mailbox_id = m.id`, suffix, account))
	return func() {
		metadatatest.Exec(t, dsn, fmt.Sprintf(`
begin;
delete from message r using kept_mailbox%[1]s m where r.account_id = m.account_id and r.mailbox_id = m.id;
delete from flags r using kept_mailbox%[1]s m where r.account_id = m.account_id and r.mailbox_id = m.id;
delete from mailbox r using kept_mailbox%[1]s m where r.account_id = m.account_id and r.id = m.id;
insert into mailbox select * from kept_mailbox%[1]s;
insert into flags select * from kept_flags%[1]s;
insert into message select * from kept_message%[1]s;
update cluster set generation = generation + 1;
commit`, suffix))
	}
}
