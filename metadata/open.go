package metadata

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
)

// Config says how to reach PostgreSQL. Zero fields have the stated defaults.
type Config struct {
	// DSN is a connection string of libpq, as URL or as keywords. It must lead to
	// the primary; of several hosts the one that takes writes is chosen.
	DSN string
	// MaxConns bounds the connections, beside the one by which Ping asks. Default 8.
	MaxConns int
	// CommandConns is how many of them are kept for what clients wait for: work
	// through Background never takes them. Default 2; less than MaxConns.
	CommandConns int
	// QueryMode is how statements are sent: "cache_statement" (default) prepares
	// them on each connection, for direct connections and poolers that know
	// prepared statements; "cache_describe" and "exec" keep nothing on the server,
	// for other poolers in transaction mode, such as PgBouncer before 1.21.
	QueryMode string
	// Pooler says that a pooler stands between, which takes no settings with a new
	// connection: those of the role count (Migrate makes them), not the timeouts
	// below that the server keeps. The last two query modes imply it.
	Pooler bool
	// AcquireTimeout is how long a call waits for a connection. Default 2 s.
	AcquireTimeout time.Duration
	// LockTimeout is how long a statement waits for a row. Default 3 s.
	LockTimeout time.Duration
	// StatementTimeout bounds a statement. Default 15 s. The client waits 5 s longer.
	StatementTimeout time.Duration
	// IdleInTransaction frees the rows that a node holds that hangs between the two
	// halves of a locked commit. Default 5 s.
	IdleInTransaction time.Duration
	// DeadPeer is when either side gives up a connection whose other end is gone.
	// Default 10 s.
	DeadPeer time.Duration
	// ResolveTimeout is how long Commit tries to find out what became of a commit
	// whose answer was lost. Default 10 s.
	ResolveTimeout time.Duration
	// DialLimit is how many connections are made at a time. Default 2.
	DialLimit int
	// MinBackoff and MaxBackoff are the pauses after a connection that could not be
	// made: doubled each time, with jitter. Defaults 50 ms and 5 s.
	MinBackoff, MaxBackoff time.Duration
	// Metrics is where the figures are registered; nil: nowhere.
	Metrics prometheus.Registerer
	// Traces makes a span of each statement; nil: no traces.
	Traces trace.TracerProvider
}

func (c *Config) defaults() error {
	for _, field := range []struct {
		value *time.Duration
		or    time.Duration
	}{
		{&c.AcquireTimeout, 2 * time.Second},
		{&c.LockTimeout, 3 * time.Second},
		{&c.StatementTimeout, 15 * time.Second},
		{&c.IdleInTransaction, 5 * time.Second},
		{&c.DeadPeer, 10 * time.Second},
		{&c.ResolveTimeout, 10 * time.Second},
		{&c.MinBackoff, 50 * time.Millisecond},
		{&c.MaxBackoff, 5 * time.Second},
	} {
		if *field.value == 0 {
			*field.value = field.or
		}
		if *field.value < 0 {
			return errors.New("a timeout is negative")
		}
	}
	if c.MaxConns == 0 {
		c.MaxConns = 8
	}
	if c.CommandConns == 0 {
		c.CommandConns = min(2, c.MaxConns-1)
	}
	if c.DialLimit == 0 {
		c.DialLimit = 2
	}
	switch {
	case c.MaxConns < 2 || c.MaxConns > 10_000:
		return fmt.Errorf("%d connections: want 2 to 10,000", c.MaxConns)
	case c.CommandConns < 0 || c.CommandConns >= c.MaxConns:
		return fmt.Errorf("%d of %d connections kept for commands: want fewer", c.CommandConns, c.MaxConns)
	case c.DialLimit < 0:
		return fmt.Errorf("%d dials at a time: want at least 1", c.DialLimit)
	}
	return nil
}

// execMode refuses the modes that go wrong behind a pooler: "describe_exec"
// mixes up the statements of its clients.
func execMode(name string) (pgx.QueryExecMode, error) {
	switch name {
	case "", "cache_statement":
		return pgx.QueryExecModeCacheStatement, nil
	case "cache_describe":
		return pgx.QueryExecModeCacheDescribe, nil
	case "exec":
		return pgx.QueryExecModeExec, nil
	}
	return 0, fmt.Errorf("query mode %q: want cache_statement, cache_describe or exec", name)
}

