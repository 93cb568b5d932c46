package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func start(t *testing.T, c Config) *Server {
	t.Helper()
	if c.Dir == "" {
		parent, err := os.MkdirTemp("/tmp", "starling-launch-")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(parent, 0o755); err != nil { //nolint:gosec // the server's user passes through
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(parent) })
		c.Dir = filepath.Join(parent, "pg")
	}
	s, err := Start(t.Context(), c)
	if errors.Is(err, ErrNotInstalled) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.Stop(ctx); err != nil && !errors.Is(err, errExited) {
			t.Error(err)
		}
	})
	return s
}

func accepts(t *testing.T, s *Server) {
	t.Helper()
	conn, err := net.Dial("unix", s.Socket())
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestStartStopAgain(t *testing.T) {
	t.Parallel()
	s := start(t, Config{})
	accepts(t, s)
	if !strings.Contains(s.DSN("db"), "/db?") {
		t.Errorf("DSN %q does not name the database", s.DSN("db"))
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(s.Socket())); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's directory is still there: %v", err)
	}
	accepts(t, start(t, Config{Dir: s.config.Dir}))
}

func TestDisposableLeavesNothing(t *testing.T) {
	t.Parallel()
	s := start(t, Config{Disposable: true})
	accepts(t, s)
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.config.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data is still there: %v", err)
	}
}

func TestStartAfterKill(t *testing.T) {
	t.Parallel()
	s := start(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	lock, err := readLock(s.config.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(lock.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	cancel()
	if err := s.Stop(ctx); err == nil {
		t.Error("Stop did not say that the server had been killed")
	}
	accepts(t, start(t, Config{Dir: s.config.Dir}))
}

func TestRefusesDataOfAnotherVersion(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/tmp", "starling-launch-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "PG_VERSION"), []byte("9.6\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Start(t.Context(), Config{Dir: dir})
	if errors.Is(err, ErrNotInstalled) {
		t.Skip(err)
	}
	if err == nil || !strings.Contains(err.Error(), "9.6") {
		t.Errorf("got %v, want an error that names the version", err)
	}
}

// A process that ends without a word takes its server with it.
func TestEndsWithStarter(t *testing.T) {
	if dir := os.Getenv("STARLING_TEST_START"); dir != "" {
		s, err := Start(t.Context(), Config{Dir: dir, Disposable: true})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = os.Stdout.WriteString("socket " + s.Socket() + "\n")
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	t.Parallel()
	if _, err := Find(t.Context(), ""); err != nil {
		t.Skip(err)
	}
	dir := filepath.Join("/tmp", "starling-launch-"+filepath.Base(t.TempDir())+"-child")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), self, "-test.run=^TestEndsWithStarter$")
	child.Env = append(os.Environ(), "STARLING_TEST_START="+dir)
	out, err := child.Output()
	_, rest, found := strings.Cut(string(out), "socket ")
	if err == nil || !found {
		t.Fatalf("the child was to be killed after its start: %v, %s", err, out)
	}
	socket, _, _ := strings.Cut(rest, "\n")
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for deadline := time.Now().Add(20 * time.Second); ; {
		_, errSocket := os.Stat(socket)
		_, errDir := os.Stat(dir)
		if errors.Is(errSocket, os.ErrNotExist) && errors.Is(errDir, os.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the server outlived its starter")
		}
		time.Sleep(pollInterval) // another process: there is no event to wait for
	}
}

func TestParseVersion(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)": 15,
		"postgres (PostgreSQL) 17beta1":                        17,
		"postgres (EnterpriseDB)":                              0,
		"":                                                     0,
	} {
		if got, err := parseVersion(text); got != want || (err != nil) != (want == 0) {
			t.Errorf("parseVersion(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
}

// A standby has what its primary committed, takes no writes, and takes them once it is
// promoted, when the primary is gone; then it is a primary, after a restart too.
func TestStandby(t *testing.T) {
	t.Parallel()
	primary := start(t, Config{})
	exec := func(s *Server, sql, want string) {
		t.Helper()
		rows, err := s.Exec(t.Context(), sql)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(rows); got != want {
			t.Fatalf("%s: %s, want %s", sql, got, want)
		}
	}
	standby := start(t, Config{Origin: &Origin{Host: filepath.Dir(primary.Socket()), Port: "5432", Slot: "one", Name: "standby"}})
	exec(primary, "alter system set synchronous_standby_names = 'standby'", "[]")
	exec(primary, "select pg_reload_conf()", "[[t]]")
	for state := ""; state != "[[sync]]"; {
		if t.Context().Err() != nil {
			t.Fatal(state)
		}
		rows, err := primary.Exec(t.Context(), "select sync_state from pg_stat_replication")
		if err != nil {
			t.Fatal(err)
		}
		state = fmt.Sprint(rows)
	}
	exec(primary, "create table mail (n int); insert into mail values (1)", "[]")
	exec(standby, "select pg_is_in_recovery()", "[[t]]")
	if _, err := standby.Exec(t.Context(), "insert into mail values (2)"); err == nil {
		t.Error("a standby takes writes")
	}
	killed, cancel := context.WithCancel(t.Context())
	cancel()
	if err := primary.Stop(killed); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(standby, "insert into mail values (2)", "[]")
	if err := standby.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := start(t, standby.config)
	exec(again, "select pg_is_in_recovery(), sum(n) from mail", "[[f 3]]")
}
