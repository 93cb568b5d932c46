package mailstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"starling/blobstore"
	"starling/events"
	"starling/metadata"
)

// measured has a node register its figures, which it returns.
func measured() (option func(*Config), registry *prometheus.Registry) {
	registry = prometheus.NewRegistry()
	return func(c *Config) { c.Metrics = registry }, registry
}

// wantMetrics compares figures as "name{label=value} number".
func wantMetrics(t *testing.T, registry *prometheus.Registry, want ...string) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			for _, label := range m.GetLabel() {
				name += "{" + label.GetValue() + "}"
			}
			switch {
			case m.GetCounter() != nil:
				got[name] = m.GetCounter().GetValue()
			case m.GetGauge() != nil:
				got[name] = m.GetGauge().GetValue()
			default:
				got[name] = float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	for i := 0; i < len(want); i++ {
		name, value, _ := strings.Cut(want[i], " ")
		number, found := got["starling_"+name]
		switch {
		case !found:
			t.Errorf("there is no %s", name)
		case value == "some":
			if number <= 0 {
				t.Errorf("%s is %v", name, number)
			}
		case prometheusNumber(t, value) != number:
			t.Errorf("%s is %v, want %s", name, number, value)
		}
	}
}

func prometheusNumber(t *testing.T, text string) float64 {
	t.Helper()
	i := slices.Index([]string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}, text)
	if i < 0 {
		t.Fatalf("%q is no small number", text)
	}
	return float64(i)
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{Messages: 4})
	option, registry := measured()
	x, y := c.node(option), c.node()
	wantMetrics(t, registry, "mailstore_mailboxes 0", "mailstore_snapshot_bytes 0", "mailstore_commits_total{append} 0", "collector_backlog{doomed} 0")
	for i := range 4 {
		c.append(x, Inbox, mail([]string{"1", "2", "3", "4"}[i]))
	}
	_, err := upload(t.Context(), x.Account, Incoming{Mailbox: Inbox}, mail("5"), nil)
	wantError(t, err, metadata.ErrOverQuota)
	mine := c.enter(x, Inbox)
	mine.together(
		func() { mine.store(one(1), AddFlags, "seen") },
		func() { mine.store(one(2), AddFlags, "deleted") },
		func() { mine.store(one(3), AddFlags, "seen") })
	if _, err := mine.Expunge(t.Context(), mine.Snapshot(), nil); err != nil {
		t.Fatal(err)
	}
	move := CopyArgs{View: mine.Snapshot(), UIDs: one(1), Dest: "Archive", All: true}
	if _, err := mine.Move(t.Context(), move); err != nil {
		t.Fatal(err)
	}
	wantMetrics(
		t, registry, "mailstore_commits_total{append} 4", "mailstore_commits_total{store} 1", "mailstore_commits_total{expunge} 1",
		"mailstore_commits_total{move} 1", "mailstore_commits_total{mixed} 0", "mailstore_group_size 7", "mailstore_conflicts_total 0",
		"mailstore_mailboxes 2", "mailstore_loads_total{cold} 2", "mailstore_over_quota_total 1", "mailstore_inflight_bytes 0",
		"mailstore_snapshot_bytes some", "mailstore_hint_latency_seconds 0", "mailstore_catch_ups_total{hint} 0",
	)
	theirs := c.enter(y, Inbox)
	theirs.store(one(3), AddFlags, "flagged")
	mine.await("store", func() bool { return flagsOf(mine.Snapshot(), 3) == `\Seen \Flagged` })
	wantMetrics(t, registry, "mailstore_hint_latency_seconds 1", "mailstore_catch_ups_total{hint} 1")
	y.faults.Mute(true)
	theirs.store(one(3), RemoveFlags, "flagged")
	if err := x.sweep(t.Context(), forSweep, func(metadata.AccountID) bool { return true }); err != nil {
		t.Fatal(err)
	}
	mine.await("store without a hint", func() bool { return flagsOf(mine.Snapshot(), 3) == `\Seen` })
	wantMetrics(t, registry, "mailstore_sweep_found_total 1", "mailstore_catch_ups_total{sweep} 1")
	theirs.store(one(3), AddFlags, "flagged")
	mine.store(one(4), AddFlags, "flagged")
	wantMetrics(t, registry, "mailstore_conflicts_total 1")
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// What a MOVE does to two mailboxes is told in one message.
func TestHintsOfMoveAreOneMessage(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x, y := c.node(), c.node()
	c.append(x, Inbox, mail("1"))
	mine, theirs, archive := c.enter(x, Inbox), c.enter(y, Inbox), c.enter(y, "Archive")
	if _, err := mine.Move(t.Context(), CopyArgs{View: mine.Snapshot(), UIDs: one(1), Dest: "Archive", All: true}); err != nil {
		t.Fatal(err)
	}
	theirs.await("move", func() bool { return theirs.Snapshot().Len() == 0 })
	archive.await("move", func() bool { return archive.Snapshot().Len() == 1 })
	x.stop() // all is sent
	if n := x.cfg.Bus.(*events.Node).Counters().Published; n != 2 {
		t.Errorf("%d messages for APPEND and MOVE", n)
	}
}