// DB is the database. It may be used by many goroutines.
type DB struct {
	pool       *pgxpool.Pool
	probe      *pgxpool.Pool // the one connection of Ping
	queue      *queue
	epochs     *epochs
	abort      *abort
	config     Config
	background chan struct{} // permits; nil: none needed
	stubborn   bool          // waits for a connection even if that seems to be in vain
	trips      *atomic.Int64
	metrics    *metrics
}

// Open prepares connections to PostgreSQL, and makes none: they are made when they are
// needed, so that a node can start before PostgreSQL does. It fails only if the
// configuration is wrong. Nothing but CheckSchema, Ping, Warnings and Stats may be
// called until CheckSchema has found the schema right.
func Open(ctx context.Context, c Config) (*DB, error) {
	if err := c.defaults(); err != nil {
		return nil, fmt.Errorf("configure the database: %w", err)
	}
	m := newMetrics(c.Metrics, c.Traces)
	seen := &epochs{refused: m.refused}
	end := newAbort()
	pace := newPace(c.DialLimit, c.MinBackoff, c.MaxBackoff, end)
	pool, err := c.pool(ctx, pace, seen, c.MaxConns)
	if err != nil {
		return nil, err
	}
	// It dials at a pace of its own, and tells the others as soon as there is somebody.
	probing := newPace(1, c.MinBackoff, min(c.MaxBackoff, probeBackoff), end)
	probing.there = pace.hurry
	probe, err := c.pool(ctx, probing, seen, 1)
	if err != nil {
		pool.Close()
		return nil, err
	}
	db := &DB{
		pool: pool, probe: probe, epochs: seen, abort: end, config: c, trips: new(atomic.Int64), metrics: m,
		queue: &queue{conns: c.MaxConns, patience: c.AcquireTimeout, away: m.shed[shedAway], long: m.shed[shedLong]},
	}
	if c.Metrics != nil {
		if err := c.Metrics.Register(newPoolCollector(db)); err != nil {
			db.Close()
			return nil, fmt.Errorf("register the figures of the pool: %w", err)
		}
	}
	return db, nil
}

// pool prepares a pool of connections.
func (c *Config) pool(ctx context.Context, p *pace, seen *epochs, conns int) (*pgxpool.Pool, error) {
	config, err := c.poolConfig(p, seen)
	if err != nil {
		return nil, fmt.Errorf("configure the database: %w", err)
	}
	config.MaxConns = int32(conns) //nolint:gosec // bounded by defaults
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	return pool, nil
}

