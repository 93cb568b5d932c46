package main_test

import (
	"net"
	"strings"
	"testing"
)

func TestGC(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.good("", "tenant", "add", "acme")
	s.good("", "domain", "add", "example.org", "--tenant", "acme")
	s.good("secret\n", "account", "add", "alice@example.org")
	gc := func(status int, args ...string) string {
		t.Helper()
		stdout, stderr, got := run(t, invocation{
			args: append([]string{"gc"}, args...),
			env:  []string{"STARLING_POSTGRES_DSN=" + s.dsn, "STARLING_BLOBS_DISK=" + t.TempDir()},
		})
		if got != status {
			t.Errorf("gc %v: status %d, want %d\n%s%s", args, got, status, stdout, stderr)
		}
		return stdout + stderr
	}
	for _, test := range []struct {
		status int
		want   string
		args   []string
	}{
		{0, "Nothing is due.\n", nil},
		{0, "1 accounts looked through for orphans\n", []string{"--account", "Alice@example.org"}},
		{1, "not found", []string{"--account", "bob@example.org"}},
		{2, "unknown command", []string{"now"}},
	} {
		if got := gc(test.status, test.args...); !strings.Contains(got, test.want) {
			t.Errorf("gc %v says %q, want %q", test.args, got, test.want)
		}
	}
	// In a restored database nothing is collected until an operator says so.
	s.says("epoch 16777216 (timeline 1, generation 0), accepted\n", "", "epoch")
	s.bad(2, "--yes", "", "epoch", "bump")
	s.says("epoch 16777217 began; nothing is collected until starling epoch accept\n", "", "epoch", "bump", "--yes")
	s.says("epoch 16777217 (timeline 1, generation 1), not accepted: nothing is collected until starling epoch accept\n", "", "epoch")
	if got := gc(0); !strings.Contains(got, "starling epoch") || strings.Contains(got, "Nothing is due") {
		t.Errorf("gc after a restore says %q", got)
	}
	s.bad(2, "--yes", "", "epoch", "accept")
	s.says("epoch 16777217 accepted\n", "", "epoch", "accept", "--yes")
	s.good("", "epoch", "accept", "--yes") // nothing new
	if got := gc(0); !strings.Contains(got, "Nothing is due.\n") {
		t.Errorf("gc of an accepted epoch says %q", got)
	}
}

// An object storage that takes connections and never answers holds up nobody for long who does not need it.
func TestStorageHangsAtTheStart(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.good("", "migrate")
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	stdout, stderr, status := run(t, invocation{args: []string{"gc", "--dry-run"}, env: []string{
		"STARLING_POSTGRES_DSN=" + s.dsn, "STARLING_BLOBS_S3_ENDPOINT=http://" + silent.Addr().String(), "STARLING_BLOBS_S3_BUCKET=mail",
		"STARLING_BLOBS_S3_ACCESS_KEY=a", "STARLING_BLOBS_S3_SECRET_KEY=b",
	}})
	if status != 0 || stdout != "Nothing is due.\n" || !strings.Contains(stderr, "S3 cannot be reached") {
		t.Errorf("status %d\n%s%s", status, stdout, stderr)
	}
}
