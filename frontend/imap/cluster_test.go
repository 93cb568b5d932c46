package imap

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"starling/blobstore/memory"
	"starling/events"
	hub "starling/events/memory"
	"starling/frontend/auth"
	"starling/frontend/lmtp"
	"starling/frontend/mailstore"
	"starling/metadata"
	"starling/metadata/metadatatest"
)

// testPassword is the password of all accounts of a cluster.
const testPassword = "secret"

// clusterOptions is how the nodes of a cluster differ from the usual.
type clusterOptions struct {
	maxMessage int64 // 0: the default
	onlyTLS    bool  // no password without TLS
	forgetful  bool  // expunged mail can be collected at once
	traces     trace.TracerProvider
	parks      bool // sessions are parked as soon as they wait; so on all nodes but the first
}

// cluster is nodes on one database, one blob store and one bus, in this process
// and on loopback sockets, as long as a test runs.
type cluster struct {
	dsn   string
	db    *metadata.DB // the first node's
	nodes []*clusterNode
	roots *tls.Config // of clients
	logs  *observer.ObservedLogs
}

type clusterNode struct {
	store  *mailstore.Store
	bus    events.Bus
	server *Server
	imap   string // addresses
	imaps  string
	lmtp   string
}

// newCluster starts a cluster, whose IMAP servers are as tune has them. What its
// nodes log as an error fails the test.
func newCluster(t testing.TB, nodes int, options clusterOptions, tune ...func(*Config)) *cluster {
	t.Helper()
	dsn := metadatatest.DSN(t)
	serverTLS, clientTLS := testCertificate(t)
	c := &cluster{dsn: dsn, roots: clientTLS}
	blobs, bus := memory.New(), new(hub.Hub)
	observed, logs := observer.New(zapcore.InfoLevel)
	c.logs = logs
	for i := range nodes {
		options.parks = options.parks || i > 0
		db, err := metadata.Open(t.Context(), metadata.Config{DSN: dsn})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		if c.db == nil {
			c.db = db
		}
		end, err := bus.Open(events.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = end.Close() })
		log := zap.New(zapcore.NewTee(testLog(t).Core(), observed))
		retention := time.Duration(0)
		if options.forgetful {
			retention = -1
		}
		store, err := mailstore.New(context.WithoutCancel(t.Context()), mailstore.Config{
			DB: db, Blobs: blobs, Bus: end, Log: log, TempDir: t.TempDir(), MaxMessage: options.maxMessage, Traces: options.traces,
			Retention: retention, Collect: -1,
		})
		if err != nil {
			t.Fatal(err)
		}
		c.nodes = append(c.nodes, startNode(t, db, store, end, log, serverTLS, options, tune))
	}
	return c
}

func startNode(t testing.TB, db *metadata.DB, store *mailstore.Store, bus events.Bus, log *zap.Logger, serverTLS *tls.Config, options clusterOptions, tune []func(*Config)) *clusterNode {
	t.Helper()
	checker, err := auth.New(db, auth.Config{
		FailAfter: -1, Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	}, log)
	if err != nil {
		t.Fatal(err)
	}
	config := Config{
		Store: store, Auth: checker, Log: log, TLS: serverTLS, PlaintextLogin: !options.onlyTLS, Version: "test",
	}
	for _, f := range tune {
		f(&config)
	}
	n := &clusterNode{store: store, bus: bus, server: NewServer(config)}
	if options.parks {
		n.server.linger = 0
	}
	mail := lmtp.NewServer(lmtp.Config{Store: store, Log: log, Hostname: "mx.example.org", TempDir: t.TempDir()})

	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	var listeners []net.Listener
	serve := func(f func(net.Listener) error) string {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		running.Go(func() {
			if err := f(l); err != nil {
				t.Error(err)
			}
		})
		return l.Addr().String()
	}
	var followed sync.WaitGroup
	followed.Go(func() {
		if err := store.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	n.imap = serve(func(l net.Listener) error { return n.server.Serve(l, false) })
	n.imaps = serve(func(l net.Listener) error { return n.server.Serve(l, true) })
	n.lmtp = serve(mail.Serve)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
		defer cancel()
		if err := n.server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := mail.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		for _, l := range listeners {
			_ = l.Close() // usually closed: Shutdown may have come before Serve knew it
		}
		running.Wait()
		stop()
		followed.Wait()
	})
	return n
}

// account makes an account with testPassword and without a limit, unless limits says otherwise.
func (c *cluster) account(t testing.TB, name string, limits metadata.Quota) metadata.Account {
	t.Helper()
	return metadatatest.Account(t, c.db, name, func(n *metadata.NewAccount) {
		n.PasswordHash = "{PLAIN}" + testPassword
		n.Limits = limits
	})
}

// testLog is a log that fails the test when something is logged as an error.
func testLog(t testing.TB) *zap.Logger {
	config := zap.NewDevelopmentEncoderConfig()
	core := zapcore.NewCore(zapcore.NewConsoleEncoder(config), zapcore.AddSync(testWriter{t}), zapcore.WarnLevel)
	return zap.New(core, zap.Hooks(func(e zapcore.Entry) error {
		if e.Level >= zapcore.ErrorLevel {
			t.Errorf("logged as an error: %s", e.Message)
		}
		return nil
	}))
}

type testWriter struct{ testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// testCertificate makes a certificate for 127.0.0.1, and what a client needs to trust it.
func testCertificate(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12},
		&tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
}
