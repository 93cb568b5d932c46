package postgres

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Superuser is the name of the one role that a new cluster has.
const Superuser = "starling"

// Config says which server to run.
type Config struct {
	// Dir is the data directory. It is made, with a new cluster in it, if it is
	// not there. It and all directories above it must be open to the user that
	// the server runs as; the home of root is not.
	Dir string
	// Bin is the directory of the programs; empty: Find's choice.
	Bin string
	// Port is a port on 127.0.0.1 to listen on, or 0 for the Unix socket only.
	Port int
	// Settings are settings of postgresql.conf that override the cluster's own.
	Settings map[string]string
	// Disposable marks a cluster whose data need not survive anything: nothing is
	// flushed to disk, and Dir is removed when the server stops.
	Disposable bool
	// Origin is what a new cluster is made a standby of; nil: it is a primary. A cluster that is
	// there stays what it is.
	Origin *Origin
	// StartTimeout bounds initdb and the recovery after a crash; 0: a minute.
	StartTimeout time.Duration
}

// Server is a running server.
type Server struct {
	config  Config
	install Installation
	sockets string
	command *exec.Cmd
	lease   io.Closer
	done    chan struct{}
	err     error // of the process; read after done
}

// errExited says that the server ended while it was to start; the log says why.
var errExited = errors.New("the server ended")

// Start makes the cluster if need be, starts the server and waits until it
// accepts connections. The server runs until Stop, or until this process ends.
func Start(ctx context.Context, c Config) (*Server, error) {
	if c.StartTimeout == 0 {
		c.StartTimeout = time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, c.StartTimeout)
	defer cancel()
	install, err := Find(ctx, c.Bin)
	if err != nil {
		return nil, err
	}
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return nil, fmt.Errorf("find the data directory: %w", err)
	}
	who, err := chooseUser()
	if err != nil {
		return nil, err
	}
	if err := prepare(ctx, c, install, who); err != nil {
		return nil, err
	}
	for again := true; ; {
		s, err := launch(c, install, who)
		if err != nil {
			return nil, err
		}
		if err = s.ready(ctx); err == nil {
			return s, nil
		}
		err = fmt.Errorf("start PostgreSQL in %s: %w\n%s", c.Dir, err, s.logTail())
		if stopErr := s.Stop(context.WithoutCancel(ctx)); stopErr != nil && !errors.Is(stopErr, errExited) {
			return nil, errors.Join(err, stopErr)
		}
		// The former server may have been killed, and not all of it be gone yet; or it
		// went between the failure and this look, which is worth one more try.
		left := defunct(c.Dir)
		if !left && !again || ctx.Err() != nil {
			return nil, err
		}
		again = left
		select {
		case <-ctx.Done():
		case <-time.After(pollInterval):
		}
	}
}

// prepare makes the data directory and the cluster.
func prepare(ctx context.Context, c Config, install Installation, who user) error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	if err := who.own(c.Dir); err != nil {
		return err
	}
	if err := who.reaches(c.Dir); err != nil {
		return err
	}
	if version, err := os.ReadFile(filepath.Join(c.Dir, "PG_VERSION")); err == nil {
		if have := strings.TrimSpace(string(version)); have != strconv.Itoa(install.Major) {
			return fmt.Errorf("the data in %s is of PostgreSQL %s, the programs in %s are of %d: use those of %s, or another directory",
				c.Dir, have, install.Bin, install.Major, have)
		}
		return nil
	}
	if c.Origin != nil {
		return c.Origin.copy(ctx, c.Dir, install, who)
	}
	args := []string{"--pgdata", c.Dir, "--username", Superuser, "--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-instructions"}
	if c.Disposable {
		args = append(args, "--no-sync")
	}
	initdb := exec.CommandContext(ctx, filepath.Join(install.Bin, "initdb"), args...) //nolint:gosec // found above
	initdb.Dir = "/"
	initdb.Env = environment()
	who.become(initdb)
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("make a cluster in %s: %w\n%s", c.Dir, err, out)
	}
	return nil
}

// environment keeps the settings of other programs of PostgreSQL away.
func environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
}

// supervise runs "$@", shuts it down fast when standard input closes, and then
// removes $remove and $sockets if they are named.
const supervise = `
remove=$1 sockets=$2; shift 2
exec 3<&0
"$@" </dev/null 3<&- & server=$!
{ read -r _ <&3; kill -INT $server 2>/dev/null; } & watch=$!
exec 3<&-
wait $server; status=$?
kill $watch 2>/dev/null
[ -n "$remove" ] && rm -rf "$remove"
rm -rf "$sockets"
exit $status
`

