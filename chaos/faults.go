package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"starling/metadata"
)

// Kind is a kind of fault.
type Kind string

// The kinds. Those of links are named by what is reached.
const (
	KillNode        Kind = "node killed"
	StopNode        Kind = "node stopped and continued"
	RestartNode     Kind = "node restarted"
	CutNATS         Kind = "NATS closed"
	HoleNATS        Kind = "NATS silent"
	CutRoute        Kind = "NATS route closed"
	HoleRoute       Kind = "NATS route silent"
	BreakPostgres   Kind = "PostgreSQL connections broken"
	CutPostgres     Kind = "PostgreSQL closed"
	LosePostgres    Kind = "PostgreSQL answers lost"
	SlowPostgres    Kind = "PostgreSQL slow"
	RestartPostgres Kind = "PostgreSQL restarted"
	CrashPostgres   Kind = "PostgreSQL killed"
	FailOver        Kind = "PostgreSQL failed over"
	FailOverLagging Kind = "PostgreSQL failed over to a standby that lagged"
	// FailOverCancelled: commits that wait for the standby are told to wait no more.
	FailOverCancelled Kind = "PostgreSQL failed over, and the waits for its standby had been cancelled"
	// LeadBack: the node has seen the new one before.
	LeadBack        Kind = "PostgreSQL failed over, and a node led back to the old primary"
	FullPostgres    Kind = "PostgreSQL out of connections"
	LockPostgres    Kind = "PostgreSQL rows locked"
	CutReplication  Kind = "PostgreSQL standby cut off"
	SlowReplication Kind = "PostgreSQL standby slow"
	RestartStandby  Kind = "PostgreSQL standby restarted"
	CutS3           Kind = "S3 closed"
	SlowS3          Kind = "S3 slow"
	LoseS3          Kind = "S3 answers lost"
	TruncateS3      Kind = "S3 truncated"
	FailS3          Kind = "S3 answers 500"
	RefuseS3        Kind = "S3 answers 503 SlowDown"
	HangS3          Kind = "S3 does not answer"
	ForgetS3        Kind = "S3 loses its answers to what it did"
	DribbleS3       Kind = "S3 sends bodies slowly"
	ShortenS3       Kind = "S3 sends half bodies"
	GarbleS3        Kind = "S3 sends wrong octets"
	StepClock       Kind = "clock stepped"
	BreakClients    Kind = "client connections broken"
	SlowClients     Kind = "clients slow"
	RestartNATS     Kind = "NATS server restarted"
	SlowNATS        Kind = "NATS slow consumer"

	DeafClients      Kind = "clients that do not read"
	TricklingClients Kind = "clients that send an octet now and then"
	HugeLiterals     Kind = "literals of 100 MB"
	HalfLiterals     Kind = "literals cut off"
	FloodClients     Kind = "connections in a flood"

	// FullS3Disk and FullPostgresDisk are done only where disks are small.
	FullS3Disk       Kind = "S3 disk full"
	FullPostgresDisk Kind = "PostgreSQL disk full"
)

// chances is how often each kind is drawn, of all.
var chances = []struct {
	kind  Kind
	often int
}{
	{KillNode, 8},
	{StopNode, 10},
	{RestartNode, 4},
	{CutNATS, 5},
	{HoleNATS, 8},
	{CutRoute, 4},
	{HoleRoute, 8},
	{BreakPostgres, 20},
	{CutPostgres, 5},
	{LosePostgres, 12},
	{SlowPostgres, 8},
	{RestartPostgres, 2},
	{CrashPostgres, 3},
	{FailOver, 2},
	{FailOverLagging, 2},
	{FailOverCancelled, 2},
	{LeadBack, 2},
	{FullPostgres, 3},
	{CutReplication, 3},
	{SlowReplication, 3},
	{RestartStandby, 1},
	{CutS3, 5},
	{SlowS3, 5},
	{LoseS3, 5},
	{TruncateS3, 8},
	{FailS3, 4},
	{RefuseS3, 4},
	{HangS3, 3},
	{ForgetS3, 4},
	{DribbleS3, 3},
	{ShortenS3, 3},
	{GarbleS3, 3},
	{StepClock, 6},
	{LockPostgres, 4},
	{BreakClients, 12},
	{SlowClients, 5},
	{RestartNATS, 3},
	{SlowNATS, 2},
	{DeafClients, 3},
	{TricklingClients, 2},
	{HugeLiterals, 1},
	{HalfLiterals, 4},
	{FloodClients, 2},
	{FullS3Disk, 2},
	{FullPostgresDisk, 1},
}

