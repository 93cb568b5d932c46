package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"starling/events/nats/natsserver"
	"starling/frontend/auth"
	"starling/metadata"
	"starling/metadata/postgres"
)

// devOptions are the flags of starling dev.
type devOptions struct {
	data     string
	postgres string
	pgBin    string
	nats     string
	s3       string
	s3Access string
	s3Secret string
	nodes    int
	anyPorts bool
	logLevel string
}

func newDev() *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a cluster for trying and developing, on this machine only",
		Long: "Run a cluster for trying and developing: PostgreSQL, NATS and two nodes, with\n" +
			"mail kept in a folder that survives restarts. Everything listens on 127.0.0.1\n" +
			"only, and passwords are taken without TLS too. PostgreSQL has to be installed\n" +
			"(make run sees to that), or be given by --postgres.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP) // the terminal was closed
			defer stop()
			return runDev(ctx, cmd.OutOrStdout(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.data, "data", "", "folder for everything that is kept (default: .starling here, or in /var/tmp for root)")
	f.StringVar(&o.postgres, "postgres", "", "connection string of a PostgreSQL to use instead of one of its own")
	f.StringVar(&o.pgBin, "postgres-bin", "", "folder with PostgreSQL's programs, if they are not found")
	f.StringVar(&o.nats, "nats", "", "URL of a NATS server to use instead of one in the process")
	f.StringVar(&o.s3, "s3", "", "S3 server and bucket to keep mail in instead of the folder: http://host:port/bucket")
	f.StringVar(&o.s3Access, "s3-access-key", "", "access key for --s3 (default: from the environment)")
	f.StringVar(&o.s3Secret, "s3-secret-key", "", "secret key for --s3")
	f.IntVar(&o.nodes, "nodes", 2, "how many nodes, 1 to 9; node n listens on the ports n143, n993, n124, and for HTTP on 8079+n")
	f.BoolVar(&o.anyPorts, "any-ports", false, "listen on free ports instead, as for a second cluster")
	f.StringVar(&o.logLevel, "log-level", "warn", "debug, info, warn or error")
	return cmd
}

const (
	devTenant   = "example"
	devDomain   = "example.org"
	devPassword = "starling"
)

// devAccounts are made when the cluster is started for the first time.
var devAccounts = []string{"alice@" + devDomain, "bob@" + devDomain}

// dev is a cluster under way: what was started, in the order of starting.
type dev struct {
	devOptions
	out   io.Writer
	log   *zap.Logger
	stops []func() error
}

func runDev(ctx context.Context, out io.Writer, o devOptions) (err error) {
	if o.nodes < 1 || o.nodes > 9 {
		return usageError{fmt.Errorf("--nodes: is %d; want 1 to 9", o.nodes)}
	}
	if o.s3 != "" {
		if _, err := parseS3(o.s3); err != nil {
			return err
		}
	}
	log, err := newLogger(LogConfig{Level: o.logLevel, Format: "console"})
	if err != nil {
		return err
	}
	d := &dev{devOptions: o, out: out, log: log}
	defer func() { err = errors.Join(err, d.stop()) }()
	if err := d.prepareFolder(); err != nil {
		return err
	}
	dsn, err := d.startPostgres(ctx)
	if err != nil {
		return err
	}
	natsURL, err := d.startNATS()
	if err != nil {
		return err
	}
	fresh, err := d.prepareAccounts(ctx, dsn)
	if err != nil {
		return err
	}
	cert, key, err := devCertificate(filepath.Join(d.data, "tls"))
	if err != nil {
		return err
	}
	nodes := make([]*node, 0, d.nodes)
	for i := 1; i <= d.nodes; i++ {
		cfg, err := d.nodeConfig(i, dsn, natsURL, cert, key)
		if err != nil {
			return err
		}
		n, err := newNode(ctx, cfg, d.log.With(zap.Int("node", i)))
		if err != nil {
			for _, n := range nodes {
				n.close()
			}
			return err
		}
		nodes = append(nodes, n)
	}
	if err := d.writeConfig(nodes[0].cfg); err != nil {
		for _, n := range nodes {
			n.close()
		}
		return err
	}
	return d.serve(ctx, nodes, fresh)
}

