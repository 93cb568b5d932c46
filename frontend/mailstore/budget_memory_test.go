package mailstore

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

func TestBudget(t *testing.T) {
	t.Parallel()
	f := newBudget("test", 80, 10, prometheus.NewCounter(prometheus.CounterOpts{}))
	reserve := func(id metadata.AccountID, n int64, want bool) {
		t.Helper()
		if ok := f.try(id, n); ok != want {
			t.Errorf("%d for account %d: %v, want %v", n, id, ok, want)
		}
	}
	reserve(1, 50, true)  // the first of an account, though beyond its share
	reserve(1, 1, false)  // its second
	reserve(2, 31, false) // no room
	reserve(2, 5, true)
	reserve(2, 5, true)
	reserve(2, 1, false) // beyond its share of 10
	f.give(1, 50)
	f.give(2, 5)
	reserve(2, 1, true)
	f.give(2, 5)
	f.give(2, 1)
	reserve(3, 1000, true) // more than all, for nobody else has any
	if f.used != 1000 || len(f.holders) != 1 {
		t.Errorf("%d in use by %d accounts", f.used, len(f.holders))
	}
}

// Who waits for room goes on as soon as there is some, and not after the wait.
func TestBudgetWaits(t *testing.T) {
	t.Parallel()
	refused := prometheus.NewCounter(prometheus.CounterOpts{})
	f := newBudget("test", 10, 10, refused)
	f.wait = 50 * time.Millisecond
	if err := f.take(t.Context(), 1, 10); err != nil {
		t.Fatal(err)
	}
	if err := f.take(t.Context(), 2, 10); !errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("error is %v", err)
	}
	if got := testutil.ToFloat64(refused); got != 1 {
		t.Errorf("counted %v refusals", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.take(ctx, 2, 10); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	f.wait = patience
	took := make(chan error)
	go func() { took <- f.take(t.Context(), 2, 10) }()
	f.awaitClaims(t, 2, 1)
	f.give(1, 10)
	if err := <-took; err != nil {
		t.Error(err)
	}
	f.give(2, 10)
	if f.used != 0 || len(f.holders) != 0 || len(f.turns) != 0 {
		t.Errorf("%d in use by %d accounts, %d have a turn", f.used, len(f.holders), len(f.turns))
	}
}

// awaitClaims waits until so many wait for an account.
func (f *budget) awaitClaims(t *testing.T, id metadata.AccountID, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		f.mu.Lock()
		h := f.holders[id]
		waits := h != nil && len(h.claims) == n
		f.mu.Unlock()
		if waits {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d do not wait for account %d", n, id)
		}
	}
}

// Of those who wait accounts have their turns, and of an account who came first; who wants less
// passes nobody, but who waits for what its own account has.
func TestBudgetTurns(t *testing.T) {
	t.Parallel()
	f := newBudget("test", 100, 60, prometheus.NewCounter(prometheus.CounterOpts{}))
	f.wait = patience
	order := make(chan string)
	waits := make(map[metadata.AccountID]int)
	claim := func(what string, id metadata.AccountID, n int64) {
		go func() {
			if err := f.take(t.Context(), id, n); err != nil {
				what = err.Error()
			}
			order <- what
		}()
		waits[id]++
		f.awaitClaims(t, id, waits[id])
	}
	want := func(all ...string) {
		t.Helper()
		for _, what := range all {
			if got := <-order; got != what {
				t.Errorf("%s had its turn in place of %s", got, what)
			}
		}
	}
	for id := metadata.AccountID(1); id <= 4; id++ {
		if !f.try(id, 25) {
			t.Fatal("no room")
		}
	}
	claim("much", 1, 35)
	claim("its account's second", 1, 5)
	claim("its account's third", 1, 5)
	claim("another's", 2, 20)
	claim("beyond the share", 3, 36)
	f.give(4, 25) // which is not enough for the first
	if f.try(5, 1) {
		t.Error("who wants less passed who waits")
	}
	f.give(2, 20)
	want("much")
	f.give(1, 10) // for another's: its own had its turn
	want("another's")
	f.give(1, 5)
	want("its account's second")
	f.give(2, 5)
	want("its account's third")
	f.give(3, 1) // which is within its share now
	f.give(2, 20)
	f.give(1, 15)
	want("beyond the share")
	if f.used != 100 {
		t.Errorf("%d are in use", f.used)
	}
}

