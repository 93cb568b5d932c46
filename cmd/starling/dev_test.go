package main_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"starling/blobstore/s3/s3test"
	"starling/events/nats/natsserver"
	"starling/metadata/metadatatest"
	"starling/metadata/postgres"
)

// devCluster is a run of starling dev.
type devCluster struct {
	*program
	nodes []map[string]string // what listens where
}

var devListener = regexp.MustCompile(`(?m)^ +(IMAPS?|LMTP|HTTP) +(?:http://)?([^\s/]+)(?:/node)?$`)

// startDev runs starling dev until it says that it serves.
func startDev(t *testing.T, in invocation, flags ...string) *devCluster {
	t.Helper()
	in.args = append([]string{"dev", "--any-ports"}, flags...)
	d := &devCluster{program: start(t, in)}
	text := d.waitFor("Ctrl-C", func(s string) bool { return strings.Contains(s, "Ctrl-C stops it.\n") })
	for _, m := range devListener.FindAllStringSubmatch(text, -1) {
		if m[1] == "IMAP" {
			d.nodes = append(d.nodes, map[string]string{})
		}
		d.nodes[len(d.nodes)-1][m[1]] = m[2]
	}
	return d
}

// end stops the cluster and checks that it went as it should.
func (d *devCluster) end(signal os.Signal) {
	d.t.Helper()
	if status := d.stop(signal); status != 0 {
		d.t.Errorf("status %d after %v", status, signal)
	}
	text := d.output.String()
	if !strings.HasSuffix(text, "Stopped.\n") || strings.Contains(text, "WARN") || strings.Contains(text, "ERROR") {
		d.t.Errorf("it said:\n%s", text)
	}
	for i, node := range d.nodes {
		for what, address := range node {
			if conn, err := net.Dial("tcp", address); err == nil {
				_ = conn.Close()
				d.t.Errorf("node %d still listens for %s", i+1, what)
			}
		}
	}
}

// openFolder is a folder that any user can reach, as PostgreSQL's needs it.
func openFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "starling-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// needPostgres skips the test where no PostgreSQL is installed.
func needPostgres(t *testing.T) {
	t.Helper()
	if _, err := postgres.Find(t.Context(), ""); err != nil {
		t.Skip(err)
	}
}