func (c *Config) poolConfig(pace *pace, seen *epochs) (*pgxpool.Config, error) {
	mode, err := execMode(c.QueryMode)
	if err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(c.DSN)
	if err != nil {
		return nil, withoutDSN(err)
	}
	config.ConnConfig.DefaultQueryExecMode = mode
	config.ConnConfig.StatementCacheCapacity = 256
	config.ConnConfig.DescriptionCacheCapacity = 256
	config.ConnConfig.OnNotice = noteDoubt
	takesWrites := config.ConnConfig.ValidateConnect
	if takesWrites == nil {
		takesWrites = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	config.ConnConfig.ValidateConnect = func(ctx context.Context, pg *pgconn.PgConn) error {
		if err := takesWrites(ctx, pg); err != nil {
			return err
		}
		return seen.ask(ctx, pg)
	}
	config.PrepareConn = seen.present
	if mode == pgx.QueryExecModeCacheStatement && !c.Pooler {
		c.sessionSettings(config.ConnConfig.RuntimeParams)
	}
	config.MaxConnLifetimeJitter = 5 * time.Minute
	// A ping would be a second round trip; what a dead connection does is dealt with anyway.
	config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	pace.dialer = config.ConnConfig.DialFunc
	config.BeforeConnect = pace.before
	config.ConnConfig.Tracer = pace
	config.ConnConfig.DialFunc = pace.dial
	config.ConnConfig.ConnectTimeout = c.DeadPeer
	return config, nil
}

// withoutDSN takes the connection string out of what pgx says is wrong with it: it
// leaves out passwords in some spellings only.
func withoutDSN(err error) error {
	var wrong *pgconn.ParseConfigError
	if errors.As(err, &wrong) {
		wrong.ConnString = "DSN"
	}
	return err
}

func (c *Config) sessionSettings(params map[string]string) {
	ms := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	params["plan_cache_mode"] = "force_generic_plan"
	params["default_transaction_isolation"] = "read committed"
	params["lock_timeout"] = ms(c.LockTimeout)
	params["statement_timeout"] = ms(c.StatementTimeout)
	params["idle_in_transaction_session_timeout"] = ms(c.IdleInTransaction)
	params["client_connection_check_interval"] = ms(c.DeadPeer)
	params["tcp_user_timeout"] = ms(c.DeadPeer)
}

// pace limits how many connections are made at a time, and how soon after one
// that could not be made the next is tried.
type pace struct {
	permits  chan struct{}
	dialer   pgconn.DialFunc
	min, max time.Duration
	abort    *abort
	there    func() // called when a connection was made; nil: nobody is told

	mu      sync.Mutex
	pause   time.Duration // 0: the last one worked
	next    time.Time
	hurried chan struct{} // closed, and made anew, when there is no reason to wait any more
}

func newPace(dials int, minBackoff, maxBackoff time.Duration, end *abort) *pace {
	return &pace{permits: make(chan struct{}, dials), min: minBackoff, max: maxBackoff, abort: end, hurried: make(chan struct{})}
}

func (p *pace) before(ctx context.Context, _ *pgx.ConnConfig) error {
	p.mu.Lock()
	wait, hurried := time.Until(p.next), p.hurried
	p.mu.Unlock()
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-p.abort.done.Done():
		return errAborted
	case <-timer.C:
	case <-hurried:
	}
	return nil
}

// hurry ends the pause: somebody has just made a connection.
func (p *pace) hurry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pause == 0 {
		return
	}
	p.pause, p.next = 0, time.Time{}
	close(p.hurried)
	p.hurried = make(chan struct{})
}

// dialing marks the contexts in which connections are made.
type dialing struct{}

// errNoCancel is what pgx hears when it wants to ask the server to cancel what
// a broken connection did. A commit that waits for its standby would then end,
// on the primary alone.
var errNoCancel = errors.New("no cancel requests")

func (p *pace) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if ctx.Value(dialing{}) == nil {
		return nil, errNoCancel
	}
	select {
	case p.permits <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-p.permits }()
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(p.abort.done, cancel)()
	defer cancel()
	conn, err := p.dialer(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return p.abort.hold(conn)
}

// TraceConnectStart marks the context.
func (p *pace) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	return context.WithValue(ctx, dialing{}, true)
}