// Who gives up waiting keeps nobody from what it waited for, neither another account nor its own.
func TestBudgetWithdrawn(t *testing.T) {
	t.Parallel()
	for _, second := range []metadata.AccountID{2, 3} {
		f := newBudget("test", 100, 100, prometheus.NewCounter(prometheus.CounterOpts{}))
		f.wait = patience
		if !f.try(1, 40) || !f.try(2, 50) {
			t.Fatal("no room")
		}
		ctx, giveUp := context.WithCancel(t.Context())
		much, little := make(chan error), make(chan error)
		go func() { much <- f.take(ctx, 2, 51) }()
		f.awaitClaims(t, 2, 1)
		if second == 3 {
			f.adjust(2, -1) // it is within its share, and has its turn
		}
		go func() { little <- f.take(t.Context(), second, 10) }()
		f.awaitClaims(t, second, int(4-second))
		giveUp()
		if err := <-much; !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v", err)
		}
		if err := <-little; err != nil {
			t.Error(err)
		}
	}
}

// Memory that is held for long is not kept for one who waits for much.
func TestBudgetPassed(t *testing.T) {
	t.Parallel()
	f := newBudget("test", 100, noShare, prometheus.NewCounter(prometheus.CounterOpts{}))
	f.wait, f.passes = patience, true
	for id := metadata.AccountID(1); id <= 2; id++ {
		if !f.try(id, 50) {
			t.Fatal("no room")
		}
	}
	took := make(chan error)
	go func() { took <- f.take(t.Context(), 3, 60) }()
	f.awaitClaims(t, 3, 1)
	go func() { took <- f.take(t.Context(), 4, 30) }()
	f.awaitClaims(t, 4, 1)
	f.give(1, 50)
	if err := <-took; err != nil || f.used != 80 {
		t.Errorf("%d are in use: %v", f.used, err)
	}
	if !f.try(5, 20) {
		t.Error("who waits for much keeps the rest from others")
	}
	f.give(2, 50)
	f.give(4, 30)
	if err := <-took; err != nil {
		t.Error(err)
	}
}

// What an upload takes it gives back, however it ends.
func TestUploadGivesBack(t *testing.T) {
	t.Parallel()
	n := newCluster(t, metadata.Quota{}).node()
	for _, mailbox := range []string{Inbox, "nowhere"} {
		u, err := n.Upload(t.Context(), Incoming{Mailbox: mailbox}, 100)
		if err == nil {
			if got := n.inflight.used; got != uploadCost(100) {
				t.Errorf("%d octets are reserved", got)
			}
			u.Discard()
		}
	}
	if got := n.inflight.used; got != 0 {
		t.Errorf("%d octets are still reserved", got)
	}
}

// Whoever asked to hear of it hears when somebody waits for memory that clients hold.
func TestShortageIsTold(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	n := c.node(func(cfg *Config) { cfg.Inflight, cfg.ReadMemory = 1, 3 })
	told := make(chan struct{}, 100)
	for range 2 {
		n.Store.OnShortage(func(metadata.AccountID) { told <- struct{}{} })
	}
	for name, reserve := range map[string]func(ctx context.Context) error{
		"message": func(ctx context.Context) error {
			_, err := n.Upload(ctx, Incoming{Mailbox: Inbox}, 100)
			return err
		},
		"rows": func(ctx context.Context) error { return n.ReserveRows(ctx, 100) },
		"read": func(ctx context.Context) error { return n.ReserveRead(ctx, 100) },
	} {
		if err := reserve(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(told) != 0 {
			t.Errorf("%s: somebody heard of a shortage that is none", name)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		if err := reserve(ctx); err == nil {
			t.Errorf("%s: there is room for two", name)
		}
		cancel()
		if len(told) < 2 {
			t.Errorf("%s: %d of 2 heard that there is none left", name, len(told))
		}
		for len(told) > 0 {
			<-told
		}
	}
}

// A mailbox of which only UIDNEXT is large takes no more than what it has: beside others it could otherwise not be
// opened any more.
func TestSparseMailbox(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	node := func() *node {
		n := c.still(func(c *Config) { c.SnapshotMemory = 1 << 20 })
		n.snapshots.wait = time.Millisecond
		c.enter(n, Inbox)
		return n
	}
	x, y := node(), node()
	c.append(c.still(), "Archive", mail("1"))
	metadatatest.Exec(t, c.dsn, "update mailbox set uidnext = 100000000 where name = 'Archive'")
	if n := c.enter(x, "Archive").Snapshot().Len(); n != 1 {
		t.Errorf("%d messages", n)
	}
	metadatatest.Exec(t, c.dsn, fmt.Sprintf(`
insert into flags (account_id, mailbox_id, chunk, slots, max_modseq)
select account_id, id, i, '\x01', 1
from mailbox, generate_series(1, %d) i
where name = 'Archive'`, 1<<20/fullChunkBytes))
	_, err := y.Open(t.Context(), "Archive", func() {})
	wantError(t, err, metadata.ErrUnavailable)
}
