// Package metadatatest gives each test a migrated database of its own.
//
// The server is one that the environment names in STARLING_TEST_DSN (its role
// must be allowed to create databases), or else an installed PostgreSQL that is
// started at the first use and ends with the process of the tests. Without
// either the test is skipped.
package metadatatest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"starling/metadata"
	"starling/metadata/postgres"

	"github.com/jackc/pgx/v5"
)

// Open returns a new, migrated database, which is closed and removed after the
// test. Options may change how it is opened.
func Open(t testing.TB, options ...func(*metadata.Config)) *metadata.DB {
	t.Helper()
	c := metadata.Config{DSN: DSN(t)}
	for _, option := range options {
		option(&c)
	}
	db, err := metadata.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// DSN returns how to connect to a new, migrated database, which is removed
// after the test.
func DSN(t testing.TB) string {
	t.Helper()
	s := shared()
	if errors.Is(s.err, postgres.ErrNotInstalled) {
		t.Skip(s.err)
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	name := "starling_" + strings.ToLower(rand.Text())
	if err := s.run(t.Context(), "create database "+name+" template "+s.template); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.run(context.WithoutCancel(t.Context()), "drop database "+name+" with (force)"); err != nil {
			t.Error(err)
		}
	})
	return s.dsn(name)
}

type server struct {
	admin    string // DSN
	template string
	err      error
	mu       sync.Mutex // creating databases from one template excludes each other
}

var shared = sync.OnceValue(func() *server {
	s := &server{admin: os.Getenv("STARLING_TEST_DSN"), template: "starling_template_" + strings.ToLower(rand.Text())}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if s.admin == "" {
		var running *postgres.Server
		running, s.err = postgres.Start(ctx, postgres.Config{
			Dir:        filepath.Join(dir(), "starling-test-"+strings.ToLower(rand.Text())),
			Disposable: true,
			Settings:   map[string]string{"max_connections": "300", "shared_buffers": "64MB", "max_wal_size": "4GB", "checkpoint_timeout": "1h"},
		})
		if s.err != nil {
			return s
		}
		s.admin = running.DSN("postgres")
	}
	if s.err = s.run(ctx, "create database "+s.template); s.err == nil {
		s.err = metadata.Migrate(ctx, s.dsn(s.template))
	}
	return s
})

func (s *server) run(ctx context.Context, sql string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	conn, err := pgx.Connect(ctx, s.admin)
	if err != nil {
		return fmt.Errorf("connect to the test server: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// dsn is the admin's with another database.
func (s *server) dsn(database string) string {
	if scheme, rest, found := strings.Cut(s.admin, "://"); found {
		authority, _, _ := strings.Cut(rest, "/")
		_, query, _ := strings.Cut(rest, "?")
		authority, _, _ = strings.Cut(authority, "?")
		return scheme + "://" + authority + "/" + database + "?" + query
	}
	return s.admin + " dbname=" + database
}

// Account makes a tenant, a domain and an account of that name, with no limit
// and no mailbox but INBOX, unless options say otherwise.
func Account(t testing.TB, db *metadata.DB, name string, options ...func(*metadata.NewAccount)) metadata.Account {
	t.Helper()
	ctx := t.Context()
	domain := name[strings.LastIndexByte(name, '@')+1:]
	if _, err := db.CreateTenant(ctx, domain); err != nil && !errors.Is(err, metadata.ErrExists) {
		t.Fatal(err)
	}
	if _, err := db.CreateDomain(ctx, domain, domain); err != nil && !errors.Is(err, metadata.ErrExists) {
		t.Fatal(err)
	}
	n := metadata.NewAccount{Name: name}
	for _, option := range options {
		option(&n)
	}
	a, err := db.CreateAccount(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
