package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"starling/blobstore/s3"
	"starling/blobstore/s3/s3test"
	"starling/events/nats/natsserver"
	"starling/frontend/auth"
	"starling/metadata"
	"starling/metadata/postgres"
)

const (
	domain   = "example.org"
	password = "starling"
	// startTime bounds the start of each part, on a busy machine.
	startTime = time.Minute
)

// starling is a cluster as in production.
type starling struct {
	dir, program string
	nodes        []*node
	postgres     *postgres.Server
	objects      *s3test.Server
	broker       *natsserver.Server
	closers      []func() error // in the order of opening
}

// node is a node of it.
type node struct {
	*process
	at map[string]string // where it listens, by what for: "IMAP", "IMAPS", "LMTP", "HTTP"
}

// startStarling starts a cluster of so many nodes with accounts user0 and so on.
func startStarling(ctx context.Context, program, dir string, nodes, accounts int) (*starling, error) {
	s := &starling{dir: dir, program: program}
	err := s.start(ctx, accounts)
	for i := 1; i <= nodes && err == nil; i++ {
		var n *node
		if n, err = s.startNode(ctx, i); err == nil {
			s.nodes = append(s.nodes, n)
			s.closers = append(s.closers, n.end)
		}
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *starling) start(ctx context.Context, accounts int) error {
	// All settings are PostgreSQL's own, so it syncs every commit.
	var err error
	if s.postgres, err = postgres.Start(ctx, postgres.Config{Dir: filepath.Join(s.dir, "postgres")}); err != nil {
		return err
	}
	s.closers = append(s.closers, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), endTime)
		defer cancel()
		return s.postgres.Stop(ctx)
	})
	if s.broker, err = natsserver.Start(natsserver.Config{Addr: "127.0.0.1:0"}); err != nil {
		return err
	}
	s.closers = append(s.closers, func() error { s.broker.Shutdown(); return nil })
	path, err := s3test.Build(ctx)
	if err != nil {
		return err
	}
	objects := filepath.Join(s.dir, "s3")
	if err := os.MkdirAll(objects, 0o700); err != nil {
		return err
	}
	if s.objects, err = s3test.Start(ctx, path, objects); err != nil {
		return err
	}
	s.closers = append(s.closers, s.objects.Stop)
	store, err := s3.New(s3.Config{Endpoint: s.objects.Endpoint, Bucket: "bench", AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey})
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.CreateBucket(ctx); err != nil {
		return err
	}
	return s.createAccounts(ctx, accounts)
}

func (s *starling) createAccounts(ctx context.Context, accounts int) error {
	if err := metadata.Migrate(ctx, s.postgres.DSN("postgres")); err != nil {
		return err
	}
	db, err := metadata.Open(ctx, metadata.Config{DSN: s.postgres.DSN("postgres")})
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.CreateTenant(ctx, "bench"); err != nil {
		return err
	}
	if _, err := db.CreateDomain(ctx, "bench", domain); err != nil {
		return err
	}
	hash, err := auth.Hash(password)
	if err != nil {
		return err
	}
	for i := range accounts {
		account := metadata.NewAccount{Name: fmt.Sprintf("user%d@%s", i, domain), PasswordHash: hash, Mailboxes: metadata.DefaultMailboxes()}
		if _, err := db.CreateAccount(ctx, account); err != nil {
			return err
		}
	}
	return nil
}

// startNode starts a node and waits until it is ready.
func (s *starling) startNode(ctx context.Context, no int) (*node, error) {
	cert, key, err := certificate(s.dir)
	if err != nil {
		return nil, err
	}
	kept := filepath.Join(s.dir, fmt.Sprintf("cache%d", no))
	env := []string{
		"STARLING_BLOBS_CACHE_DIR=" + kept, // as deploy/systemd has it
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"),
		fmt.Sprintf("STARLING_HOSTNAME=node%d.%s", no, domain),
		"STARLING_POSTGRES_DSN=" + s.postgres.DSN("postgres"),
		"STARLING_NATS_URLS=" + s.broker.URL(),
		"STARLING_BLOBS_S3_ENDPOINT=" + s.objects.Endpoint, "STARLING_BLOBS_S3_BUCKET=bench",
		"STARLING_BLOBS_S3_ACCESS_KEY=" + s3test.AccessKey, "STARLING_BLOBS_S3_SECRET_KEY=" + s3test.SecretKey,
		"STARLING_IMAP_LISTEN=127.0.0.1:0", "STARLING_IMAP_LISTEN_TLS=127.0.0.1:0", "STARLING_LMTP_LISTEN=127.0.0.1:0", "STARLING_ADMIN_LISTEN=127.0.0.1:0",
		"STARLING_TLS_CERT=" + cert, "STARLING_TLS_KEY=" + key, "STARLING_ADMIN_PPROF=true",
		// All clients come from one address, to a few accounts.
		"STARLING_IMAP_PLAINTEXT_LOGIN=true", "STARLING_IMAP_MAX_PER_ADDRESS=0", "STARLING_IMAP_MAX_PER_ACCOUNT=0",
	}
	p, err := start(fmt.Sprintf("node %d", no), env, s.program, "serve")
	if err != nil {
		return nil, err
	}
	n := &node{process: p}
	err = p.await(ctx, func(said string) bool {
		n.at = listening(said)
		return len(n.at) == 4
	})
	if err == nil {
		err = n.ready(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, p.end())
	}
	return n, nil
}

// listening is where a node listens, by its log.
func listening(said string) map[string]string {
	at := make(map[string]string)
	for line := range strings.Lines(said) {
		var entry struct{ Msg, For, Address string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "listening" {
			at[entry.For] = entry.Address
		}
	}
	return at
}

// ready waits until the node says that it is; there is no event to wait for.
func (n *node) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		_, err := n.get(ctx, "/readyz")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", n.name, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// get asks the node's admin listener.
func (n *node) get(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.at["HTTP"]+path, nil)
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, res.Status)
	}
	return string(text), err
}

// psql asks PostgreSQL.
func (s *starling) psql(ctx context.Context, query string) (string, error) {
	psql := filepath.Join(s.postgres.Installation().Bin, "psql")
	out, err := exec.CommandContext(ctx, psql, "-XAtq", "-d", s.postgres.DSN("postgres"), "-c", query).CombinedOutput() //nolint:gosec // found with the server
	if err != nil {
		return "", fmt.Errorf("psql: %w\n%s", err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// databaseSize is how large the database is once it is vacuumed, in octets.
func (s *starling) databaseSize(ctx context.Context) (int64, error) {
	if _, err := s.psql(ctx, "vacuum (analyze)"); err != nil {
		return 0, err
	}
	text, err := s.psql(ctx, "select pg_database_size(current_database())")
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(text, 10, 64)
}

// close ends everything, in the opposite order of its start.
func (s *starling) close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}