// configFile is where writeConfig puts the settings.
func (d *dev) configFile() string { return filepath.Join(d.data, "starling.yaml") }

// writeConfig writes the settings with which other commands reach the cluster.
func (d *dev) writeConfig(cfg Config) error {
	s3 := cfg.Blobs.S3
	text := fmt.Sprintf("# Written at each start of starling dev, for the other commands.\n"+
		"postgres:\n  dsn: %q\nnats:\n  urls: [%q]\nblobs:\n  disk: %q\n", cfg.Postgres.DSN, cfg.NATS.URLs[0], cfg.Blobs.Disk)
	if s3 != (S3Config{}) {
		text += fmt.Sprintf("  s3:\n    endpoint: %q\n    bucket: %q\n    access_key: %q\n    secret_key: %q\n",
			s3.Endpoint, s3.Bucket, s3.AccessKey, s3.SecretKey)
	}
	if err := os.WriteFile(d.configFile(), []byte(text), 0o600); err != nil {
		return fmt.Errorf("write the settings: %w", err)
	}
	return nil
}

// serve runs the nodes until ctx is done or one of them fails.
func (d *dev) serve(ctx context.Context, nodes []*node, fresh bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(nodes))
	var running sync.WaitGroup
	for i, n := range nodes {
		running.Go(func() {
			defer cancel()
			errs[i] = n.run(ctx)
		})
	}
	if fresh {
		if err := welcome(ctx, nodes[0]); err != nil {
			d.log.Warn("no welcome mail", zap.Error(err))
		}
	}
	d.describe(nodes)
	running.Wait()
	fmt.Fprintln(d.out, "Stopped.")
	return errors.Join(errs...)
}

// stop ends what was started, the last first.
func (d *dev) stop() error {
	var errs []error
	for i := len(d.stops) - 1; i >= 0; i-- {
		errs = append(errs, d.stops[i]())
	}
	return errors.Join(errs...)
}

// prepareFolder makes the folder in which everything is kept. PostgreSQL does
// not run as root, and its user cannot reach into root's home: so root's is in
// /var/tmp.
func (d *dev) prepareFolder() error {
	if d.data == "" {
		d.data = ".starling"
		if os.Geteuid() == 0 {
			d.data = "/var/tmp/starling-dev"
		}
	}
	path, err := filepath.Abs(d.data)
	if err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	d.data = path
	if err := os.MkdirAll(d.data, 0o755); err != nil { //nolint:gosec // PostgreSQL's user has to reach its folder in it
		return fmt.Errorf("--data: %w", err)
	}
	return nil
}

func (d *dev) startPostgres(ctx context.Context) (string, error) {
	if d.postgres != "" {
		return d.postgres, nil
	}
	server, err := postgres.Start(ctx, postgres.Config{Dir: filepath.Join(d.data, "postgres"), Bin: d.pgBin})
	if err != nil {
		return "", err
	}
	d.stops = append(d.stops, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		return server.Stop(ctx)
	})
	return server.DSN("postgres"), nil
}

func (d *dev) startNATS() (string, error) {
	if d.nats != "" {
		return d.nats, nil
	}
	server, err := natsserver.Start(natsserver.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		return "", err
	}
	d.stops = append(d.stops, func() error {
		server.Shutdown()
		return nil
	})
	return server.URL(), nil
}