// TraceConnectEnd notes how it went, the server's answer included.
func (p *pace) TraceConnectEnd(_ context.Context, data pgx.TraceConnectEndData) {
	if data.Err == nil {
		p.hurry()
		if p.there != nil {
			p.there()
		}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pause = min(max(2*p.pause, p.min), p.max)
	p.next = time.Now().Add(p.pause/2 + rand.N(p.pause)) //nolint:gosec // jitter
}

// TraceQueryStart is there because pgx takes only tracers of queries.
func (p *pace) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd is there because pgx takes only tracers of queries.
func (p *pace) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// CheckSchema says whether this release can work with the schema that the database
// has now. The errors are ErrSchemaOld and ErrSchemaNew, whose text says what to do, and
// ErrUnavailable. It answers within checkTimeout.
func (db *DB) CheckSchema(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	var schema, oldest int
	err := db.row(ctx, "read the number of the schema", `
select schema, oldest_reader
from cluster`, nil, &schema, &oldest)
	var refused *pgconn.PgError
	switch {
	case errors.As(err, &refused) && refused.Code == "42P01":
		err = fmt.Errorf("%w: the database has none: run starling migrate", ErrSchemaOld)
	case err != nil:
		return err
	case schema < schemaSupported:
		err = fmt.Errorf("%w: the database has schema %d, this release needs %d: run starling migrate", ErrSchemaOld, schema, schemaSupported)
	case oldest > schemaSupported:
		return fmt.Errorf("%w: the database has schema %d, for releases that know %d, this one knows %d: use a newer release",
			ErrSchemaNew, schema, oldest, schemaSupported)
	default:
		return nil
	}
	db.pool.Reset() // the migration gives the role its settings, which only new connections have
	return err
}

// Close waits for what is under way and closes all connections.
func (db *DB) Close() {
	db.pool.Close()
	db.probe.Close()
}

// Background is the same database for work that no client waits for: it never
// takes the connections that are kept for commands.
func (db *DB) Background() *DB {
	back := *db
	back.background = make(chan struct{}, db.config.MaxConns-db.config.CommandConns)
	return &back
}

// patient is the same database for what must be done if it can be at all.
func (db *DB) patient() *DB {
	own := *db
	own.stubborn = true
	return &own
}

// probeBackoff is the longest pause before Ping tries again to make its connection: it is
// the one that finds out that PostgreSQL is back.
const probeBackoff = time.Second

// checkTimeout bounds the questions whether PostgreSQL is there, which somebody waits
// for: a probe of a pod, or a person.
const checkTimeout = 5 * time.Second

// Ping says whether PostgreSQL answers, and takes writes. It answers within checkTimeout,
// by a connection of its own: that all others are in use does not mean that PostgreSQL
// is away.
func (db *DB) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	own := *db
	own.pool, own.background, own.stubborn = db.probe, nil, true
	var standby bool
	if err := own.row(ctx, "ping", `select pg_is_in_recovery()`, nil, &standby); err != nil {
		return err
	}
	if standby {
		return fmt.Errorf("ping: the server is a standby: %w", ErrUnavailable)
	}
	return nil
}

// Warnings are the settings of the server with which acknowledged changes may
// be lost, a sentence each. Their number is a metric as well, as of the last call:
// somebody should look from time to time, since an operator may change them.
func (db *DB) Warnings(ctx context.Context) ([]string, error) {
	var fsync, pages, commit, standbys string
	err := db.row(ctx, "read the settings of the server", `
select current_setting('fsync'), current_setting('full_page_writes'),
  current_setting('synchronous_commit'), current_setting('synchronous_standby_names')`,
		nil, &fsync, &pages, &commit, &standbys)
	if err != nil {
		return nil, err
	}
	var warnings []string
	for _, setting := range []struct {
		bad  bool
		text string
	}{
		{fsync == "off", "fsync is off: a crash of the machine destroys the database"},
		{pages == "off", "full_page_writes is off: a crash of the machine can destroy the database"},
		{commit == "off", "synchronous_commit is off: a crash of PostgreSQL loses acknowledged changes"},
		{standbys == "", "no synchronous standby is named: a failover can lose acknowledged changes"},
		{standbys != "" && commit == "local", "synchronous_commit is local: a failover can lose acknowledged changes"},
	} {
		if setting.bad {
			warnings = append(warnings, setting.text)
		}
	}
	db.metrics.warnings.Set(float64(len(warnings)))
	return warnings, nil
}

// Stats are figures of a DB since Open, Background ones included.
type Stats struct {
	RoundTrips   int64 // statements and pipelines that were sent and waited for; preparing apart
	Conns, Idle  int   // connections now, those in the making included
	Acquires     int64
	AcquireWaits int64         // acquires that found no idle connection
	AcquireWait  time.Duration // how long those waited
	Dials        int64
}

// Stats returns the figures of now.
func (db *DB) Stats() Stats {
	s := db.pool.Stat()
	return Stats{
		RoundTrips:   db.trips.Load(),
		Conns:        int(s.TotalConns()),
		Idle:         int(s.IdleConns()),
		Acquires:     s.AcquireCount(),
		AcquireWaits: s.EmptyAcquireCount(),
		AcquireWait:  s.EmptyAcquireWaitTime(),
		Dials:        s.NewConnsCount(),
	}
}