// The sweep found only what no hint has told of by the time it was read, and no commit of the node's own.
func TestSweepFound(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x, y := c.still(), c.still()
	c.append(x, Inbox, mail("1"))
	mine, theirs := c.enter(x, Inbox), c.enter(y, Inbox)
	sweep := func(found float64, before func()) {
		t.Helper()
		mine.store(one(1), SetFlags, fmt.Sprint("k", mine.Snapshot().row.ModSeq))
		before()
		if err := theirs.box.refreshFor(t.Context(), forSweep); err != nil {
			t.Fatal(err)
		}
		if got := testutil.ToFloat64(y.metrics.sweepFound); got != found {
			t.Errorf("found %v, want %v", got, found)
		}
	}
	sweep(1, func() {})
	sweep(1, func() {
		now := mine.Snapshot().row
		theirs.box.told(events.Event{ModSeq: now.ModSeq, Epoch: now.Epoch, At: 1})
	})
	sweep(1, func() { theirs.box.turn <- struct{}{} })
	<-theirs.box.turn
	sweep(2, func() {})
}

func TestMetricsOfTheCollector(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	option, registry := measured()
	x := c.still(option, func(c *Config) { c.Retention, c.BackupWindow = -1, -1 })
	c.append(x, Inbox, mail("1"), "deleted")
	mine := c.enter(x, Inbox)
	if _, err := mine.Expunge(t.Context(), mine.Snapshot(), nil); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the objects go in the second
		if _, err := x.Collect(t.Context(), c.account.ID); err != nil {
			t.Fatal(err)
		}
	}
	wantMetrics(
		t, registry, "collector_runs_total{ok} 2", "collector_runs_total{failed} 0", "collector_last_run_timestamp_seconds some",
		"collector_removed_total{messages} 1", "collector_removed_total{objects} 1", "mailstore_commits_total{collect} 1",
		"collector_backlog{expunged} 0", "collector_backlog{doomed} 0",
	)
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := x.Collect(ended, c.account.ID); err == nil {
		t.Error("the collector ran with a context that is done")
	}
	wantMetrics(t, registry, "collector_runs_total{failed} 1")
}

// What is due and fails stays in the backlog.
func TestBacklog(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	option, registry := measured()
	x := c.still(option)
	c.append(x, Inbox, mail("1"))
	away := errors.New("away")
	run := &collector{store: x.Store, db: c.db, owner: 1}
	due := func(after metadata.AccountID) ([]metadata.AccountID, error) {
		if after != 0 {
			return nil, nil
		}
		return []metadata.AccountID{1, 2, 3}, nil
	}
	err := run.eachAccount(t.Context(), taskDoomed, due, func(id metadata.AccountID) error {
		if id == 2 {
			return away
		}
		return nil
	})
	if err != nil || run.report.Failed != 1 {
		t.Errorf("report %+v, %v", run.report, err)
	}
	wantMetrics(t, registry, "collector_backlog{doomed} 1", "collector_backlog{expunged} 0")
}

func TestCorruptObjectsAreCounted(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	option, registry := measured()
	x := c.still(option)
	c.append(x, Inbox, mail("1"))
	mine := c.enter(x, Inbox)
	row := mine.row(1)
	key := blobstore.Object(row.Object).Key(int64(c.account.ID))
	stored, err := c.blobs.Store.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	object, err := io.ReadAll(stored)
	if err := errors.Join(err, stored.Close(), c.blobs.Delete(t.Context(), key)); err != nil {
		t.Fatal(err)
	}
	object[len(object)-1] ^= 1
	if _, err := c.blobs.Put(t.Context(), key, bytes.NewReader(object), int64(len(object))); err != nil {
		t.Fatal(err)
	}
	b, err := mine.Body(&row)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	wantError(t, b.ReadRange(t.Context(), new(strings.Builder), 0, b.Size()), blobstore.ErrCorrupt)
	wantMetrics(t, registry, "mailstore_corrupt_objects_total 1")
	row.Extent = row.Extent[:1]
	_, err = mine.Body(&row)
	wantError(t, err, blobstore.ErrCorrupt)
	wantMetrics(t, registry, "mailstore_corrupt_objects_total 2")
}

