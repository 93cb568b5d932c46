package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"starling/blobstore"
	"starling/blobstore/disk"
	"starling/blobstore/s3"
	"starling/events"
	"starling/events/nats"
	"starling/frontend/auth"
	"starling/frontend/imap"
	"starling/frontend/lmtp"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// node is a frontend: what it is made of, in the order in which it is stopped.
type node struct {
	cfg Config
	log *zap.Logger

	imap      *imap.Server
	lmtp      *lmtp.Server
	listeners []listener
	store     *mailstore.Store
	bus       *events.Node
	db        *metadata.DB
	closers   []func()
}

// listener is a socket and who answers there.
type listener struct {
	net.Listener
	what  string
	serve func(net.Listener) error
}

// closeOnce is a listener that servers and the node may close, in any order.
type closeOnce struct {
	net.Listener
	once sync.Once
	err  error
}

// Close closes the listener, and says the same when it is called again.
func (l *closeOnce) Close() error {
	l.once.Do(func() { l.err = l.Listener.Close() })
	return l.err
}

// newNode builds a node and opens its listeners. If anything of it cannot be
// had, nothing is left open.
func newNode(ctx context.Context, cfg Config, log *zap.Logger) (*node, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	n := &node{cfg: cfg, log: log}
	if err := n.open(ctx); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func (n *node) open(ctx context.Context) error {
	if n.cfg.Hostname == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("hostname: %w", err)
		}
		n.cfg.Hostname = name
	}
	if err := n.openStores(ctx); err != nil {
		return err
	}
	if err := n.openFrontends(); err != nil {
		return err
	}
	return n.listen(ctx)
}

// openStores opens the three systems that everything is kept in.
func (n *node) openStores(ctx context.Context) error {
	db, err := openDB(ctx, n.cfg.Postgres)
	if err != nil {
		return err
	}
	n.db = db
	n.closers = append(n.closers, db.Close)
	blobs, err := openBlobs(ctx, n.cfg.Blobs, n.log)
	if err != nil {
		return err
	}
	if n.bus, err = nats.Open(n.cfg.NATS.config(n.log)); err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	n.store, err = mailstore.New(context.WithoutCancel(ctx), mailstore.Config{
		DB: db, Blobs: blobs, Bus: n.bus, Log: n.log,
		TempDir: n.cfg.Mail.TempDir, MaxMessage: n.cfg.Mail.MaxMessage,
		Sweep: n.cfg.Mail.Sweep, OrphanGrace: n.cfg.Mail.OrphanGrace, Retention: n.cfg.Mail.Retention,
		BackupWindow: n.cfg.Mail.BackupWindow, Collect: n.cfg.Mail.Collect,
	})
	return err
}

// warn logs what in PostgreSQL's settings does not go with what is promised.
func (n *node) warn(ctx context.Context) error {
	warnings, err := n.db.Warnings(ctx)
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	for _, w := range warnings {
		n.log.Warn("PostgreSQL may lose acknowledged mail", zap.String("reason", w))
	}
	return nil
}

func openDB(ctx context.Context, cfg PostgresConfig) (*metadata.DB, error) {
	dsn, err := cfg.dsn()
	if err != nil {
		return nil, usageError{err}
	}
	db, err := metadata.Open(ctx, metadata.Config{DSN: dsn, MaxConns: cfg.MaxConns, QueryMode: cfg.QueryMode})
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	if err := db.CheckSchema(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("postgres: %w", err)
	}
	return db, nil
}

func openBlobs(ctx context.Context, cfg BlobsConfig, log *zap.Logger) (blobstore.Store, error) {
	if cfg.Disk != "" {
		store, err := disk.Open(cfg.Disk)
		if err != nil {
			return nil, fmt.Errorf("blobs.disk: %w", err)
		}
		return store, nil
	}
	store, err := s3.New(cfg.S3.config())
	if err != nil {
		return nil, usageError{fmt.Errorf("blobs.s3: %w", err)}
	}
	// A node can serve without bodies, so that S3 being away is no reason not to start.
	if err := store.CheckBucket(ctx); errors.Is(err, blobstore.ErrUnavailable) {
		log.Warn("S3 cannot be reached", zap.Error(err))
	} else if err != nil {
		return nil, fmt.Errorf("blobs.s3: %w", err)
	}
	return store, nil
}

func (c S3Config) config() s3.Config {
	return s3.Config{
		Endpoint: c.Endpoint, Region: c.Region, Bucket: c.Bucket, Prefix: c.Prefix,
		Addressing: c.Addressing, CAFile: c.CAFile, AccessKey: c.AccessKey, SecretKey: c.SecretKey,
		AccessKeyFile: c.AccessKeyFile, SecretKeyFile: c.SecretKeyFile,
	}
}

func (c NATSConfig) config(log *zap.Logger) nats.Config {
	return nats.Config{
		URLs: c.URLs, Prefix: c.Prefix, Name: "starling", Credentials: c.Credentials, Nkey: c.Nkey,
		User: c.User, Password: c.Password, Token: c.Token, CA: c.CA, Cert: c.Cert, Key: c.Key,
		Options: events.Options{Log: log},
	}
}

