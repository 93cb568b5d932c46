package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"starling/blobstore"
	"starling/blobstore/cache"
	"starling/blobstore/disk"
	"starling/blobstore/s3"
	"starling/events"
	"starling/events/memory"
	"starling/events/nats"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// openStores opens the three systems that everything is kept in. It waits for
// PostgreSQL to be there with the right schema; the node serves without the others.
func (n *node) openStores(ctx context.Context) error {
	var err error
	if n.db, err = prepareDB(ctx, n.cfg.Postgres, n.figures, n.traces); err != nil {
		return err
	}
	n.onClose(n.db.Close)
	n.watchPostgres()
	blobs, err := n.openBlobs(ctx)
	if err != nil {
		return err
	}
	natsConfig := n.natsConfig()
	natsConfig.Options.Metrics = n.figures
	if n.bus, err = nats.Open(natsConfig); err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	n.onClose(n.closeBus)
	n.watchNATS()
	if err := n.health.Await(ctx, depSchema); err != nil {
		return err
	}
	return n.openStore(ctx, blobs)
}

// openStoresNow is openStores for a command, which waits for nothing. Without NATS
// the nodes hear of what it does a little later.
func (n *node) openStoresNow(ctx context.Context) error {
	var err error
	if n.db, err = openDB(ctx, n.cfg.Postgres); err != nil {
		return err
	}
	n.onClose(n.db.Close)
	blobs, _, err := openBlobs(ctx, n.cfg.Blobs, n.log, n.figures, nil)
	if err != nil {
		return err
	}
	if len(n.cfg.NATS.URLs) > 0 {
		n.bus, err = nats.Open(n.natsConfig())
	} else {
		n.bus, err = new(memory.Hub).Open(events.Options{Log: n.log})
	}
	if err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	n.onClose(n.closeBus)
	return n.openStore(ctx, blobs)
}

func (n *node) openStore(ctx context.Context, blobs blobstore.Store) (err error) {
	n.blobs = blobs
	n.store, err = mailstore.New(context.WithoutCancel(ctx), mailstore.Config{
		DB: n.db, Blobs: blobs, Bus: n.bus, Log: n.log, Metrics: n.figures, Traces: n.traces,
		TempDir: n.cfg.Mail.TempDir, MaxMessage: n.cfg.Mail.MaxMessage,
		Sweep: n.cfg.Mail.Sweep, OrphanGrace: n.cfg.Mail.OrphanGrace, Retention: n.cfg.Mail.Retention,
		BackupWindow: n.cfg.Mail.BackupWindow, Collect: n.cfg.Mail.Collect,
		SnapshotMemory: n.cfg.Mail.Memory.Mailboxes, Inflight: n.cfg.Mail.Memory.Incoming,
		ReadMemory: n.cfg.Mail.Memory.Answers, RowMemory: n.cfg.Mail.Memory.Rows, SearchMemory: n.cfg.Mail.Memory.Searches,
		ChangeMemory: n.cfg.Mail.Memory.Changes,
	})
	return err
}

// natsConfig has nodes tell each other which epoch of the database they have seen.
func (n *node) natsConfig() nats.Config {
	c := n.cfg.NATS.config(n.log)
	c.Options.Epoch, c.Options.Learn = n.db.SeenEpoch, n.db.LearnEpoch
	return c
}

func (n *node) closeBus() {
	if err := n.bus.Close(); err != nil {
		n.log.Warn("bus not closed", zap.Error(err))
	}
}

// openBlobs opens the store of messages, and the cache before it.
func (n *node) openBlobs(ctx context.Context) (blobstore.Store, error) {
	store, bucket, err := openBlobs(ctx, n.cfg.Blobs, n.log, n.figures, n.traces)
	if err != nil {
		return nil, err
	}
	if bucket != nil {
		n.watchS3(bucket)
	}
	c := n.cfg.Blobs.Cache
	if c.Memory == 0 && c.Dir == "" {
		return store, nil
	}
	cached := cache.New(store, cache.Config{Memory: c.Memory, Dir: c.Dir, Disk: c.Disk, Log: n.log, Metrics: n.figures})
	n.onClose(cached.Close)
	return cached, nil
}

