package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

// checked runs starling check, and returns its output.
func (c *cluster) checked(status int, args ...string) string {
	c.t.Helper()
	stdout, stderr, got := run(c.t, invocation{args: append([]string{"check"}, args...), env: c.env})
	if got != status || (stderr == "") != (status == 0) {
		c.t.Fatalf("check %v: status %d, want %d\n%s%s", args, got, status, stdout, stderr)
	}
	return stdout + stderr
}

func (c *cluster) contains(what, got string, want ...string) {
	c.t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			c.t.Errorf("%s says %q, want %q", what, got, w)
		}
	}
}

// setting is the value of one of the cluster's settings.
func (c *cluster) setting(name string) string {
	for _, s := range c.env {
		if v, ok := strings.CutPrefix(s, name+"="); ok {
			return v
		}
	}
	c.t.Fatalf("no setting %s", name)
	return ""
}

// objectOf is the file of a message's object.
func (c *cluster) objectOf(uid uint32) string {
	c.t.Helper()
	a, err := c.db.Recipient(c.t.Context(), testUser)
	if err != nil {
		c.t.Fatal(err)
	}
	rows, err := c.db.MessageObjects(c.t.Context(), a.ID, 1, uid-1, 1)
	if err != nil || len(rows) != 1 || rows[0].UID != uid {
		c.t.Fatalf("UID %d: %+v, %v", uid, rows, err)
	}
	var found string
	err = filepath.Walk(c.setting("STARLING_BLOBS_DISK"), func(path string, _ os.FileInfo, err error) error {
		if filepath.Base(path) == fmt.Sprintf("%x", rows[0].Object) {
			found = path
		}
		return err
	})
	if err != nil || found == "" {
		c.t.Fatalf("no file of object %x: %v", rows[0].Object, err)
	}
	return found
}

func TestCheck(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for i := range 10 {
		c.deliver(i%2, testUser, numberedMail(i))
	}
	c.contains("a check of all", c.checked(0), "1 accounts checked\n", "10 messages", "10 objects\n", "Nothing is wrong.\n")
	c.contains("a scrub", c.checked(0, "Ann@example.org", "--scrub"), "10 objects read whole\n", "Nothing is wrong.\n")

	metadatatest.Exec(t, c.setting("STARLING_POSTGRES_DSN"), "update mailbox set messages = 12 where name = 'INBOX'")
	if err := os.Remove(c.objectOf(3)); err != nil {
		t.Fatal(err)
	}
	file := c.objectOf(7)
	object, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	object[len(object)-2] ^= 1
	if err := os.WriteFile(file, object, 0o600); err != nil {
		t.Fatal(err)
	}
	const counters, lost, damaged = testUser + `: "INBOX": the counters are wrong: messages 12, counted 10`,
		testUser + `: "INBOX": UID 3: the message's bytes are lost: its object is not there (object `,
		testUser + `: "INBOX": UID 7: the message's bytes are damaged (object `
	got := c.checked(1)
	c.contains("a check", got, counters+"\n", lost, "Mended: 0, left: 2.\n", "starling: damage left: 2\n")
	if strings.Contains(got, "UID 7") {
		t.Errorf("without reading it says %q", got)
	}
	tenant := metadataTenant(t, c.db)
	c.contains("a repair", c.checked(1, "--repair", "--scrub", "--tenant", tenant), counters+"; mended\n", lost, damaged, "Mended: 1, left: 2.\n")

	var findings []string
	for line := range strings.Lines(strings.TrimSuffix(c.checked(1, "--scrub", "--json"), "starling: damage left: 2\n")) {
		var o struct {
			Account, Damage, Mailbox string
			UID                      uint32
			Summary                  *struct{ Accounts, Scrubbed, Left, Mended int }
		}
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if s := o.Summary; s != nil {
			findings = append(findings, fmt.Sprint(*s))
			continue
		}
		findings = append(findings, fmt.Sprint(o.Account, " ", o.Damage, " ", o.Mailbox, " ", o.UID))
	}
	want := fmt.Sprint([]string{testUser + " missing_object INBOX 3", testUser + " corrupt_object INBOX 7", "{1 8 2 0}"})
	if fmt.Sprint(findings) != want {
		t.Errorf("in JSON it says %v, want %v", findings, want)
	}
	// The row stays: its flags and headers are there still.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	c.contains("a check", c.checked(1, "--repair"), `UID 7: the message's bytes are lost`)
}

func metadataTenant(t *testing.T, db *metadata.DB) string {
	t.Helper()
	tenants, err := db.Tenants(t.Context())
	if err != nil || len(tenants) != 1 {
		t.Fatalf("tenants %v, %v", tenants, err)
	}
	return tenants[0].Name
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.good("", "tenant", "add", "acme")
	s.good("", "tenant", "add", "empty")
	s.good("", "domain", "add", "example.org", "--tenant", "acme")
	s.good("secret\n", "account", "add", "alice@example.org")
	s.good("secret\n", "account", "add", "bob@example.org")
	s.good("", "account", "delete", "bob@example.org", "--yes")
	blobs := t.TempDir()
	for _, test := range []struct {
		status int
		want   string
		args   []string
	}{
		{0, "1 accounts checked\n       1 accounts that are being deleted, left out\n", nil},
		{0, "1 accounts checked\n", []string{"alice@example.org", "--scrub", "--rate", "1M"}},
		{0, "1 accounts checked\n", []string{"--tenant", "acme"}},
		{0, "There is no account to check.\n", []string{"--tenant", "empty"}},
		{1, "not found", []string{"carol@example.org"}},
		{1, "not found", []string{"--tenant", "nobody"}},
		{2, "not both", []string{"alice@example.org", "--tenant", "acme"}},
		{2, "--rate", []string{"--rate", "much"}},
		{2, "--rate", []string{"--rate", "0"}},
		{2, "--rows", []string{"--rows", "0"}},
		{2, "accepts at most 1 arg", []string{"alice@example.org", "bob@example.org"}},
	} {
		stdout, stderr, status := run(t, invocation{
			args: append([]string{"check"}, test.args...), env: []string{"STARLING_POSTGRES_DSN=" + s.dsn, "STARLING_BLOBS_DISK=" + blobs},
		})
		if status != test.status || !strings.Contains(stdout+stderr, test.want) {
			t.Errorf("check %v: status %d, want %d and %q\n%s%s", test.args, status, test.status, test.want, stdout, stderr)
		}
		if status != 0 && stdout != "" {
			t.Errorf("check %v says %q", test.args, stdout)
		}
	}
}

