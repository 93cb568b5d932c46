package mailstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"starling/blobstore"
	"starling/blobstore/memory"
	"starling/events"
	"starling/events/eventtest"
	hub "starling/events/memory"
	"starling/metadata"
	"starling/metadata/metadatatest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The test server runs until the process ends.
		goleak.IgnoreAnyFunction("starling/metadata/postgres.launch.func1"),
		goleak.IgnoreAnyFunction("os/exec.(*Cmd).Wait"),
		goleak.IgnoreAnyFunction("os/exec.(*Cmd).watchCtx"))
}

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// cluster is a database, an object store and a bus, and nodes on them.
type cluster struct {
	t       testing.TB
	dsn     string
	db      *metadata.DB // of no node
	blobs   *blobs
	open    func(events.Options, func(events.Transport) events.Transport) *events.Node
	account metadata.Account
}

// blobs is an object store that counts, and fails when it is told to.
type blobs struct {
	blobstore.Store
	puts, gets atomic.Int64

	mu     sync.Mutex
	failed error                       // what Put and Get return; nil: nothing
	dated  func(time.Time) time.Time   // what Put says of the time
	put    func(context.Context) error // called in each Put
}

func (b *blobs) Put(ctx context.Context, key blobstore.Key, body io.ReadSeeker, size int64) (blobstore.PutResult, error) {
	b.puts.Add(1)
	b.mu.Lock()
	failed, dated, put := b.failed, b.dated, b.put
	b.mu.Unlock()
	if put != nil {
		if err := put(ctx); err != nil {
			return blobstore.PutResult{}, err
		}
	}
	if failed != nil {
		return blobstore.PutResult{}, failed
	}
	done, err := b.Store.Put(ctx, key, body, size)
	if dated != nil {
		done.Date = dated(done.Date)
	}
	return done, err
}

func (b *blobs) Get(ctx context.Context, key blobstore.Key, offset, length int64) (io.ReadCloser, error) {
	b.gets.Add(1)
	b.mu.Lock()
	failed := b.failed
	b.mu.Unlock()
	if failed != nil {
		return nil, failed
	}
	return b.Store.Get(ctx, key, offset, length)
}

func (b *blobs) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

// newCluster makes a cluster with one account, which has the mailboxes INBOX and
// Archive and the given limits.
func newCluster(t testing.TB, limits metadata.Quota) *cluster {
	t.Helper()
	c := &cluster{t: t, dsn: metadatatest.DSN(t), blobs: &blobs{Store: memory.New()}}
	bus := new(hub.Hub)
	c.open = func(o events.Options, wrap func(events.Transport) events.Transport) *events.Node {
		node, err := events.Start(o, func(in *events.Inlet) (events.Transport, error) {
			transport, err := bus.Dial(in)
			return wrap(transport), err
		})
		if err != nil {
			t.Fatal(err)
		}
		return node
	}
	c.db = c.connect()
	c.account = metadatatest.Account(t, c.db, "a@example.org", func(n *metadata.NewAccount) {
		n.Limits = limits
		n.Mailboxes = []metadata.NewMailbox{{Name: "Archive"}}
	})
	return c
}

func (c *cluster) connect() *metadata.DB {
	c.t.Helper()
	db, err := metadata.Open(c.t.Context(), metadata.Config{DSN: c.dsn})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(db.Close)
	return db
}

// node is a Store with a connection pool and an end of the bus of its own, and a
// session of the cluster's account.
type node struct {
	*Store
	*Account
	db     *metadata.DB
	faults *eventtest.Faults
	ended  chan struct{} // a token: the session was told to end
	stop   func()
}

// node starts a node; its sweep runs once an hour unless options say otherwise.
func (c *cluster) node(options ...func(*Config)) *node {
	c.t.Helper()
	n := c.still(options...)
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := n.Store.Run(ctx); err != nil {
			c.t.Error(err)
		}
	})
	stop := n.stop
	n.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		stop()
	})
	c.t.Cleanup(n.stop)
	return n
}

// still is a node that does nothing of itself: it hears nothing and never sweeps.
func (c *cluster) still(options ...func(*Config)) *node {
	c.t.Helper()
	n := &node{db: c.connect(), faults: new(eventtest.Faults), ended: make(chan struct{}, 1)}
	bus := c.open(events.Options{Heartbeat: 20 * time.Millisecond, Gap: 100 * time.Millisecond, Silence: time.Hour}, n.faults.Wrap)
	cfg := Config{
		DB: n.db, Blobs: c.blobs, Bus: bus, Log: zap.NewNop(), TempDir: c.t.TempDir(),
		Sweep: time.Hour, SweepDeaf: time.Hour, Collect: -1,
	}
	for _, option := range options {
		option(&cfg)
	}
	var err error
	if n.Store, err = New(context.WithoutCancel(c.t.Context()), cfg); err != nil {
		c.t.Fatal(err)
	}
	n.stop = sync.OnceFunc(func() {
		n.work.Wait()
		if err := bus.Close(); err != nil {
			c.t.Error(err)
		}
	})
	c.t.Cleanup(n.stop)
	n.Account = n.Store.Account(c.account, func() { token(n.ended) })
	return n
}