// warnEvery is how often PostgreSQL's settings are looked at: they can be changed
// while it runs.
const warnEvery = 5 * time.Minute

// watchDurability logs what in PostgreSQL's settings does not go with what is
// promised, at once and whenever it has changed, until the node is closed.
func (n *node) watchDurability(ctx context.Context) {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	var watching sync.WaitGroup
	n.onClose(func() {
		stop()
		watching.Wait()
	})
	said := n.warn(ctx, nil)
	watching.Go(func() {
		tick := time.NewTicker(warnEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				said = n.warn(ctx, said)
			case <-ctx.Done():
				return
			}
		}
	})
}

// warn logs what is wrong with PostgreSQL's settings, but for what was said before,
// and returns all of it.
func (n *node) warn(ctx context.Context, said []string) []string {
	warnings, err := n.db.Warnings(ctx)
	if err != nil {
		if ctx.Err() == nil {
			n.log.Warn("PostgreSQL's settings could not be read", zap.Error(err))
		}
		return said
	}
	for _, w := range warnings {
		if !slices.Contains(said, w) {
			n.log.Warn("PostgreSQL may lose acknowledged mail", zap.String("reason", w))
		}
	}
	return warnings
}

// prepareDB prepares connections to PostgreSQL and makes none.
func prepareDB(ctx context.Context, cfg PostgresConfig, figures prometheus.Registerer, traces trace.TracerProvider) (*metadata.DB, error) {
	dsn, err := cfg.dsn()
	if err != nil {
		return nil, usageError{err}
	}
	db, err := metadata.Open(ctx, metadata.Config{
		DSN: dsn, MaxConns: cfg.MaxConns, QueryMode: cfg.QueryMode, Metrics: figures, Traces: traces,
	})
	if err != nil {
		return nil, usageError{fmt.Errorf("postgres.dsn: %w", err)}
	}
	return db, nil
}

// openDB opens the database for a command, which does not wait for it.
func openDB(ctx context.Context, cfg PostgresConfig) (*metadata.DB, error) {
	db, err := prepareDB(ctx, cfg, nil, nil)
	if err != nil {
		return nil, err
	}
	if err := db.CheckSchema(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("postgres: %w", err)
	}
	return db, nil
}

// bucketPatience is how long the bucket is waited for at the start.
const bucketPatience = 5 * time.Second

// openBlobs opens the store of messages. With S3 it also returns how to ask whether
// that is there.
func openBlobs(ctx context.Context, cfg BlobsConfig, log *zap.Logger, figures prometheus.Registerer, traces trace.TracerProvider) (
	store blobstore.Store, bucket func(context.Context) error, err error,
) {
	if cfg.Disk != "" {
		store, err := disk.Open(cfg.Disk)
		if err != nil {
			return nil, nil, fmt.Errorf("blobs.disk: %w", err)
		}
		return store, nil, nil
	}
	s3Config := cfg.S3.config()
	s3Config.Log, s3Config.Metrics, s3Config.Traces = log, figures, traces
	s3Store, err := s3.New(s3Config)
	if err != nil {
		return nil, nil, usageError{fmt.Errorf("blobs.s3: %w", err)}
	}
	// A node can serve without bodies, so that S3 being away is no reason not to start, nor to wait for long.
	asked, cancel := context.WithTimeout(ctx, bucketPatience)
	defer cancel()
	if err := s3Store.CheckBucket(asked); errors.Is(err, blobstore.ErrUnavailable) {
		log.Warn("S3 cannot be reached", zap.Error(err))
	} else if err != nil {
		return nil, nil, fmt.Errorf("blobs.s3: %w", err)
	}
	return s3Store, s3Store.CheckBucket, nil
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