func TestStatus(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still(func(c *Config) { c.Inflight, c.SnapshotMemory, c.ReadMemory = 1<<20, 2<<20, 3<<20 })
	c.append(x, Inbox, mail("1"))
	c.append(x, "Archive", mail("1"))
	c.enter(x, Inbox)
	u, err := x.Upload(t.Context(), Incoming{Mailbox: Inbox}, 100)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.ReserveRead(t.Context(), 50); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Collect(t.Context(), c.account.ID); err != nil {
		t.Fatal(err)
	}
	x.swept(time.Now(), errors.New("it failed"))
	x.watch.note(false, nil)
	got := x.Status()
	if got.Sweep.Error != "it failed" || got.Sweep.At.IsZero() || got.Collector.At.IsZero() || got.Collector.Error != "" || got.Collector.Report.Scanned != 1 {
		t.Errorf("status %+v", got)
	}
	if got.Snapshots.Used <= 0 {
		t.Errorf("no memory is used by mailboxes: %+v", got)
	}
	got.Sweep, got.Collector, got.Snapshots.Used = LastRun{}, CollectRun{}, 0
	want := Status{
		Accounts: 1, Sessions: 1, Mailboxes: 2, Open: 1, Deaf: true,
		Snapshots: Memory{Most: 2 << 20}, Inflight: Memory{Used: uploadCost(100), Most: 1 << 20}, Reads: Memory{Used: 50, Most: 2 << 20}, Rows: Memory{Most: 1 << 20},
	}
	if got != want {
		t.Errorf("status %+v\nwant   %+v", got, want)
	}
	u.Discard()
	x.AdjustRead(-50)
	x.Close()
	if got := x.Status(); got.Accounts != 0 || got.Inflight.Used != 0 || got.Reads.Used != 0 {
		t.Errorf("status %+v", got)
	}
}

// A trace of the protocol is switched on and off on all nodes, at once and, where no
// hint arrives, by the sweep. Nobody's session ends of it.
func TestSetTrace(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x, y, z := c.node(), c.node(), c.node(often)
	until := time.Now().Add(time.Hour).Truncate(time.Microsecond)
	reaches := func(n *node, want time.Time) {
		t.Helper()
		deadline, end := context.WithTimeout(t.Context(), patience)
		defer end()
		for !n.TraceUntil().Equal(want) {
			if deadline.Err() != nil {
				t.Fatalf("traced until %v, want %v", n.TraceUntil(), want)
			}
			time.Sleep(time.Millisecond) // nobody is told of it
		}
	}
	for _, want := range []time.Time{until, {}} {
		x.faults.Mute(!want.IsZero())
		if err := x.SetTrace(t.Context(), c.account.Name, want); err != nil {
			t.Fatal(err)
		}
		if got := x.TraceUntil(); !got.Equal(want) {
			t.Errorf("traced until %v at once, want %v", got, want)
		}
		reaches(z, want)
		if want.IsZero() {
			reaches(y, want)
		}
	}
	x.faults.Mute(false)
	if err := x.SetTrace(t.Context(), c.account.Name, until); err != nil {
		t.Fatal(err)
	}
	reaches(y, until)
	row, err := c.db.Recipient(t.Context(), c.account.Name)
	if err != nil {
		t.Fatal(err)
	}
	later := x.Store.Account(row, func() {})
	defer later.Close()
	if got := later.TraceUntil(); !got.Equal(until) {
		t.Errorf("a later login is traced until %v", got)
	}
	for _, name := range []string{"nobody@example.org", "nobody\x00@example.org", "nobody\xff@example.org"} {
		wantError(t, x.SetTrace(t.Context(), name, until), metadata.ErrNotFound)
	}
	for _, n := range []*node{x, y, z} {
		select {
		case <-n.ended:
			t.Error("a session was ended")
		default:
		}
	}
}

