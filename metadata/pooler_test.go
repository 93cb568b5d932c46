package metadata_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"starling/metadata"
	"starling/metadata/metadatatest"

	"github.com/jackc/pgx/v5"
)

// TestPooler runs the race through PgBouncer in transaction mode, where eight
// clients share two connections to the server.
func TestPooler(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"cache_describe", "exec"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dsn := metadatatest.DSN(t)
			check(t, metadata.Migrate(t.Context(), dsn)) // the role's settings, which connections of the pooler have
			db, err := metadata.Open(t.Context(), metadata.Config{DSN: pooler(t, dsn), QueryMode: mode, MaxConns: 10})
			check(t, err)
			defer db.Close()
			var timeout string
			check(t, db.Pool().QueryRow(t.Context(), "select current_setting('lock_timeout')").Scan(&timeout))
			if timeout != "3s" {
				t.Errorf("the lock timeout is %q", timeout)
			}
			runRace(t, db, 8)
			n := inboxOf(t, db, func(a *metadata.NewAccount) { a.Name = "pulse@example.org" })
			for range 3 {
				pulses, err := db.Pulses(t.Context(), []metadata.BoxRef{ref(n), {Account: 1, Mailbox: 1}})
				check(t, err)
				if len(pulses) != 2 || pulses[0].Version != n.box.Version || !pulses[1].Dropped {
					t.Errorf("the versions are %+v, want %+v and none", pulses, n.box.Version)
				}
				found := 0
				check(t, db.MailboxesByName(t.Context(), []metadata.NameRef{{Account: 1, Name: "INBOX"}, {Account: n.box.Account, Name: "INBOX"}}, func(i int, m *metadata.Mailbox) {
					if found++; i != 1 || m.Version != n.box.Version {
						t.Errorf("name %d is mailbox %+v", i, m)
					}
				}))
				if found != 1 {
					t.Errorf("found %d mailboxes", found)
				}
			}
		})
	}
}

// pooler starts a PgBouncer in front of a database and returns how to reach it.
func pooler(t *testing.T, dsn string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer"
	}
	if _, err := os.Stat(program); err != nil {
		t.Skip("PgBouncer is not installed")
	}
	server, err := pgx.ParseConfig(dsn)
	check(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	port := listener.Addr().(*net.TCPAddr).Port
	check(t, listener.Close())
	dir, err := os.MkdirTemp("/tmp", "starling-pooler-")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	config := filepath.Join(dir, "pgbouncer.ini")
	check(t, os.WriteFile(config, fmt.Appendf(nil, `[databases]
pooled = host=%s port=%d dbname=%s user=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
max_client_conn = 100
`, server.Host, server.Port, server.Database, server.User, port), 0o644)) //nolint:gosec // no secret in it
	command := exec.CommandContext(t.Context(), program, config)
	if os.Geteuid() == 0 { // it refuses root; the owner of the server's socket may use it
		socket, err := os.Stat(filepath.Join(server.Host, ".s.PGSQL."+strconv.Itoa(int(server.Port))))
		check(t, err)
		owner := socket.Sys().(*syscall.Stat_t)
		check(t, os.Chmod(dir, 0o755)) //nolint:gosec // the same
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
	}
	check(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	address := fmt.Sprintf("127.0.0.1:%d", port)
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			check(t, conn.Close())
			return fmt.Sprintf("postgres://%s@%s/pooled?sslmode=disable", server.User, address)
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
