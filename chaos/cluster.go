package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"starling/blobstore/s3"
	"starling/blobstore/s3/s3test"
	"starling/events/nats/natsserver"
	"starling/metadata"
	"starling/metadata/postgres"
)

// Nodes is how many nodes, and how many NATS servers, a cluster has.
const Nodes = 3

// natsPending is what may wait at a NATS server for one that reads too slowly.
const natsPending = 1 << 20

// startTime bounds the start of each part of a cluster, on a busy machine.
const startTime = 60 * time.Second

// Links are the proxies between a node and the others.
type Links struct {
	Clients, LMTP, Postgres, NATS, S3 *Proxy
}

func (l *Links) all() []*Proxy { return []*Proxy{l.Clients, l.LMTP, l.Postgres, l.NATS, l.S3} }

// Node is a node of a cluster. Its process comes and goes; where its clients connect stays.
type Node struct {
	No    int
	Links Links
	// Gateway answers for S3, between the node's link and the server.
	Gateway *Gateway

	env   []string
	path  string // of the program
	clock *clock // that the program goes by, if it is one of [Clocked]

	mu      sync.Mutex // one fault at a time
	process *process
	said    watched // by the processes before
	stopped bool
}

// process is a run of the program.
type process struct {
	pid    int
	signal func(os.Signal) error
	done   chan struct{}
	said   *watched
	admin  string
}

// Cluster is three nodes and what they stand on.
type Cluster struct {
	Nodes [Nodes]*Node
	// Routes are the ways between NATS servers: Routes[i] is how the others reach server i.
	Routes [Nodes]*Proxy
	// DB looks at PostgreSQL past all proxies.
	DB *metadata.DB
	// Blobs looks at the objects past all proxies.
	Blobs *s3.Store

	databases
	dir     string
	brokers [Nodes]*natsserver.Server
	objects *s3test.Server
	closers []func() error // in the order of opening
}

