package mailstore

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"starling/metadata"
)

func TestBudget(t *testing.T) {
	t.Parallel()
	f := newBudget("test", 80, 10, prometheus.NewCounter(prometheus.CounterOpts{}))
	reserve := func(id metadata.AccountID, n int64, want bool) {
		t.Helper()
		if _, ok := f.try(id, n); ok != want {
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
	if f.used != 1000 || len(f.account) != 1 {
		t.Errorf("%d in use by %d accounts", f.used, len(f.account))
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
	freed, _ := f.try(2, 10)
	f.give(1, 10)
	<-freed
	if err := f.take(t.Context(), 2, 10); err != nil {
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
		n.Store.OnShortage(func() { told <- struct{}{} })
	}
	for name, reserve := range map[string]func(ctx context.Context) error{
		"message": func(ctx context.Context) error {
			_, err := n.Upload(ctx, Incoming{Mailbox: Inbox}, 100)
			return err
		},
		"rows": func(ctx context.Context) error { return n.ReserveRows(ctx, 100) },
		"read": func(ctx context.Context) error { _, err := n.ReserveRead(ctx, 100); return err },
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