// leftRunning are the processes whose command line has word in it.
func leftRunning(t *testing.T, word string) (found []string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return nil
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range lines {
		line, err := os.ReadFile(name)
		if err == nil && strings.Contains(string(line), word) {
			found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

// login is a client of the account at an address without TLS.
func login(t *testing.T, address, name, password string, options *imapclient.Options) *imapclient.Client {
	t.Helper()
	c, err := imapclient.DialInsecure(address, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // it may have been closed already
	if err := c.Login(name, password).Wait(); err != nil {
		t.Fatal(err)
	}
	return c
}

func appendMail(t *testing.T, c *imapclient.Client, mailbox, mail string, options *imap.AppendOptions) *imap.AppendData {
	t.Helper()
	cmd := c.Append(mailbox, int64(len(mail)), options)
	if _, err := io.WriteString(cmd, mail); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := cmd.Wait()
	if err != nil {
		t.Fatalf("append to %s: %v", mailbox, err)
	}
	return data
}

// count is how many messages are in INBOX of dev's alice, at an address.
func count(t *testing.T, address string) uint32 {
	t.Helper()
	c := login(t, address, "alice@example.org", "starling", nil)
	defer func() { _ = c.Close() }() // nothing follows
	data, err := c.Select("INBOX", nil).Wait()
	if err != nil {
		t.Fatal(err)
	}
	return data.NumMessages
}

const shortMail = "From: a@example.org\r\nSubject: short\r\n\r\nHello.\r\n"

// The cluster starts in an empty folder, serves on both nodes, stops on Ctrl-C
// with nothing left running, and has its mail when it is started again.
func testDev(t *testing.T, in invocation, data string) {
	t.Helper()
	d := startDev(t, in, "--data", data)
	if len(d.nodes) != 2 || len(d.nodes[0]) != 4 || len(d.nodes[1]) != 4 {
		t.Fatalf("listeners are %v", d.nodes)
	}
	if n := count(t, d.nodes[1]["IMAP"]); n != 3 {
		t.Errorf("%d welcome mails", n)
	}
	c := login(t, d.nodes[0]["IMAP"], "alice@example.org", "starling", nil)
	appendMail(t, c, "INBOX", shortMail, nil)
	if n := count(t, d.nodes[1]["IMAP"]); n != 4 {
		t.Errorf("%d messages on the second node", n)
	}
	mail := write(t, importOne, "Subject: imported\n", t.TempDir(), "a.eml")
	stdout, stderr, status := run(t, invocation{args: []string{
		"-c", filepath.Join(data, "starling.yaml"), "import", "bob@example.org", mail, "--state", filepath.Join(t.TempDir(), "state"),
	}})
	if status != 0 || stdout != "imported: 1\n" {
		t.Errorf("import with the settings of dev: status %d\n%s%s", status, stdout, stderr)
	}
	d.end(syscall.SIGINT) // c is still logged in
	if left := leftRunning(t, data); len(left) > 0 {
		t.Errorf("left running: %q", left)
	}
	d = startDev(t, in, "--data", data, "--nodes", "1")
	if n := count(t, d.nodes[0]["IMAP"]); n != 4 || len(d.nodes) != 1 {
		t.Errorf("%d messages after a restart, on %d nodes", n, len(d.nodes))
	}
	d.end(syscall.SIGHUP)
	if left := leftRunning(t, data); len(left) > 0 {
		t.Errorf("left running: %q", left)
	}
}

func TestDev(t *testing.T) {
	t.Parallel()
	needPostgres(t)
	testDev(t, invocation{}, filepath.Join(openFolder(t), "new", "data"))
}

// PostgreSQL refuses root, so that root is the special case; this is the usual one.
func TestDevUnprivileged(t *testing.T) {
	t.Parallel()
	needPostgres(t)
	nobody, err := user.Lookup("nobody")
	if os.Geteuid() != 0 || err != nil {
		t.Skip("only root can become another user, and TestDev is not root's then")
	}
	uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(nobody.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	dir := openFolder(t)
	binary := filepath.Join(dir, "starling.test")
	copyProgram(t, binary)
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(data, int(uid), int(gid)); err != nil {
		t.Fatal(err)
	}
	testDev(t, invocation{
		binary: binary, dir: data, env: []string{"HOME=" + data},
		as: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)},
	}, data)
}

// copyProgram copies the test's binary to where anybody can run it.
func copyProgram(t *testing.T, to string) {
	t.Helper()
	from, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
}

// A folder that is in use, and ports that are, are said to be.
func TestDevTwice(t *testing.T) {
	t.Parallel()
	needPostgres(t)
	data := filepath.Join(openFolder(t), "data")
	d := startDev(t, invocation{}, "--data", data)
	_, stderr, status := run(t, invocation{args: []string{"dev", "--any-ports", "--data", data}})
	if status != 1 || !strings.Contains(stderr, data) {
		t.Errorf("a second cluster on the same folder: status %d, %q", status, stderr)
	}
	if n := count(t, d.nodes[0]["IMAP"]); n != 3 {
		t.Errorf("the first cluster has %d messages afterwards", n)
	}
	d.end(syscall.SIGINT)
}

func TestDevBadFlags(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		want string
		args []string
	}{
		{"--nodes: is 10; want 1 to 9", []string{"--nodes", "10"}},
		{"--nodes: is 0", []string{"--nodes", "0"}},
		{"log.level", []string{"--log-level", "loud"}},
		{"--s3: ", []string{"--s3", "bucket"}},
	} {
		_, stderr, status := run(t, invocation{args: append([]string{"dev", "--data", filepath.Join(openFolder(t), "d")}, test.args...)})
		if status != 2 || !strings.Contains(stderr, test.want) {
			t.Errorf("%v: status %d, %q", test.args, status, stderr)
		}
	}
}

// PostgreSQL, NATS and S3 of one's own take the place of dev's.
func TestDevBringYourOwn(t *testing.T) {
	t.Parallel()
	bucket := s3test.New(t)
	broker, err := natsserver.Start(natsserver.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Shutdown)
	data := filepath.Join(openFolder(t), "data")
	flags := []string{
		"--data", data, "--postgres", metadatatest.DSN(t), "--nats", broker.URL(),
		"--s3", fmt.Sprintf("%s/%s", bucket.Endpoint, bucket.Bucket),
		"--s3-access-key", bucket.AccessKey, "--s3-secret-key", bucket.SecretKey,
	}
	d := startDev(t, invocation{}, flags...)
	c := login(t, d.nodes[0]["IMAP"], "alice@example.org", "starling", nil)
	appendMail(t, c, "INBOX", shortMail, nil)
	if n := count(t, d.nodes[1]["IMAP"]); n != 4 {
		t.Errorf("%d messages", n)
	}
	for _, part := range []string{"postgres", "blobs"} {
		if _, err := os.Stat(filepath.Join(data, part)); err == nil {
			t.Errorf("%s was made, though one was brought", part)
		}
	}
	d.end(syscall.SIGINT)
	d = startDev(t, invocation{}, flags...)
	if n := count(t, d.nodes[1]["IMAP"]); n != 4 {
		t.Errorf("%d messages after a restart", n)
	}
	d.end(syscall.SIGINT)
}
