package main_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/emersion/go-imap/v2"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

// allMail is all mail of testUser on a node: each as its mailbox, its internal date and its bytes, sorted.
func (s *server) allMail() []string {
	s.t.Helper()
	client := login(s.t, s.imap, testUser, testPassword, nil)
	defer func() { _ = client.Close() }() // nothing follows
	boxes, err := client.List("", "*", nil).Collect()
	if err != nil {
		s.t.Fatal(err)
	}
	var mails []string
	body := &imap.FetchItemBodySection{Peek: true}
	for _, box := range boxes {
		selected, err := client.Select(box.Mailbox, nil).Wait()
		if err != nil {
			s.t.Fatal(err)
		}
		if selected.NumMessages == 0 {
			continue
		}
		var every imap.SeqSet
		every.AddRange(1, 0)
		messages, err := client.Fetch(every, &imap.FetchOptions{InternalDate: true, BodySection: []*imap.FetchItemBodySection{body}}).Collect()
		if err != nil || len(messages) != int(selected.NumMessages) {
			s.t.Fatalf("%d messages of %s, %v", len(messages), box.Mailbox, err)
		}
		for _, m := range messages {
			mails = append(mails, fmt.Sprint(box.Mailbox, " ", m.InternalDate.Unix(), " ", string(m.FindBodySection(body))))
		}
	}
	slices.Sort(mails)
	return mails
}