func launch(c Config, install Installation, who user) (*Server, error) {
	sockets, err := os.MkdirTemp("/tmp", "starling-pg-") // a socket's path has 107 bytes at most, TMPDIR may be longer
	if err != nil {
		return nil, fmt.Errorf("make a directory for the socket: %w", err)
	}
	if err := who.own(sockets); err != nil {
		return nil, err
	}
	remove := ""
	if c.Disposable {
		remove = c.Dir
	}
	args := []string{"-c", supervise, "sh", remove, sockets, filepath.Join(install.Bin, "postgres"), "-D", c.Dir}
	for _, setting := range c.settings(sockets) {
		args = append(args, "-c", setting)
	}
	s := &Server{config: c, install: install, sockets: sockets, done: make(chan struct{})}
	s.command = exec.Command("sh", args...) //nolint:gosec,noctx // ends by Stop
	s.command.Dir = "/"
	s.command.Env = environment()
	who.become(s.command)
	stdin, err := s.command.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe to PostgreSQL: %w", err)
	}
	s.lease = stdin
	log, err := os.OpenFile(s.logName(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open PostgreSQL's log: %w", err)
	}
	defer log.Close()
	if err := who.own(s.logName()); err != nil { // a standby is made by a copy of all that is there
		return nil, err
	}
	// Never our own output: a reader of it would wait for the server's end.
	s.command.Stdout, s.command.Stderr = log, log
	if err := s.command.Start(); err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	go func() {
		defer close(s.done)
		s.err = s.command.Wait()
		// The shell may have been killed, or may only remove what is in the directories.
		s.err = errors.Join(s.err, os.RemoveAll(sockets))
		if c.Disposable {
			s.err = errors.Join(s.err, os.RemoveAll(c.Dir))
		}
	}()
	return s, nil
}

func (c Config) settings(sockets string) []string {
	settings := map[string]string{
		"unix_socket_directories": sockets,
		"unix_socket_permissions": "0700",
		"listen_addresses":        "",
		"logging_collector":       "off",
		"log_destination":         "stderr",
	}
	if os.Geteuid() == 0 {
		settings["unix_socket_permissions"] = "0777" // the directory is closed to all but root and the server
	}
	if c.Port != 0 {
		settings["listen_addresses"] = "127.0.0.1"
		settings["port"] = strconv.Itoa(c.Port)
	}
	if c.Disposable {
		for _, name := range []string{"fsync", "full_page_writes", "synchronous_commit"} {
			settings[name] = "off"
		}
	}
	if c.Origin != nil {
		maps.Copy(settings, c.Origin.settings())
	}
	for name, value := range c.Settings {
		settings[name] = value
	}
	list := make([]string, 0, len(settings))
	for name, value := range settings {
		list = append(list, name+"="+value)
	}
	sort.Strings(list)
	return list
}

const pollInterval = 10 * time.Millisecond

// ready waits until the server says in its lock file that it takes
// connections, as pg_ctl does.
func (s *Server) ready(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.done:
			return errExited
		case <-tick.C:
			lock, err := readLock(s.config.Dir)
			if err == nil && lock.ready && lock.sockets == s.sockets {
				return nil
			}
		}
	}
}

// lockFile is what postmaster.pid says.
type lockFile struct {
	pid     int
	sockets string
	shm     string // the id of the shared memory segment
	ready   bool
}

func readLock(dir string) (lockFile, error) {
	content, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return lockFile{}, err
	}
	var lines []string
	for scan := bufio.NewScanner(bytes.NewReader(content)); scan.Scan(); {
		lines = append(lines, strings.TrimSpace(scan.Text()))
	}
	if len(lines) < 8 {
		return lockFile{}, fmt.Errorf("%s has %d lines", "postmaster.pid", len(lines))
	}
	lock := lockFile{sockets: lines[4], ready: lines[7] == "ready"}
	if fields := strings.Fields(lines[6]); len(fields) == 2 {
		lock.shm = fields[1]
	}
	lock.pid, err = strconv.Atoi(strings.TrimPrefix(lines[0], "-"))
	return lock, err
}

// DSN is how to connect to a database of the server through its socket.
func (s *Server) DSN(database string) string {
	query := url.Values{"host": {s.sockets}, "user": {Superuser}}
	if s.config.Port != 0 {
		query.Set("port", strconv.Itoa(s.config.Port))
	}
	return "postgres:///" + url.PathEscape(database) + "?" + query.Encode()
}

// Socket is the path of the Unix socket.
func (s *Server) Socket() string {
	port := s.config.Port
	if port == 0 {
		port = 5432
	}
	return filepath.Join(s.sockets, ".s.PGSQL."+strconv.Itoa(port))
}

// Installation is what the server runs on.
func (s *Server) Installation() Installation { return s.install }

// Done is closed when the server has ended, by Stop or by itself.
func (s *Server) Done() <-chan struct{} { return s.done }

// Stop ends all connections, writes what is to be written and waits for the
// server's end. When ctx ends first the server is killed, and recovers at its
// next start. It may be called again.
func (s *Server) Stop(ctx context.Context) error {
	if err := s.lease.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	select {
	case <-s.done:
	case <-ctx.Done():
		if err := killGroup(s.command.Process.Pid); err != nil {
			return fmt.Errorf("kill PostgreSQL: %w", err)
		}
		<-s.done
		return ctx.Err()
	}
	if s.err != nil {
		return fmt.Errorf("%w: %w", errExited, s.err)
	}
	return nil
}

// logName is beside the data, so that it goes with it.
func (s *Server) logName() string { return filepath.Join(s.config.Dir, "starling.log") }

func (s *Server) logTail() string {
	log, err := os.ReadFile(s.logName())
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-2000):])
}