// mischief is what a gateway to S3 does, by kind.
var mischief = map[Kind]Mischief{
	FailS3: Fails, RefuseS3: Refuses, HangS3: Hangs, ForgetS3: Forgets, DribbleS3: Dribbles, ShortenS3: Shortens, GarbleS3: Garbles,
}

// steps are by how much a node's clock is wrong.
var steps = []time.Duration{-48 * time.Hour, -5 * time.Minute, -2 * time.Second, 0, 2 * time.Second, 5 * time.Minute, 48 * time.Hour}

// Fault is something that breaks at some time, for some time.
type Fault struct {
	At, For time.Duration
	Kind    Kind
	Node    int // index; what is of no node ignores it
	Amount  int // of what is slow or truncated, 0 to 999
}

func (f Fault) String() string {
	return fmt.Sprintf("%9.3f–%9.3f %s, node %d", f.At.Seconds(), (f.At + f.For).Seconds(), f.Kind, f.Node+1)
}

// Schedule is what breaks in so long a time: the same for the same seed.
func Schedule(seed uint64, d time.Duration) []Fault {
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // to be repeated
	sum := 0
	for _, c := range chances {
		sum += c.often
	}
	var faults []Fault
	for at := time.Duration(random.IntN(300)) * time.Millisecond; at < d; at += time.Duration(20+random.IntN(450)) * time.Millisecond {
		f := Fault{At: at, For: time.Duration(30+random.IntN(1<<(4+random.IntN(8)))) * time.Millisecond, Node: random.IntN(Nodes), Amount: random.IntN(1000)}
		drawn := random.IntN(sum)
		for _, c := range chances {
			if drawn -= c.often; drawn < 0 {
				f.Kind = c.kind
				break
			}
		}
		faults = append(faults, f)
	}
	return faults
}

// breaker carries faults out.
type breaker struct {
	cluster  *Cluster
	account  metadata.AccountID
	user     string
	conns    atomic.Int64      // of clients that misbehave
	begin    time.Time         // of the run
	nodes    [Nodes]sync.Mutex // one fault of a process at a time
	brokers  [Nodes]sync.Mutex
	postgres sync.Mutex
	bucket   sync.Mutex // its disk

	mu        sync.Mutex
	done      map[Kind]int
	failovers []Failover
	errs      []error
}

// run carries out a schedule, until all is mended again or ctx has ended and all that had begun is.
func (b *breaker) run(ctx context.Context, faults []Fault) {
	begin := time.Now()
	var running sync.WaitGroup
	for _, f := range faults {
		pause(ctx, f.At-time.Since(begin))
		if ctx.Err() != nil {
			break
		}
		running.Go(func() {
			done, err := b.inject(ctx, f)
			b.mu.Lock()
			defer b.mu.Unlock()
			if done {
				b.done[f.Kind]++
			}
			if err != nil {
				b.errs = append(b.errs, fmt.Errorf("%v: %w", f, err))
			}
		})
	}
	running.Wait()
}

// inject carries out one fault and mends it. It is not done where the same thing is broken already.
func (b *breaker) inject(ctx context.Context, f Fault) (done bool, err error) {
	n := b.cluster.Nodes[f.Node]
	switch f.Kind {
	case KillNode, StopNode, RestartNode:
		if !b.nodes[f.Node].TryLock() {
			return false, nil
		}
		defer b.nodes[f.Node].Unlock()
		return true, b.process(ctx, f, n)
	case RestartPostgres, CrashPostgres, FailOver, FailOverLagging, FailOverCancelled, LeadBack, RestartStandby, FullPostgres, FullPostgresDisk, LockPostgres:
		if !b.postgres.TryLock() {
			return false, nil
		}
		defer b.postgres.Unlock()
		switch f.Kind {
		case FullPostgres:
			return b.fill(ctx, f, n), nil
		case LockPostgres:
			return b.lock(ctx, f), nil
		case FullPostgresDisk:
			return b.cluster.fillPostgres(ctx, f.For)
		}
		return b.server(ctx, f)
	case BreakPostgres:
		n.Links.Postgres.Cut(false)
		return true, nil
	case BreakClients:
		n.Links.Clients.Cut(false)
		n.Links.LMTP.Cut(false)
		return true, nil
	case RestartNATS, SlowNATS:
		if !b.brokers[f.Node].TryLock() {
			return false, nil
		}
		defer b.brokers[f.Node].Unlock()
		if f.Kind == RestartNATS {
			return true, b.cluster.RestartBroker(context.WithoutCancel(ctx), f.Node, f.For)
		}
		return b.cluster.slowConsumer(ctx, f.Node, f.For)
	case FullS3Disk:
		if !b.bucket.TryLock() {
			return false, nil
		}
		defer b.bucket.Unlock()
		return fillDisk(ctx, filepath.Join(b.cluster.dir, "s3"), f.For)
	case FloodClients:
		return b.flood(ctx, f, n), nil
	}
	if rude[f.Kind] != nil {
		return b.misbehave(ctx, f, n), nil
	}
	if m, ok := mischief[f.Kind]; ok {
		n.Gateway.Set(m, 1+f.Amount%100)
		pause(ctx, f.For)
		n.Gateway.Set(Honest, 0)
		return true, nil
	}
	if f.Kind == StepClock { // which stays wrong until the next step, or until all is mended
		return true, n.clock.set(steps[f.Amount%len(steps)])
	}
	if f.Kind == CutReplication || f.Kind == SlowReplication {
		if !b.postgres.TryLock() { // a new standby is on its way
			return false, nil
		}
		defer b.postgres.Unlock()
		if b.cluster.standby == nil {
			return false, nil
		}
	}
	p, bad := b.link(f, n)
	bad(p)
	pause(ctx, f.For)
	p.Heal()
	return true, nil
}