// With the database gone, and made anew, all mail comes back to where it was delivered, once.
func TestRebuild(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	const count = 200
	client := login(t, c.nodes[0].imap, testUser, testPassword, nil)
	if err := client.Create("Work/Plans", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	// Ids of mailboxes that are not older than what is in them are not relied on.
	metadatatest.Exec(t, c.setting("STARLING_POSTGRES_DSN"), "update mailbox set uidvalidity = uidvalidity - 7200")
	other := login(t, c.nodes[1].imap, testUser, testPassword, nil)
	for i := range count {
		switch i % 4 {
		case 0, 1:
			c.deliver(i%2, testUser, numberedMail(i))
		case 2:
			appendMail(t, client, "Work/Plans", numberedMail(i), &imap.AppendOptions{Flags: []imap.Flag{imap.FlagSeen}})
		default:
			appendMail(t, other, "Archive", numberedMail(i), nil)
		}
	}
	if err := client.Rename("Work/Plans", "Work/Done", nil).Wait(); err != nil { // the list of mailboxes will know of it
		t.Fatal(err)
	}
	want := c.nodes[1].allMail()
	// Nothing of this is known to the objects.
	if _, err := client.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Copy(imap.UIDSetNum(1, 2, 3), "Archive").Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Move(imap.UIDSetNum(4, 5, 6), "Work/Done").Wait(); err != nil {
		t.Fatal(err)
	}
	if err := client.Store(imap.UIDSetNum(7, 8), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if err := client.Expunge().Close(); err != nil {
		t.Fatal(err)
	}
	account, err := c.db.Recipient(t.Context(), testUser)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		if status := n.stop(syscall.SIGTERM); status != 0 { // which writes the list of mailboxes
			t.Errorf("status %d", status)
		}
	}
	c.forget()
	id := fmt.Sprintf("%016x", int64(account.ID))

	// says runs a command, and looks for what it has to say.
	says := func(want int, args []string, texts ...string) {
		t.Helper()
		out, status := c.starling(args...)
		if status != want {
			t.Fatalf("%v: status %d, want %d\n%s", args, status, want, out)
		}
		c.contains(fmt.Sprint(args), out, texts...)
	}
	says(0, []string{"rebuild", "--list"}, id+"  not in the database, was "+testUser+"  200 objects", `"Work/Done"`)
	says(1, []string{"rebuild", testUser, "--from", id}, "not found")
	says(0, []string{"tenant", "add", "acme"})
	says(0, []string{"domain", "add", "example.org", "--tenant", "acme"})
	says(1, []string{"rebuild", "other@example.org", "--from", id}, "was that of "+testUser, "--renamed")
	says(0, []string{"rebuild", "other@example.org", "--from", id, "--renamed", "--dry-run"}, "200 objects younger than 10m0s")
	says(0, []string{"rebuild", testUser, "--from", id, "--dry-run", "--age", "0"},
		"      50 messages would be brought back to \"Archive\"\n     100 messages would be brought back to \"INBOX\"\n      50 messages would be brought back to \"Work/Done\"\n")
	says(1, []string{"rebuild", testUser, "--from", id},
		"account "+testUser+" made with the id "+id, "200 objects younger than 10m0s (--age)", "stays on hold", "run it again in 10m0s")
	says(0, []string{"rebuild", strings.ToUpper(testUser), "--from", id + "/", "--age", "0"},
		"      50 messages brought back to \"Archive\"\n     100 messages brought back to \"INBOX\"\n      50 messages brought back to \"Work/Done\"\n", "200 objects\n")
	says(0, []string{"rebuild", testUser, "--age", "0"}, "There is nothing to be brought back.")
	c.contains("a check", c.checked(0, "--scrub"), "200 objects read whole\n", "Nothing is wrong.\n")
	says(0, []string{"rebuild", "--list"}, id+"  "+testUser+"  200 objects")
	hash, err := testHash()
	if err != nil {
		t.Fatal(err)
	}
	says(0, []string{"account", "passwd", testUser, "--hash", hash})
	node := c.serve()
	if got := node.allMail(); !slices.Equal(got, want) {
		t.Errorf("%d messages are back, want %d, or others", len(got), len(want))
	}
	c.nodes[0] = node
}

// forget puts an empty database in the place of the cluster's.
func (c *cluster) forget() {
	c.t.Helper()
	dsn := metadatatest.DSN(c.t)
	for i, s := range c.env {
		if strings.HasPrefix(s, "STARLING_POSTGRES_DSN=") {
			c.env[i] = "STARLING_POSTGRES_DSN=" + dsn
		}
	}
	db, err := metadata.Open(c.t.Context(), metadata.Config{DSN: dsn})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(db.Close)
	c.db = db
}

func TestRebuildRefuses(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.good("", "tenant", "add", "acme")
	s.good("", "domain", "add", "example.org", "--tenant", "acme")
	for _, name := range []string{"alice", "bob", "carol"} {
		s.good("secret\n", "account", "add", name+"@example.org")
	}
	s.good("", "account", "delete", "carol@example.org", "--yes")
	alice, err := s.open().Recipient(t.Context(), "alice@example.org")
	if err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("%016x", int64(alice.ID))
	blobs := t.TempDir()
	for _, test := range []struct {
		status int
		want   string
		args   []string
	}{
		{0, "", []string{"--list"}},
		{0, "There is nothing to be brought back.\n", []string{"alice@example.org"}},
		{0, "There is nothing to be brought back.\n", []string{"alice@example.org", "--from", id}},
		{1, "that of alice@example.org", []string{"bob@example.org", "--from", id}},
		{1, "is an address of the account bob@example.org", []string{"bob@example.org", "--from", "000000000000000a"}},
		{1, "not found", []string{"dora@example.org"}},
		{1, "is being deleted", []string{"carol@example.org"}},
		{1, "no object of an account 000000000000000a", []string{"dora@example.org", "--from", "000000000000000a"}},
		{2, "16 hex digits", []string{"dora@example.org", "--from", "a"}},
		{2, "16 hex digits", []string{"dora@example.org", "--from", "0000000000000000"}},
		{2, "an account's address", nil},
		{2, "--list goes with", []string{"alice@example.org", "--list"}},
		{2, "--renamed", []string{"dora@example.org", "--renamed"}},
		{2, "--age", []string{"alice@example.org", "--age", "-1s"}},
	} {
		stdout, stderr, status := run(t, invocation{
			args: append([]string{"rebuild"}, test.args...), env: []string{"STARLING_POSTGRES_DSN=" + s.dsn, "STARLING_BLOBS_DISK=" + blobs},
		})
		if status != test.status || !strings.Contains(stdout+stderr, test.want) {
			t.Errorf("rebuild %v: status %d, want %d and %q\n%s%s", test.args, status, test.status, test.want, stdout, stderr)
		}
	}
	stdout, _, status := run(t, invocation{
		args: []string{"rebuild", "alice@example.org", "--json"}, env: []string{"STARLING_POSTGRES_DSN=" + s.dsn, "STARLING_BLOBS_DISK=" + blobs},
	})
	var o struct {
		Account string
		Summary *struct{ Messages, Objects int }
	}
	if err := json.Unmarshal([]byte(stdout), &o); err != nil || status != 0 || o.Account != "alice@example.org" || o.Summary == nil {
		t.Errorf("in JSON it says %q, status %d, %v", stdout, status, err)
	}
	list := filepath.Join(blobs, id, "mailboxes")
	if err := errors.Join(os.Remove(list), os.Mkdir(list, 0o700)); err != nil { // it cannot be read
		t.Fatal(err)
	}
	stdout, stderr, status := run(t, invocation{
		args: []string{"rebuild", "alice@example.org"}, env: []string{"STARLING_POSTGRES_DSN=" + s.dsn, "STARLING_BLOBS_DISK=" + blobs},
	})
	if status != 1 || strings.Contains(stdout, "nothing to be brought back") || !strings.Contains(stderr, "mailboxes") {
		t.Errorf("a rebuild that failed says %q and %q, status %d", stdout, stderr, status)
	}
}
