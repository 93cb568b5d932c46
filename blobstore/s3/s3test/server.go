//go:build unix

package s3test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"starling/blobstore/s3"
)

// The keys of the servers that Start starts. They are listening on loopback only.
const (
	AccessKey = "starling"
	SecretKey = "starling-on-loopback"
)

// startTimeout is how long a server may take until it answers.
const startTimeout = 30 * time.Second

// Server is a running S3 server.
type Server struct {
	// Endpoint is its URL, "http://127.0.0.1:…".
	Endpoint string

	kill context.CancelFunc
	done chan struct{}
	out  bytes.Buffer // read only after done is closed
	err  error        // why it ended; set before done is closed
}

// New returns the settings of a store in a bucket of its own, on a server that is stopped when the test ends.
func New(tb testing.TB) s3.Config {
	tb.Helper()
	conf := s3.Config{Bucket: "starling-" + strings.ToLower(rand.Text()), RetryDelay: time.Millisecond}
	if endpoint := os.Getenv("STARLING_TEST_S3"); endpoint != "" {
		conf.Endpoint, conf.Region = endpoint, os.Getenv("AWS_REGION")
	} else {
		server := start(tb)
		conf.Endpoint, conf.AccessKey, conf.SecretKey = server.Endpoint, AccessKey, SecretKey
	}
	store, err := s3.New(conf)
	if err != nil {
		tb.Fatal(err)
	}
	defer store.Close()
	if err := store.CreateBucket(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return conf
}

func start(tb testing.TB) *Server {
	tb.Helper()
	program, err := Build(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	server, err := Start(tb.Context(), program, tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := server.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return server
}

// Start starts the program, with its data in dir, on a free port of 127.0.0.1, and returns once it answers. ctx bounds the
// start only; the server runs until Stop, or until this process ends where the system can see to that.
func Start(ctx context.Context, program, dir string) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var errs error
	for range 3 { // a port that was free may be taken before the server has it
		s, err := startOnce(ctx, program, dir)
		if err == nil {
			return s, nil
		}
		errs = errors.Join(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("start S3 server: %w", errs)
}

func startOnce(ctx context.Context, program, dir string) (*Server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	data, meta, versions := filepath.Join(dir, "data"), filepath.Join(dir, "meta"), filepath.Join(dir, "versions")
	for _, d := range []string{data, meta, versions} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	run, kill := context.WithCancel(context.WithoutCancel(ctx))
	s := &Server{Endpoint: "http://" + addr, kill: kill, done: make(chan struct{})}
	// A bucket keeps versions only if it is told to. No other process serves the folder, from whose conditional PUTs, of which we
	// send none, a file to be locked would keep each of ours.
	args := []string{
		"--port", addr, "--access", AccessKey, "--secret", SecretKey, "--keep-alive", "--quiet",
		"posix", "--versioning-dir", versions, "--disable-object-lock-file",
	}
	if !hasAttributes(data) { // then they are files in a sidecar, which cost as much again as all else of a PUT
		args = append(args, "--sidecar", meta)
	}
	cmd := exec.CommandContext(run, program, append(args, data)...)
	cmd.Stdout, cmd.Stderr = &s.out, &s.out
	cmd.SysProcAttr = processAttr()
	go s.run(cmd)
	if err := s.awaitAnswer(ctx, addr); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func (s *Server) run(cmd *exec.Cmd) {
	// Where a child dies with its parent, the parent is the thread that started it, which must stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(s.done)
	s.err = cmd.Run()
}

// awaitAnswer returns once the port accepts connections, or the server has ended.
func (s *Server) awaitAnswer(ctx context.Context, addr string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case <-s.done:
			return fmt.Errorf("%w: %s", cmp.Or(s.err, errors.New("it ended")), s.out.String())
		case <-ctx.Done():
			return fmt.Errorf("no answer on %s: %w", addr, ctx.Err())
		}
	}
}

// Stop kills the server and waits for its end. It is an error if it had ended before.
func (s *Server) Stop() error {
	select {
	case <-s.done:
		return fmt.Errorf("S3 server at %s ended by itself: %w\n%s", s.Endpoint, cmp.Or(s.err, errors.New("status 0")), s.out.String())
	default:
	}
	s.kill()
	<-s.done
	return nil
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