// Start starts a cluster of the program at path; dir is a folder for its data, open to all users above it, and env what
// the nodes' environment has besides, or instead. With small, disks are small and can be filled, if [CanFill] says so.
func Start(ctx context.Context, path, dir string, small bool, env ...string) (*Cluster, error) {
	c := &Cluster{dir: dir, databases: databases{disks: &disks{dir: dir, small: small}}}
	c.closers = append(c.closers, c.disks.freeAll)
	for _, part := range []func(context.Context) error{c.startPostgres, c.startNATS, c.startS3} {
		if err := part(ctx); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	bucket := "chaos"
	conf := s3.Config{Endpoint: c.objects.Endpoint, Bucket: bucket, AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey}
	store, err := s3.New(conf)
	if err == nil {
		c.Blobs = store
		c.closers = append(c.closers, func() error { store.Close(); return nil })
		err = store.CreateBucket(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	for i := range c.Nodes {
		if c.Nodes[i], err = c.newNode(i, path, bucket); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.Nodes[i].env = append(c.Nodes[i].env, env...)
	}
	var starting sync.WaitGroup
	var errs [Nodes]error
	for i, n := range c.Nodes {
		starting.Go(func() { errs[i] = n.Start(ctx) })
	}
	starting.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func dsn(p *Proxy) string {
	return fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable", postgres.Superuser, p.Addr())
}

// startNATS starts a cluster of servers that reach each other through proxies.
func (c *Cluster) startNATS(context.Context) error {
	for i := range c.Routes {
		p, err := c.proxy("", "")
		if err != nil {
			return err
		}
		c.Routes[i] = p
		c.closers = append(c.closers, func() error { p.Close(); return nil })
	}
	for i := range c.brokers {
		if err := c.startBroker(i); err != nil {
			return err
		}
		c.closers = append(c.closers, func() error { c.brokers[i].Shutdown(); return nil })
	}
	return nil
}

// startBroker starts a NATS server, anew where it was ended.
func (c *Cluster) startBroker(i int) error {
	conf := natsserver.Config{Addr: "127.0.0.1:0", MaxPending: natsPending, Cluster: "127.0.0.1:0", Advertise: c.Routes[i].Addr()}
	for j, other := range c.Routes {
		if j != i {
			conf.Routes = append(conf.Routes, other.Addr())
		}
	}
	broker, err := natsserver.Start(conf)
	if err != nil {
		return err
	}
	c.brokers[i] = broker
	c.Routes[i].Backend("tcp", broker.ClusterAddr())
	if n := c.Nodes[i]; n != nil {
		n.Links.NATS.Backend("tcp", broker.Addr())
	}
	return nil
}

func (c *Cluster) startS3(ctx context.Context) error {
	path, err := s3test.Build(ctx)
	if err != nil {
		return err
	}
	dir, err := c.disks.folder("s3", "512m")
	if err != nil {
		return err
	}
	if c.objects, err = s3test.Start(ctx, path, dir); err != nil {
		return err
	}
	c.closers = append(c.closers, c.objects.Stop)
	return nil
}

func (c *Cluster) proxy(network, backend string) (*Proxy, error) {
	p, err := NewProxy()
	if err != nil {
		return nil, err
	}
	p.Backend(network, backend)
	return p, nil
}

func (c *Cluster) newNode(i int, path, bucket string) (*Node, error) {
	n := &Node{No: i + 1, path: path}
	var err error
	if n.Gateway, err = NewGateway(c.objects.Endpoint); err != nil {
		return nil, err
	}
	c.closers = append(c.closers, n.Gateway.Close)
	if n.clock, err = newClock(filepath.Join(c.dir, fmt.Sprintf("clock%d", n.No))); err != nil {
		return nil, err
	}
	for _, link := range []struct {
		proxy            **Proxy
		network, backend string
	}{
		{&n.Links.Clients, "tcp", ""},
		{&n.Links.LMTP, "tcp", ""},
		{&n.Links.Postgres, "unix", c.primary.Socket()},
		{&n.Links.NATS, "tcp", c.brokers[i].Addr()},
		{&n.Links.S3, "tcp", n.Gateway.Addr()},
	} {
		p, err := c.proxy(link.network, link.backend)
		if err != nil {
			return nil, err
		}
		*link.proxy = p
		c.closers = append(c.closers, func() error { p.Close(); return nil })
	}
	n.env = []string{
		clockEnv + "=" + n.clock.path,
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"),
		fmt.Sprintf("STARLING_HOSTNAME=node%d.example.org", n.No),
		"STARLING_POSTGRES_DSN=" + dsn(n.Links.Postgres),
		"STARLING_NATS_URLS=nats://" + n.Links.NATS.Addr(),
		"STARLING_BLOBS_S3_ENDPOINT=http://" + n.Links.S3.Addr(), "STARLING_BLOBS_S3_BUCKET=" + bucket,
		"STARLING_BLOBS_S3_ACCESS_KEY=" + s3test.AccessKey, "STARLING_BLOBS_S3_SECRET_KEY=" + s3test.SecretKey,
		// Little is kept at hand, so that bodies come from S3.
		"STARLING_BLOBS_CACHE_MEMORY=1000000",
		"STARLING_IMAP_LISTEN=127.0.0.1:0", "STARLING_IMAP_LISTEN_TLS=", "STARLING_LMTP_LISTEN=127.0.0.1:0", "STARLING_ADMIN_LISTEN=127.0.0.1:0",
		"STARLING_IMAP_PLAINTEXT_LOGIN=true", "STARLING_IMAP_MAX_PER_ADDRESS=0", "STARLING_IMAP_MAX_PER_ACCOUNT=0",
		"STARLING_MAIL_COLLECT=2s", "STARLING_MAIL_RETENTION=3s", "STARLING_MAIL_BACKUP_WINDOW=3s", "STARLING_MAIL_SWEEP=8s",
		"STARLING_SHUTDOWN_GRACE=2s",
	}
	if i == Nodes-1 { // which has to do with few
		n.env = append(n.env, "STARLING_POSTGRES_MAX_CONNS=3")
	}
	c.closers = append(c.closers, n.End)
	return n, nil
}

// Close ends everything, in the opposite order of its start.
func (c *Cluster) Close() error {
	var errs []error
	for i := len(c.closers) - 1; i >= 0; i-- {
		errs = append(errs, c.closers[i]())
	}
	c.closers = nil
	return errors.Join(errs...)
}

// Heal mends all links and starts all nodes that do not run.
func (c *Cluster) Heal(ctx context.Context) error {
	for _, p := range append(c.Routes[:], c.Replication) {
		p.Heal()
	}
	var errs []error
	for _, n := range c.Nodes {
		for _, p := range n.Links.all() {
			p.Heal()
		}
		n.Gateway.Set(Honest, 0)
		errs = append(errs, n.clock.set(0), n.Continue(), n.Start(ctx))
	}
	return errors.Join(errs...)
}

// Start starts the node, unless it runs, and waits until it is ready.
func (n *Node) Start(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil {
		select {
		case <-n.process.done:
			_, _ = n.said.Write([]byte(n.process.said.String())) // it takes everything
		default:
			return n.ready(ctx)
		}
	}
	p, err := run(n.path, n.env, "serve")
	if err != nil {
		return fmt.Errorf("start node %d: %w", n.No, err)
	}
	n.process, n.stopped = p, false
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	at := map[string]string{}
	for len(at) < 3 { // IMAP, LMTP, HTTP
		var text string
		changed := p.said.next(&text)
		if at = listening(text); len(at) == 3 {
			break
		}
		select {
		case <-changed:
		case <-p.done:
			return fmt.Errorf("node %d ended:\n%s", n.No, p.said)
		case <-ctx.Done():
			return fmt.Errorf("node %d does not listen: %w\n%s", n.No, ctx.Err(), p.said)
		}
	}
	p.admin = at["HTTP"]
	n.Links.Clients.Backend("tcp", at["IMAP"])
	n.Links.LMTP.Backend("tcp", at["LMTP"])
	return n.ready(ctx)
}

// ready waits until the node says that it is. There is no event to wait for.
func (n *Node) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.process.admin+"/readyz", nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = res.Body.Close() // the status is all
			if res.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(res.Status)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("node %d is not ready: %w", n.No, err)
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// Kill ends the node as a crash does.
func (n *Node) Kill() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.end(os.Kill)
}

// End asks the node to end, and waits until it did; it is killed if that takes too long.
func (n *Node) End() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.end(syscall.SIGTERM)
}

func (n *Node) end(signal os.Signal) error {
	if n.process == nil {
		return nil
	}
	if n.stopped {
		_ = n.process.signal(syscall.SIGCONT) // it may be gone
		n.stopped = false
	}
	if err := n.process.signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-n.process.done:
		return nil
	case <-time.After(startTime):
		_ = n.process.signal(os.Kill) // it is to be gone
		<-n.process.done
		return fmt.Errorf("node %d did not end after %v", n.No, signal)
	}
}

// Stop keeps the node's process from running, until Continue.
func (n *Node) Stop() error { return n.pause(syscall.SIGSTOP, true) }

// Continue lets it run again.
func (n *Node) Continue() error { return n.pause(syscall.SIGCONT, false) }

func (n *Node) pause(signal os.Signal, stopped bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil || n.stopped == stopped {
		return nil
	}
	n.stopped = stopped
	if err := n.process.signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Upgrade ends the node, if it runs, and starts another program in its place.
func (n *Node) Upgrade(ctx context.Context, path string) error {
	if err := n.End(); err != nil {
		return err
	}
	n.mu.Lock()
	n.path = path
	n.mu.Unlock()
	return n.Start(ctx)
}

// Command runs the program of the node with these arguments, and its settings.
func (n *Node) Command(ctx context.Context, path string, args ...string) (said string, err error) {
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // the program under test
	cmd.Env = n.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Said is what the node's processes logged.
func (n *Node) Said() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	said := n.said.String()
	if n.process != nil {
		said += n.process.said.String()
	}
	return said
}

// run starts the program. It ends with this process, where the system can see to that.
func run(path string, env []string, args ...string) (*process, error) {
	p := &process{done: make(chan struct{}), said: &watched{changed: make(chan struct{})}}
	cmd := exec.CommandContext(context.Background(), path, args...) //nolint:gosec // the program under test, which Node ends
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = env, p.said, p.said, processAttr()
	started := make(chan error)
	go func() {
		// The parent at whose end it ends is a thread, which must stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is told by what it said
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	p.pid, p.signal = cmd.Process.Pid, cmd.Process.Signal
	return p, nil
}

// mostSaid bounds what is kept of what a process says.
const mostSaid = 1 << 20

// watched is what a process says; one can wait for more.
type watched struct {
	mu      sync.Mutex
	text    []byte
	changed chan struct{}
}

// Write appends what is said.
func (w *watched) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, b...)
	if len(w.text) > mostSaid { // the end tells most
		w.text = append([]byte("…\n"), w.text[len(w.text)-mostSaid/2:]...)
	}
	if w.changed == nil {
		return len(b), nil
	}
	close(w.changed)
	w.changed = make(chan struct{})
	return len(b), nil
}

// String is what was said so far.
func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.text)
}

// next returns what was said so far, and a channel that is closed when there is more.
func (w *watched) next(text *string) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	*text = string(w.text)
	return w.changed
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