// However many mailboxes are opened, they do not take more memory than they may, and
// everybody gets an answer.
func TestSnapshotBudget(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	w := c.still()
	names := []string{"1", "2", "3", "4", "5", "6", "7", "8"}
	c.append(w, Inbox, mail("1"))
	fill := c.enter(w, Inbox)
	for range 9 { // 512 messages
		view := fill.Snapshot()
		if _, err := fill.Copy(t.Context(), CopyArgs{View: view, UIDs: all(view), Dest: Inbox}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		create(t, w, name)
		if _, err := fill.Copy(t.Context(), CopyArgs{View: fill.Snapshot(), UIDs: all(fill.Snapshot()), Dest: name}); err != nil {
			t.Fatal(err)
		}
	}
	cost := fill.Snapshot().bytes
	option, registry := measured()
	x := c.still(option, func(c *Config) { c.SnapshotMemory = 3*cost + cost/2 })
	within := func() {
		if used := x.snapshots.inUse(); used > x.snapshots.most {
			t.Errorf("%d bytes of %d are in use", used, x.snapshots.most)
		}
	}
	open := func(name string) (*Mailbox, error) {
		defer within()
		return x.Open(t.Context(), name, func() {})
	}

	// Those who close again make room for the others.
	var running sync.WaitGroup
	for range 4 {
		for _, name := range names {
			running.Go(func() {
				m, err := open(name)
				if err != nil {
					t.Error(err)
					return
				}
				if got := m.Snapshot().Len(); got != 512 {
					t.Errorf("%d messages", got)
				}
				m.Close()
			})
		}
	}
	running.Wait()

	// Those who stay do not.
	x.snapshots.wait = 50 * time.Millisecond
	var opened []*Mailbox
	refused := 0
	for _, name := range names {
		switch m, err := open(name); {
		case err == nil:
			opened = append(opened, m)
		case errors.Is(err, metadata.ErrUnavailable):
			refused++
		default:
			t.Error(err)
		}
	}
	if idle, boxes := x.idle.Load(), x.boxes.Load(); idle != boxes-int64(len(opened)) {
		t.Errorf("%d of %d mailboxes are idle", idle, boxes)
	}
	if len(opened) != 3 || refused != len(names)-3 {
		t.Errorf("%d were opened and %d refused", len(opened), refused)
	}
	wantMetrics(t, registry, "mailstore_memory_refused_total{snapshot} 5", "mailstore_memory_refused_total{message} 0")

	// Who waits goes on when somebody leaves.
	x.snapshots.wait = patience
	waiting := make(chan error)
	go func() {
		m, err := open(names[len(names)-1])
		if err == nil {
			m.Close()
		}
		waiting <- err
	}()
	opened[0].Close()
	if err := <-waiting; err != nil {
		t.Error(err)
	}
	for _, m := range opened[1:] {
		m.Close()
	}
	x.evict(time.Now().Add(time.Hour))
	if used := x.snapshots.inUse(); used != 0 || x.boxes.Load() != 0 || x.idle.Load() != 0 {
		t.Errorf("%d bytes of %d mailboxes are in use by nobody", used, x.boxes.Load())
	}
}

// What a mailbox grows by counts, and what cannot be loaded does not.
func TestSnapshotBytes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x, y := c.still(), c.still()
	mine := c.enter(x, Inbox)
	holds := func(what string) {
		t.Helper()
		b := mine.box
		b.mu.Lock()
		want := mine.Snapshot().bytes + b.sizeBytes
		b.mu.Unlock()
		if got := x.snapshots.inUse(); got != want || b.charged != want {
			t.Errorf("%s: %d bytes are in use, want %d", what, got, want)
		}
	}
	holds("empty")
	before := x.snapshots.inUse()
	c.append(x, Inbox, mail("1"), "deleted")
	holds("with a message")
	if grown := x.snapshots.inUse() - before; grown < fullChunkBytes/8 {
		t.Errorf("grew by %d bytes", grown)
	}
	c.append(y, Inbox, mail("2"))
	mine.refresh()
	mine.store(one(2), AddFlags, "deleted") // whose size is read
	holds("with another's")

	_, err := x.Open(t.Context(), "nowhere", func() {})
	wantError(t, err, metadata.ErrNoMailbox)
	x.db.Close()
	_, err = x.Open(t.Context(), "Archive", func() {})
	if err == nil {
		t.Error("opened without a database")
	}
	holds("after loads that failed")
}
