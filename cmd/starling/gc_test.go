package main_test

import (
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
		{0, " accepted\n", []string{"--accept-epoch"}},
		{2, "unknown command", []string{"now"}},
	} {
		if got := gc(test.status, test.args...); !strings.Contains(got, test.want) {
			t.Errorf("gc %v says %q, want %q", test.args, got, test.want)
		}
	}
	// A restored database is not trusted with orphans until an operator says so.
	db := s.open()
	if _, err := db.BumpEpoch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := gc(0); !strings.Contains(got, "--accept-epoch") {
		t.Errorf("gc after a restore says %q", got)
	}
	if got := gc(0, "--accept-epoch"); !strings.Contains(got, "Nothing is due.\n") {
		t.Errorf("gc of an accepted epoch says %q", got)
	}
}