func (b *breaker) process(ctx context.Context, f Fault, n *Node) error {
	if f.Kind == StopNode {
		err := n.Stop()
		pause(ctx, f.For)
		return errors.Join(err, n.Continue())
	}
	end := n.End
	if f.Kind == KillNode {
		end = n.Kill
	}
	err := end()
	pause(ctx, f.For/2)
	return errors.Join(err, n.Start(context.WithoutCancel(ctx)))
}

// server ends a server of PostgreSQL.
func (b *breaker) server(ctx context.Context, f Fault) (done bool, err error) {
	c := b.cluster
	switch f.Kind {
	case RestartPostgres, CrashPostgres:
		return true, c.RestartPostgres(ctx, f.Kind == CrashPostgres, f.For/2)
	case RestartStandby:
		return c.standby != nil, c.RestartStandby(ctx, f.For)
	}
	if c.standby == nil {
		return false, nil
	}
	var over Failover
	if f.Kind == LeadBack {
		if !b.nodes[f.Node].TryLock() { // a node that is started anew knows of nothing
			return false, nil
		}
		defer b.nodes[f.Node].Unlock()
		over, err = c.LeadBack(ctx, b.account, b.begin, c.Nodes[f.Node], f.For, f.Amount%2 == 0)
	} else {
		over, err = c.Failover(ctx, b.account, b.begin, f.losing())
	}
	if err != nil {
		return false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failovers = append(b.failovers, over)
	return true, nil
}

// link is the proxy that a fault is about, and what it is to do.
func (b *breaker) link(f Fault, n *Node) (*Proxy, func(*Proxy)) {
	l := n.Links
	cut := func(p *Proxy) { p.Cut(true) }
	set := func(d Direction, t Toxic) func(*Proxy) { return func(p *Proxy) { p.Set(d, t) } }
	both := func(t Toxic) func(*Proxy) { return func(p *Proxy) { p.Set(Up, t); p.Set(Down, t) } }
	delay := time.Duration(f.Amount/10) * time.Millisecond
	switch f.Kind {
	case CutNATS:
		return l.NATS, cut
	case HoleNATS:
		return l.NATS, both(Toxic{Hole: true})
	case CutRoute:
		return b.cluster.Routes[f.Node], cut
	case HoleRoute:
		return b.cluster.Routes[f.Node], both(Toxic{Hole: true})
	case CutPostgres:
		return l.Postgres, cut
	case LosePostgres:
		return l.Postgres, set(Down, Toxic{Hole: true})
	case SlowPostgres:
		return l.Postgres, set(Down, Toxic{Delay: delay})
	case CutReplication:
		return b.cluster.Replication, cut
	case SlowReplication:
		return b.cluster.Replication, both(Toxic{Delay: delay})
	case CutS3:
		return l.S3, cut
	case LoseS3:
		return l.S3, set(Down, Toxic{Hole: true})
	case TruncateS3:
		return l.S3, set(Direction(f.Amount%2), Toxic{Truncate: int64(1 + f.Amount*7)})
	case SlowS3:
		return l.S3, both(Toxic{Delay: delay})
	}
	return l.Clients, both(Toxic{Rate: 2000 + 20*f.Amount})
}
