package metadata_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"starling/metadata"
	"starling/metadata/postgres"
)

// TestCrash kills PostgreSQL while several connections append and starts it
// again: what was acknowledged is there, once; what was refused is not.
func TestCrash(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	port := listener.Addr().(*net.TCPAddr).Port
	check(t, listener.Close())
	config := postgres.Config{Dir: filepath.Join(serverFolder(t), "pg"), Port: port}
	server := startServer(t, config)
	dsn := fmt.Sprintf("postgres://%s@127.0.0.1:%d/postgres?sslmode=disable", postgres.Superuser, port)
	check(t, metadata.Migrate(t.Context(), dsn))
	db, err := metadata.Open(t.Context(), metadata.Config{
		DSN: dsn, ResolveTimeout: 30 * time.Second, MinBackoff: 5 * time.Millisecond, MaxBackoff: 50 * time.Millisecond,
	})
	check(t, err)
	defer db.Close()
	n := inboxOf(t, db)

	var mu sync.Mutex
	fate := map[int64]error{} // by email id
	var acknowledged atomic.Int64
	var writing sync.WaitGroup
	stop, progress := make(chan struct{}), make(chan struct{}, 1)
	for range 4 {
		mine := n
		writing.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c := mine.appending(1)
				done, err := db.Commit(t.Context(), c)
				mu.Lock()
				fate[c.Changes[0].Insert[0].EmailID] = err
				mu.Unlock()
				if err == nil && done.Stamps[0] != 0 {
					acknowledged.Add(1)
					select {
					case progress <- struct{}{}:
					default:
					}
				}
				if l, err := db.Load(t.Context(), n.box.Account, n.box.ID, mine.box.Version); err == nil {
					mine = apply(mine, l)
				}
			}
		})
	}
	reach := func(count int64) {
		t.Helper()
		for timeout := time.After(60 * time.Second); acknowledged.Load() < count; {
			select {
			case <-progress:
			case <-timeout:
				t.Fatalf("%d appends acknowledged, want %d", acknowledged.Load(), count)
			}
		}
	}
	for range 3 {
		reach(acknowledged.Load() + 30)
		kill(t, config.Dir)
		<-server.Done()
		server = startServer(t, config)
	}
	reach(acknowledged.Load() + 30)
	close(stop)
	writing.Wait()

	there := map[int64]int{}
	for _, m := range messages(t, db, n.box) {
		there[m.EmailID]++
	}
	doubts := 0
	for id, err := range fate {
		switch {
		case errors.Is(err, metadata.ErrInDoubt):
			doubts++
		case err == nil && there[id] != 1:
			t.Errorf("an acknowledged message is there %d times", there[id])
		case err != nil && there[id] != 0:
			t.Errorf("a message that was refused with %v is there", err)
		}
	}
	sound(t, db, load(t, db, n.box))
	t.Logf("%d acknowledged of %d tried, %d in doubt", acknowledged.Load(), len(fate), doubts)
}

// serverFolder is a folder for the data of servers, of which nothing is left after the test.
func serverFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "starling-server-") // TMPDIR may be where the server's user does not get
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	check(t, os.Chmod(dir, 0o755)) //nolint:gosec // the server's user passes through
	return dir
}

// startServer starts a server that ends with the test, if it was not killed before.
func startServer(t *testing.T, config postgres.Config) *postgres.Server {
	t.Helper()
	server, err := postgres.Start(t.Context(), config)
	if errors.Is(err, postgres.ErrNotInstalled) {
		t.Skip(err)
	}
	check(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = server.Stop(ctx) // it may have been killed
	})
	return server
}

// kill ends the server without a chance to write anything down.
func kill(t *testing.T, dir string) {
	t.Helper()
	lock, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	check(t, err)
	line, _, _ := strings.Cut(string(lock), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	check(t, err)
	check(t, syscall.Kill(pid, syscall.SIGKILL))
}
