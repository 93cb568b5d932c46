package metadata_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

// A commit that has to take its mailbox into a new epoch holds no connection while it
// waits for one: after a failover all commits do so at once.
func TestEpochJumpNeedsOneConnection(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t, func(c *metadata.Config) { c.MaxConns, c.AcquireTimeout = 2, 2*time.Second })
	ctx := t.Context()
	var boxes []metadata.Mailbox
	for _, name := range []string{"a@example.org", "b@example.org"} {
		account := metadatatest.Account(t, db, name)
		box, err := db.MailboxByName(ctx, account.ID, "INBOX")
		check(t, err)
		boxes = append(boxes, box)
	}
	check(t, errOf(db.BumpEpoch(ctx)))
	commit := func(box metadata.Mailbox, during func()) error {
		_, err := db.CommitLocked(ctx, box.Account, []metadata.MailboxID{box.ID}, []metadata.Version{box.Version},
			func([]metadata.Load) (*metadata.Commit, error) {
				during()
				return nil, nil
			})
		return err
	}
	locked, done, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- commit(boxes[0], func() {
			close(locked)
			<-done
		})
	}()
	<-locked // one of the two connections is taken
	err := commit(boxes[1], func() {})
	close(done)
	check(t, <-ended)
	check(t, err)
}

// While PostgreSQL is away, calls hear so at once, but for one that tries; and they work
// again when it is back.
func TestAwayIsToldAtOnce(t *testing.T) {
	t.Parallel()
	var figures []*prometheus.Registry // of each that is opened
	w, through, direct := newWire(t, func(c *metadata.Config) {
		c.MinBackoff, c.MaxBackoff, c.AcquireTimeout = 200*time.Millisecond, 400*time.Millisecond, time.Second
		figures = append(figures, prometheus.NewRegistry())
		c.Metrics = figures[len(figures)-1]
	})
	account := metadatatest.Account(t, direct, "away@example.org").ID
	check(t, errOf(through.List(t.Context(), account)))
	w.setDown(true)
	w.cut()
	wantErr(t, errOf(through.List(t.Context(), account)), metadata.ErrUnavailable)
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			if err := errOf(through.List(t.Context(), account)); !errors.Is(err, metadata.ErrUnavailable) {
				t.Errorf("got %v, want to hear that it is unavailable", err)
			}
		})
	}
	all.Wait()
	if shed := figure(t, figures[0], "starling_postgres_shed_total", "away"); shed < 100 {
		t.Errorf("%v of 200 calls were told at once", shed)
	}
	if dials := w.refused.Load(); dials > 40 {
		t.Errorf("%d dials", dials)
	}
	w.setDown(false)
	for until := time.Now().Add(time.Minute); ; {
		err := errOf(through.List(t.Context(), account))
		if err == nil {
			break
		}
		if wantErr(t, err, metadata.ErrUnavailable); time.Now().After(until) {
			t.Fatal(err)
		}
	}
}

// That all connections are in use does not make PostgreSQL seem away.
func TestPingHasItsOwnConnection(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t, func(c *metadata.Config) { c.MaxConns, c.AcquireTimeout = 2, 500*time.Millisecond })
	n := inboxOf(t, db)
	n = do(t, db, n, n.appending(1))
	var busy sync.WaitGroup
	reading, release := make(chan struct{}), make(chan struct{})
	end := sync.OnceFunc(func() { close(release) })
	defer busy.Wait()
	defer end()
	for range 2 {
		busy.Go(func() {
			err := db.Messages(t.Context(), n.box.Account, n.box.ID, []metadata.UIDRange{{First: 1, Last: 1}}, 0, func(*metadata.Message) error {
				reading <- struct{}{}
				<-release
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		<-reading
	}
	wantErr(t, errOf(db.List(t.Context(), n.box.Account)), metadata.ErrUnavailable)
	check(t, db.Ping(t.Context()))
}