func token(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// client is a mailbox that is open, and its news.
type client struct {
	*Mailbox
	t    testing.TB
	news chan struct{} // a token: changed was called
}

func (c *cluster) enter(n *node, name string) *client {
	c.t.Helper()
	cl := &client{t: c.t, news: make(chan struct{}, 1)}
	var err error
	if cl.Mailbox, err = n.Open(c.t.Context(), name, func() { token(cl.news) }); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(cl.Close)
	return cl
}

// await waits for news until what is waited for is so.
func (cl *client) await(what string, is func() bool) {
	cl.t.Helper()
	timeout := time.After(patience)
	for !is() {
		select {
		case <-cl.news:
		case <-timeout:
			cl.t.Fatalf("no news of %s", what)
		}
	}
}

// mail is a small message.
func mail(subject string) string {
	return "From: a@example.org\r\nSubject: " + subject + "\r\nMessage-ID: <" + subject + "@example.org>\r\n\r\n" + subject + "\r\n"
}

func (c *cluster) append(n *node, mailbox, text string, flags ...string) Appended {
	c.t.Helper()
	done, err := upload(c.t.Context(), n.Account, Incoming{Mailbox: mailbox, Flags: flagSet(flags...)}, text, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return done
}

func upload(ctx context.Context, a *Account, in Incoming, text string, delivery *[32]byte) (Appended, error) {
	u, err := a.Upload(ctx, in, int64(len(text)))
	if err != nil {
		return Appended{}, err
	}
	defer u.Discard()
	if _, err := io.WriteString(u, text); err != nil {
		return Appended{}, err
	}
	return u.Append(ctx, delivery)
}

// flagSet has system flags by their names without backslash in lower case, and keywords.
func flagSet(names ...string) FlagSet {
	var f FlagSet
	for _, name := range names {
		switch name {
		case "seen":
			f.System |= metadata.Seen
		case "deleted":
			f.System |= metadata.Deleted
		case "flagged":
			f.System |= metadata.Flagged
		default:
			f.Keywords = append(f.Keywords, name)
		}
	}
	return f
}

func all(s *Snapshot) []metadata.UIDRange {
	return []metadata.UIDRange{{First: 1, Last: uint32(s.row.UIDNext)}}
}

func one(uid uint32) []metadata.UIDRange { return []metadata.UIDRange{{First: uid, Last: uid}} }

func (cl *client) store(uids []metadata.UIDRange, mode FlagMode, flags ...string) Stored {
	cl.t.Helper()
	done, err := cl.Store(cl.t.Context(), StoreFlags{View: cl.Snapshot(), UIDs: uids, Mode: mode, Flags: flagSet(flags...)})
	if err != nil {
		cl.t.Fatal(err)
	}
	return done
}

func (cl *client) refresh() *Snapshot {
	cl.t.Helper()
	s, err := cl.Refresh(cl.t.Context())
	if err != nil {
		cl.t.Fatal(err)
	}
	return s
}

// flags are the flags of a message as words.
func flagsOf(s *Snapshot, uid uint32) string {
	slot := s.Slot(uid)
	if !slot.Live() {
		return "gone"
	}
	words := FlagSet{System: slot.Flags & metadata.SystemFlags}.names()
	for i := range slot.Flags.Keywords {
		words = append(words, s.row.Keywords[i])
	}
	return strings.Join(words, " ")
}

func liveUIDs(s *Snapshot) []uint32 {
	var uids []uint32
	for uid := range s.Live(1, lastUID) {
		uids = append(uids, uid)
	}
	return uids
}

// check holds a mailbox's row, its slots, its rows of messages and the account's
// use against each other, as PostgreSQL has them, and returns the snapshot.
func (c *cluster) check(name string) *Snapshot {
	c.t.Helper()
	s, err := c.checked(name)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

func (c *cluster) checked(name string) (*Snapshot, error) {
	ctx := c.t.Context()
	row, err := c.db.MailboxByName(ctx, c.account.ID, name)
	if err != nil {
		return nil, err
	}
	load, err := c.db.Load(ctx, c.account.ID, row.ID, metadata.Version{})
	if err != nil {
		return nil, err
	}
	s := newSnapshot(load.Mailbox, load.Chunks)
	sizes := make(map[uint32]int64)
	err = c.db.Messages(ctx, c.account.ID, row.ID, all(s), metadata.ColSize, func(m *metadata.Message) error {
		sizes[m.UID] = m.Size
		return nil
	})
	if err != nil {
		return nil, err
	}
	var counted metadata.Counters
	for uid, slot := range s.Live(1, lastUID) {
		size, found := sizes[uid]
		if !found {
			return nil, fmt.Errorf("%s: live message %d has no row", name, uid)
		}
		counted = counted.Add(counters(slot, size))
	}
	if counted != s.row.Counters {
		return nil, fmt.Errorf("%s: counters are %+v, counted %+v", name, s.row.Counters, counted)
	}
	return s, nil
}

func counters(slot metadata.Slot, size int64) metadata.Counters {
	c := metadata.Counters{Messages: 1, Bytes: size}
	if slot.Flags&metadata.Seen == 0 {
		c.Unseen = 1
	}
	if slot.Flags&metadata.Deleted != 0 {
		c.Deleted, c.DeletedBytes = 1, size
	}
	return c
}

// same fails unless two snapshots are the same mailbox.
func same(t testing.TB, got, want *Snapshot) {
	t.Helper()
	if got.row.Version != want.row.Version || got.row.UIDNext != want.row.UIDNext || got.row.Counters != want.row.Counters ||
		got.row.Name != want.row.Name || !slices.Equal(got.row.Keywords, want.row.Keywords) {
		t.Errorf("row is %+v, want %+v", got.row, want.row)
	}
	for uid := uint32(1); int64(uid) < want.row.UIDNext; uid++ {
		if got.Slot(uid) != want.Slot(uid) {
			t.Errorf("slot of %d is %+v, want %+v", uid, got.Slot(uid), want.Slot(uid))
		}
	}
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}

// trips runs do and returns how many round trips to PostgreSQL the node made.
func (n *node) trips(do func()) int64 {
	before := n.db.Stats().RoundTrips
	do()
	return n.db.Stats().RoundTrips - before
}