// openFrontends builds the servers of the protocols.
func (n *node) openFrontends() error {
	var tlsConfig *tls.Config
	if n.cfg.TLS.Cert != "" {
		cert, err := tls.LoadX509KeyPair(n.cfg.TLS.Cert, n.cfg.TLS.Key)
		if err != nil {
			return usageError{fmt.Errorf("tls: %w", err)}
		}
		tlsConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	authConfig := auth.Config{Hashers: n.cfg.Auth.Hashers}
	for _, network := range n.cfg.Auth.Trusted {
		prefix, err := netip.ParsePrefix(network)
		if err != nil {
			return usageError{fmt.Errorf("auth.trusted: %w", err)}
		}
		authConfig.Trusted = append(authConfig.Trusted, prefix)
	}
	authenticator, err := auth.New(n.db, authConfig, n.log)
	if err != nil {
		return err
	}
	n.imap = imap.NewServer(imap.Config{
		Store: n.store, Auth: authenticator, Log: n.log, TLS: tlsConfig,
		PlaintextLogin: n.cfg.IMAP.PlaintextLogin, Version: version(),
		MaxConnections: n.cfg.IMAP.MaxConnections, IdleTimeout: n.cfg.IMAP.IdleTimeout, KeepAlive: n.cfg.IMAP.KeepAlive,
	})
	n.lmtp = lmtp.NewServer(lmtp.Config{
		Store: n.store, Log: n.log, Hostname: n.cfg.Hostname, TLS: tlsConfig,
		MaxRecipients: n.cfg.LMTP.MaxRecipients, TempDir: n.cfg.Mail.TempDir,
	})
	return nil
}

func (n *node) listen(ctx context.Context) error {
	for _, l := range []struct {
		what      string
		addresses []string
		serve     func(net.Listener) error
	}{
		{"IMAP", n.cfg.IMAP.Listen, func(l net.Listener) error { return n.imap.Serve(l, false) }},
		{"IMAPS", n.cfg.IMAP.ListenTLS, func(l net.Listener) error { return n.imap.Serve(l, true) }},
		{"LMTP", n.cfg.LMTP.Listen, n.lmtp.Serve},
	} {
		for _, address := range l.addresses {
			var config net.ListenConfig
			socket, err := config.Listen(ctx, "tcp", address)
			if err != nil {
				return fmt.Errorf("listen for %s: %w", l.what, err)
			}
			n.listeners = append(n.listeners, listener{&closeOnce{Listener: socket}, l.what, l.serve})
		}
	}
	return nil
}

// run serves until ctx is done, then stops in order: no new connections, BYE to
// those that wait, running commands finish, and last the stores.
func (n *node) run(ctx context.Context) error {
	storeCtx, stopStore := context.WithCancel(context.WithoutCancel(ctx))
	defer stopStore()
	failed := make(chan error, len(n.listeners)+1)
	var store, servers sync.WaitGroup
	store.Go(func() {
		if err := n.store.Run(storeCtx); err != nil {
			failed <- err
		}
	})
	for _, l := range n.listeners {
		n.log.Info("listening", zap.String("for", l.what), zap.Stringer("address", l.Addr()))
		servers.Go(func() {
			if err := l.serve(l); err != nil {
				failed <- err
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	n.log.Info("stopping")
	err = errors.Join(err, n.stopServers(context.WithoutCancel(ctx)))
	servers.Wait()
	stopStore()
	store.Wait()
	n.close()
	n.log.Info("stopped")
	return err
}

func (n *node) stopServers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ShutdownGrace)
	defer cancel()
	var stopping sync.WaitGroup
	var imapErr, lmtpErr error
	stopping.Go(func() { imapErr = n.imap.Shutdown(ctx) })
	stopping.Go(func() { lmtpErr = n.lmtp.Shutdown(ctx) })
	n.closeListeners()
	stopping.Wait()
	return errors.Join(imapErr, lmtpErr)
}

func (n *node) closeListeners() {
	for _, l := range n.listeners {
		if err := l.Close(); err != nil {
			n.log.Warn("listener not closed", zap.Error(err))
		}
	}
}

// close lets go of everything that was opened.
func (n *node) close() {
	n.closeListeners()
	if n.bus != nil {
		if err := n.bus.Close(); err != nil {
			n.log.Warn("bus not closed", zap.Error(err))
		}
	}
	for _, c := range n.closers {
		c()
	}
	n.closers, n.bus, n.listeners = nil, nil, nil
}

// newLogger is the log that the settings ask for, on standard error.
func newLogger(cfg LogConfig) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(cfg.Level)
	if err != nil {
		return nil, usageError{fmt.Errorf("log.level: %w", err)}
	}
	c := zap.NewProductionConfig()
	c.Level = zap.NewAtomicLevelAt(level)
	c.Sampling = nil
	c.DisableCaller, c.DisableStacktrace = true, true
	c.EncoderConfig.TimeKey = "time"
	c.EncoderConfig.EncodeTime = zapcore.TimeEncoderOfLayout(time.RFC3339Nano)
	if cfg.Format == "console" {
		c.Encoding = "console"
		c.EncoderConfig.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		c.EncoderConfig.EncodeLevel = zapcore.CapitalLevelEncoder
	}
	log, err := c.Build()
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return log, nil
}
