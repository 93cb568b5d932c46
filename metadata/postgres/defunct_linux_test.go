package postgres

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A server that is gone keeps its data from another one for as long as processes that it started use its memory.
func TestDefunct(t *testing.T) {
	t.Parallel()
	s := start(t, Config{})
	content, err := os.ReadFile(filepath.Join(s.config.Dir, "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	gone := exec.CommandContext(t.Context(), "true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	lock := func(pid int, segment func(string) string) {
		t.Helper()
		lines := strings.Split(string(content), "\n")
		lines[0], lines[6] = strconv.Itoa(pid), segment(lines[6])
		if err := os.WriteFile(filepath.Join(dir, "postmaster.pid"), []byte(strings.Join(lines, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	same := func(s string) string { return s }
	if defunct(dir) {
		t.Error("without a lock file")
	}
	lock(gone.Process.Pid, same)
	if !defunct(dir) {
		t.Error("the memory is in use, and it says that nothing is left of the server")
	}
	lock(gone.Process.Pid, func(s string) string { return strings.Fields(s)[0] + " 2147483000" })
	if defunct(dir) {
		t.Error("nothing uses the memory, and it says that something is left of the server")
	}
	lock(os.Getpid(), same)
	if defunct(dir) {
		t.Error("the process runs, and it says that it was killed")
	}
}
