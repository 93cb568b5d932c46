package postgres

import (
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Origin is the server that a new standby copies and then follows, until Promote.
type Origin struct {
	// Host is an address or the directory of the Unix socket, Port is the port there.
	Host, Port string
	// Slot is the name of a replication slot that is made there, and has that server keep
	// what the standby has not had yet.
	Slot string
	// Name is what synchronous_standby_names knows the standby by.
	Name string
}

func (o *Origin) dsn() string {
	return fmt.Sprintf("host=%s port=%s user=%s", o.Host, o.Port, Superuser)
}

// settings are those by which a standby follows; a primary does not mind them.
func (o *Origin) settings() map[string]string {
	return map[string]string{"primary_conninfo": o.dsn() + " application_name=" + o.Name, "primary_slot_name": o.Slot}
}

// copy makes a data directory that is a standby's. The copying goes by a name of its own:
// what it has had is not safe yet.
func (o *Origin) copy(ctx context.Context, dir string, install Installation, who user) error {
	if err := runTool(ctx, install, who, "pg_basebackup", "--pgdata", dir, "--dbname", o.dsn(), "--checkpoint", "fast",
		"--wal-method", "stream", "--create-slot", "--slot", o.Slot, "--no-sync", "--no-manifest"); err != nil {
		return err
	}
	standby := filepath.Join(dir, "standby.signal")
	if err := os.WriteFile(standby, nil, 0o600); err != nil {
		return fmt.Errorf("mark a standby: %w", err)
	}
	return who.own(standby)
}

// Promote makes a standby a primary, and waits until it takes writes.
func (s *Server) Promote(ctx context.Context) error {
	who, err := chooseUser()
	if err != nil {
		return err
	}
	return runTool(ctx, s.install, who, "pg_ctl", "promote", "--wait", "--pgdata", s.config.Dir)
}

func runTool(ctx context.Context, install Installation, who user, name string, args ...string) error {
	tool := exec.CommandContext(ctx, filepath.Join(install.Bin, name), args...) //nolint:gosec // of the installation
	tool.Dir, tool.Env = "/", environment()
	who.become(tool)
	if out, err := tool.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// Exec has psql run SQL in the database postgres, and returns the rows of its last statement.
func (s *Server) Exec(ctx context.Context, sql string) ([][]string, error) {
	var said, complained bytes.Buffer
	psql := exec.CommandContext(ctx, filepath.Join(s.install.Bin, "psql"), //nolint:gosec // of the installation
		"--no-psqlrc", "--quiet", "--tuples-only", "--csv", "--set", "ON_ERROR_STOP=1", "--dbname", s.DSN("postgres"), "--file", "-")
	psql.Dir, psql.Env = "/", append(environment(), "HOME="+os.TempDir())
	psql.Stdin, psql.Stdout, psql.Stderr = bytes.NewBufferString(sql), &said, &complained
	if err := psql.Run(); err != nil {
		return nil, fmt.Errorf("psql: %w\n%s", err, complained.Bytes())
	}
	rows := csv.NewReader(&said)
	rows.FieldsPerRecord = -1
	return rows.ReadAll()
}