// prepareAccounts brings the schema up to date and makes the accounts. It
// reports whether they are new.
func (d *dev) prepareAccounts(ctx context.Context, dsn string) (bool, error) {
	if err := metadata.Migrate(ctx, dsn); err != nil {
		return false, err
	}
	db, err := openDB(ctx, PostgresConfig{DSN: dsn})
	if err != nil {
		return false, err
	}
	defer db.Close()
	exists := func(err error) error {
		if errors.Is(err, metadata.ErrExists) {
			return nil
		}
		return err
	}
	if _, err := db.CreateTenant(ctx, devTenant); exists(err) != nil {
		return false, err
	}
	if _, err := db.CreateDomain(ctx, devTenant, devDomain); exists(err) != nil {
		return false, err
	}
	fresh := false
	for _, name := range devAccounts {
		hash, err := auth.Hash(devPassword)
		if err != nil {
			return false, err
		}
		_, err = db.CreateAccount(ctx, metadata.NewAccount{
			Name: name, PasswordHash: hash, Mailboxes: metadata.DefaultMailboxes(),
		})
		if exists(err) != nil {
			return false, err
		}
		fresh = fresh || err == nil
	}
	return fresh, nil
}

// nodeConfig is the configuration of the i-th node, from 1.
func (d *dev) nodeConfig(i int, dsn, natsURL, cert, key string) (Config, error) {
	cfg := defaults()
	cfg.Hostname = fmt.Sprintf("node%d.localhost", i)
	cfg.IMAP.Listen = []string{d.address(i, 143)}
	cfg.IMAP.ListenTLS = []string{d.address(i, 993)}
	cfg.IMAP.PlaintextLogin = true // on loopback only
	cfg.LMTP.Listen = []string{d.address(i, 124)}
	cfg.Admin.Listen = []string{d.adminAddress(i)}
	cfg.TLS = TLSConfig{Cert: cert, Key: key}
	cfg.Postgres.DSN = dsn
	cfg.NATS.URLs = []string{natsURL}
	if d.s3 == "" {
		cfg.Blobs.Disk = filepath.Join(d.data, "blobs")
		return cfg, nil
	}
	u, err := parseS3(d.s3)
	if err != nil {
		return cfg, err
	}
	cfg.Blobs.S3 = S3Config{
		Endpoint: u.Scheme + "://" + u.Host, Bucket: u.Path[1:], AccessKey: d.s3Access, SecretKey: d.s3Secret,
	}
	return cfg, nil
}

// parseS3 reads the value of --s3.
func parseS3(s3 string) (*url.URL, error) {
	u, err := url.Parse(s3)
	if err != nil || u.Host == "" || len(u.Path) < 2 {
		return nil, usageError{fmt.Errorf("--s3: %q is not http://host:port/bucket", s3)}
	}
	return u, nil
}

// address is where a node listens for what has this port on other servers.
func (d *dev) address(node, port int) string {
	if d.anyPorts {
		return "127.0.0.1:0"
	}
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(node*1000+port))
}

// adminAddress is where a node's admin listener is.
func (d *dev) adminAddress(node int) string {
	if d.anyPorts {
		return "127.0.0.1:0"
	}
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(8079+node))
}

// describe says where everything is, and what to try.
func (d *dev) describe(nodes []*node) {
	p := func(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }
	p("\nStarling is running with %d nodes; mail is kept in %s.\n", len(nodes), d.data)
	for i, n := range nodes {
		p("  node %d", i+1)
		for _, l := range n.listeners {
			p("    %-6s %s", l.what, l.Addr())
		}
		for _, l := range n.adminAt {
			p("    %-6s http://%s/node", "HTTP", l.Addr())
		}
	}
	p("\nAccounts, with the password %q:", devPassword)
	for _, name := range devAccounts {
		p("    %s", name)
	}
	first := nodes[0].listeners[0].Addr()
	last := nodes[len(nodes)-1].listeners[0].Addr()
	p("\nTo try, from another terminal:")
	p("    curl -u %s:%s imap://%s/INBOX -X 'FETCH 1:* (FLAGS ENVELOPE)'", devAccounts[0], devPassword, last)
	p("    neomutt -f imap://%s@%s/INBOX", devAccounts[0], first)
	p("    starling -c %s import %s mail.mbox", d.configFile(), devAccounts[0])
	p("\nCtrl-C stops it.\n")
}