// Without the object store nothing is called lost, and the run is given up.
func TestCheckWithoutObjectStore(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.good("", "tenant", "add", "acme")
	s.good("", "domain", "add", "example.org", "--tenant", "acme")
	for i := range 5 {
		s.good("secret\n", "account", "add", fmt.Sprintf("user%d@example.org", i))
	}
	stdout, stderr, status := run(t, invocation{args: []string{"check", "--repair"}, env: []string{
		"STARLING_POSTGRES_DSN=" + s.dsn, "STARLING_BLOBS_S3_ENDPOINT=http://127.0.0.1:1", "STARLING_BLOBS_S3_BUCKET=mail",
		"STARLING_BLOBS_S3_ACCESS_KEY=a", "STARLING_BLOBS_S3_SECRET_KEY=b",
	}})
	if status != 1 || !strings.Contains(stdout, "user2@example.org: could not be checked: check objects: ") || strings.Contains(stdout, "user3") ||
		!strings.Contains(stdout, "3 accounts that could not be checked\n") || strings.Contains(stdout, "wrong") ||
		!strings.Contains(stderr, "given up after 3 accounts") {
		t.Errorf("status %d\n%s%s", status, stdout, stderr)
	}
}

// A check that is interrupted says how far it came.
func TestCheckInterrupted(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for i := range 10 {
		c.deliver(0, testUser, numberedMail(i))
	}
	metadatatest.Exec(t, c.setting("STARLING_POSTGRES_DSN"), "update mailbox set messages = 11 where name = 'INBOX'")
	// An object takes 64 KiB of the rate: after the first it waits for most of a day.
	p := start(t, invocation{args: []string{"check", "--scrub", "--rate", "1"}, env: c.env})
	p.waitFor("a finding", func(output string) bool { return strings.Contains(output, "the counters are wrong") })
	if status := p.stop(syscall.SIGINT); status != 1 {
		t.Errorf("status %d", status)
	}
	stdout, stderr := p.text()
	c.contains("an interrupted check", stdout, "Mended: 0, left: 1.\n")
	c.contains("an interrupted check", stderr, "starling: check broken off: context canceled\n", "damage left: 1\n")
}

// While mail comes in on both nodes a check finds nothing.
func TestCheckUnderLoad(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for node := range c.nodes {
		load.Go(func() {
			client := login(t, c.nodes[node].imap, testUser, testPassword, nil)
			defer func() { _ = client.Close() }() // nothing follows
			for i := 0; ctx.Err() == nil; i++ {
				mail := numberedMail(i)
				app := client.Append("INBOX", int64(len(mail)), nil)
				if _, err := io.WriteString(app, mail); err != nil {
					t.Error(err)
					return
				}
				if err := app.Close(); err != nil {
					t.Error(err)
					return
				}
				if _, err := app.Wait(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 3 {
		c.contains("a check under load", c.checked(0, "--scrub", "--repair"), "Nothing is wrong.\n")
	}
	stop()
	load.Wait()
	c.contains("a check after it", c.checked(0), "Nothing is wrong.\n")
}

// After a restore what no message names may be mail that the database has forgotten: a check is not
// content until it was named.
func TestCheckAfterARestore(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for i := range 3 {
		c.deliver(0, testUser, numberedMail(i))
	}
	account, err := c.db.Recipient(t.Context(), testUser)
	if err != nil {
		t.Fatal(err)
	}
	metadatatest.Exec(t, c.setting("STARLING_POSTGRES_DSN"), fmt.Sprintf(`
delete from message where account_id = %[1]d and uid = 3;
delete from flags where account_id = %[1]d;
update mailbox set messages = 0, unseen = 0, bytes = 0 where account_id = %[1]d;
delete from message where account_id = %[1]d`, account.ID))
	c.contains("a check", c.checked(0), "3 objects that no message names so far", "Nothing is wrong.\n")
	if out, status := c.starling("epoch", "bump", "--yes"); status != 0 {
		t.Fatal(out)
	}
	c.contains("a check in another epoch", c.checked(1),
		testUser+": 3 objects that no message names, maybe mail that the database has forgotten: see starling rebuild "+testUser+" --dry-run\n",
		"in an epoch that nobody accepted: 3")
	c.contains("as JSON", c.checked(1, "--json"), `{"account":"`+testUser+`","forgotten":3}`, `"forgotten":3,"interrupted"`)
	if out, status := c.starling("rebuild", testUser, "--age", "0"); status != 0 {
		t.Fatal(out)
	}
	c.contains("a check after the rebuild", c.checked(0), "3 messages", "Nothing is wrong.\n")
}
