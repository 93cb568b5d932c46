package imap

import "testing"

func TestMailboxCommands(t *testing.T) {
	t.Parallel()
	c := newTestNode(t).connect(t)
	c.want("CREATE Work/Plans/", "OK [MAILBOXID (F…")
	c.want("CREATE Work/Plans", "NO [ALREADYEXISTS] …")
	c.want("CREATE inbox", "NO [ALREADYEXISTS] …")
	c.want("CREATE a//b", "NO [CANNOT] …")
	c.want(`CREATE Out (USE (\sent))`, "OK [MAILBOXID (F…")
	c.want(`CREATE Every (USE (\All))`, "NO [USEATTR] …")
	c.want(`LIST "" %`,
		`* LIST (\HasNoChildren) "/" INBOX`, `* LIST (\HasNoChildren \Sent) "/" Out`,
		`* LIST (\NonExistent \Noselect \HasChildren) "/" Work`, "OK …")
	c.want(`LIST "" ""`, `* LIST (\Noselect) "/" ""`, "OK …")
	c.want(`LIST (SPECIAL-USE) "" * RETURN (SUBSCRIBED)`, `* LIST (\Sent) "/" Out`, "OK …")
	c.want("NAMESPACE", `* NAMESPACE (("" "/")) NIL NIL`, "OK …")

	c.want("SUBSCRIBE Work/Plans", "OK …")
	c.want("SUBSCRIBE Nowhere", "OK …")
	c.want(`LSUB "" *`, `* LSUB () "/" INBOX`, `* LSUB () "/" Nowhere`, `* LSUB () "/" Work/Plans`, "OK …")
	c.want(`LSUB "" %`, `* LSUB () "/" INBOX`, `* LSUB () "/" Nowhere`, `* LSUB (\Noselect) "/" Work`, "OK …")
	c.want("UNSUBSCRIBE Nowhere", "OK …")
	c.want("UNSUBSCRIBE Nowhere", "OK …")
	c.want(`LIST (RECURSIVEMATCH SUBSCRIBED) "" W%`, `* LIST (\NonExistent) "/" Work ("CHILDINFO" ("SUBSCRIBED"))`, "OK …")

	c.want("RENAME Work Job", "OK …")
	c.want(`LIST "" Job/*`, `* LIST (\HasNoChildren) "/" Job/Plans`, "OK …")
	c.want("RENAME Job/Plans Out", "NO [ALREADYEXISTS] …")
	c.want("RENAME Job Job/Below", "NO [CANNOT] …")
	c.want("RENAME Nowhere There", "NO [NONEXISTENT] …")
	c.want("DELETE INBOX", "NO [CANNOT] …")
	c.want("DELETE Nowhere", "NO [NONEXISTENT] …")
	c.want("DELETE Job", "NO [HASCHILDREN] …")
	c.want("DELETE Out", "OK …")
	c.want(`LIST "" Out`, "OK …")
}

func TestDeleteOfTheSelectedMailbox(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	c, other := n.connect(t), n.connect(t)
	c.ok("CREATE A")
	c.ok("SELECT A")
	other.ok("SELECT A")
	c.want("DELETE A", "* OK [CLOSED] …", "OK …")
	c.want("CHECK", "BAD …")
	c.want("NOOP", "OK …")
	if lines := other.tail("NOOP"); len(lines) != 1 || lines[0] != "* BYE [NONEXISTENT] The selected mailbox was deleted" {
		t.Errorf("the other session heard %q", lines)
	}
}

func TestRenameInbox(t *testing.T) {
	t.Parallel()
	c := newTestNode(t).connect(t)
	c.put("INBOX", `(\Seen)`, "Subject: x\n\nx\n")
	c.ok("CREATE INBOX/Child")
	c.want("RENAME inbox Old", "OK …")
	c.want("STATUS INBOX (MESSAGES)", "* STATUS INBOX (MESSAGES 0)", "OK …")
	c.want("STATUS Old (MESSAGES UNSEEN)", "* STATUS Old (MESSAGES 1 UNSEEN 0)", "OK …")
	c.want(`LIST "" *`, `* LIST (\HasChildren) "/" INBOX`, `* LIST (\HasNoChildren) "/" INBOX/Child`, `* LIST (\HasNoChildren) "/" Old`, "OK …")
}

func TestStatus(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	c, other := n.connect(t), n.connect(t)
	c.put("INBOX", `(\Seen)`, "Subject: x\n\nx\n")
	c.put("INBOX", `(\Deleted)`, "Subject: y\n\ny\n")
	c.want("STATUS inbox (MESSAGES UIDNEXT UNSEEN DELETED SIZE RECENT DELETED-STORAGE APPENDLIMIT)",
		"* STATUS INBOX (MESSAGES 2 UIDNEXT 3 UNSEEN 1 DELETED 1 SIZE 34 RECENT 2 DELETED-STORAGE 17 APPENDLIMIT 67108864)", "OK …")
	c.want("STATUS INBOX (UIDVALIDITY MAILBOXID)", "* STATUS INBOX (UIDVALIDITY …", "OK …")
	c.want("STATUS Nowhere (MESSAGES)", "NO [NONEXISTENT] …")
	c.want("STATUS INBOX (MESSAGES WEATHER)", "BAD …")

	// The selected mailbox: the client is told all before, so that both agree.
	c.ok("SELECT INBOX")
	other.put("INBOX", "", "Subject: z\n\nz\n")
	c.want("STATUS INBOX (MESSAGES RECENT)", "* 3 EXISTS", "* 3 RECENT", "* STATUS INBOX (MESSAGES 3 RECENT 3)", "OK …")
	other.put("INBOX", "", "Subject: z\n\nz\n")
	c.want(`LIST "" INBOX RETURN (STATUS (MESSAGES HIGHESTMODSEQ))`,
		"* OK [HIGHESTMODSEQ 4] …", "* 4 EXISTS", "* 4 RECENT", `* LIST () "/" INBOX`, "* STATUS INBOX (MESSAGES 4 HIGHESTMODSEQ 5)", "OK …")
	// Asking for HIGHESTMODSEQ has shown that the client knows CONDSTORE (RFC 7162 §3.1).
	c.want("STORE 1 +FLAGS.SILENT (x)", "* FLAGS …", "* OK [PERMANENTFLAGS …", "* 1 FETCH (UID 1 MODSEQ (6))", "OK …")
	// What has no mailbox has no status (RFC 5819 §2).
	c.ok("CREATE P/Q")
	c.want(`LIST "" P* RETURN (STATUS (MESSAGES))`, `* LIST () "/" P/Q`, "* STATUS P/Q (MESSAGES 0)", "OK …")
	c.want(`LIST "" P% RETURN (STATUS (MESSAGES))`, `* LIST (\NonExistent) "/" P`, "OK …")
}

// A mailbox that is renamed while it is selected stays selected (RFC 9051 §6.3.6), and STATUS of
// its new name is of the selected mailbox.
func TestRenameOfTheSelectedMailbox(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	c, other := n.connect(t), n.connect(t)
	c.ok("CREATE A")
	c.ok("SELECT A")
	other.want("RENAME A B", "OK …")
	c.want("STATUS B (MESSAGES)", "* STATUS B (MESSAGES 0)", "OK …")
	other.put("B", "", "Subject: x\n\nx\n")
	c.want("STATUS B (MESSAGES)", "* 1 EXISTS", "* 1 RECENT", "* STATUS B (MESSAGES 1)", "OK …")
	c.want("STATUS A (MESSAGES)", "NO [NONEXISTENT] …")
	c.want("UID SEARCH ALL", "* SEARCH 1", "OK …")
}
