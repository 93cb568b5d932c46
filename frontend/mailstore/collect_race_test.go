package mailstore_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"starling/frontend/mailstore"
	"starling/metadata"
)

// actor is a session that does this and that with two mailboxes.
type actor struct {
	*site
	store *mailstore.Store
	acc   *mailstore.Account
	boxes [2]*mailstore.Mailbox
	rnd   *rand.Rand
	did   *deeds
}

// deeds count what was done.
type deeds struct{ appended, expunged, moved, copied, undeleted, read atomic.Int64 }

var boxNames = [2]string{"INBOX", "Archive"}

// TestCollectRace: sessions on two nodes append, store, expunge, copy, move,
// undelete and read, while the collectors of both run all the time and keep
// nothing. No object goes that a message names; in the end all that is named is
// there, and nothing else.
func TestCollectRace(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{Messages: 1 << 40})
	end := time.Now().Add(4 * time.Second)
	var did deeds
	var working, collecting sync.WaitGroup
	stop := make(chan struct{})
	var stores []*mailstore.Store
	for n := range 2 {
		store := s.store()
		stores = append(stores, store)
		for i := range 3 {
			a := &actor{site: s, store: store, rnd: rand.New(rand.NewPCG(1, uint64(10*n+i))), did: &did}
			for i, name := range boxNames {
				a.acc, a.boxes[i] = s.open(store, name, func() {})
			}
			working.Go(func() {
				for time.Now().Before(end) && !t.Failed() {
					if err := a.step(context.WithoutCancel(t.Context())); err != nil {
						t.Error(err)
					}
				}
			})
		}
		collecting.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				report, err := store.Collect(context.WithoutCancel(t.Context()), 0)
				if err != nil {
					t.Error(err)
					return
				}
				if report.Failed > 0 {
					t.Errorf("collected %+v", report)
				}
			}
		})
	}
	working.Wait()
	close(stop)
	collecting.Wait()
	if t.Failed() {
		return
	}
	racing := s.blobs.deleted.Load()
	s.settle(stores[0])
	t.Logf("appended %d, expunged %d, copied %d, moved %d, undeleted %d, read %d; %d objects deleted meanwhile",
		did.appended.Load(), did.expunged.Load(), did.copied.Load(), did.moved.Load(), did.undeleted.Load(), did.read.Load(), racing)
	for what, n := range map[string]int64{
		"expunges": did.expunged.Load(), "copies": did.copied.Load(), "moves": did.moved.Load(),
		"undeletes": did.undeleted.Load(), "deletes": racing,
	} {
		if n < 5 {
			t.Errorf("%d %s are no race", n, what)
		}
	}
}

func (a *actor) step(ctx context.Context) error {
	from := a.rnd.IntN(2)
	box, name, other := a.boxes[from], boxNames[from], boxNames[1-from]
	view := box.Snapshot()
	if a.rnd.IntN(3) == 0 {
		var err error
		if view, err = box.Refresh(ctx); err != nil {
			return err
		}
	}
	keyword := fmt.Sprintf("k%d", a.rnd.IntN(8))
	kind := a.rnd.IntN(14)
	if view.Len() == 0 || kind < 4 {
		flags := mailstore.FlagSet{}
		if kind == 0 {
			flags.Keywords = []string{keyword}
		}
		_, err := deliver(ctx, a.acc, name, letter+strings.Repeat("x", a.rnd.IntN(200)), flags)
		a.did.appended.Add(1)
		return err
	}
	first := view.UID(a.rnd.IntN(view.Len()))
	last := first + uint32(a.rnd.IntN(3))
	args := mailstore.CopyArgs{View: view, UIDs: uids(first, last), Dest: other}
	switch kind {
	case 4, 5:
		return a.setFlags(ctx, box, view, uids(first, last), mailstore.FlagMode(1+a.rnd.IntN(2)), mailstore.FlagSet{System: metadata.Seen, Keywords: []string{keyword}})
	case 6, 7:
		if err := a.setFlags(ctx, box, view, uids(first, last), mailstore.AddFlags, mailstore.FlagSet{System: metadata.Deleted}); err != nil {
			return err
		}
		_, err := box.Expunge(ctx, box.Snapshot(), uids(first, last))
		a.did.expunged.Add(1)
		return err
	case 8:
		done, err := box.Copy(ctx, args)
		a.did.copied.Add(int64(len(done.Source)))
		return err
	case 9:
		args.Dest = name
		done, err := box.Copy(ctx, args)
		a.did.copied.Add(int64(len(done.Source)))
		return err
	case 10, 11:
		done, err := box.Move(ctx, args)
		a.did.moved.Add(int64(len(done.Source)))
		return err
	case 12:
		done, err := box.Undelete(ctx, uids(1, 1<<32-1))
		a.did.undeleted.Add(int64(len(done.Source)))
		return err
	default:
		return a.read(ctx, box, first)
	}
}

func (a *actor) setFlags(ctx context.Context, box *mailstore.Mailbox, view *mailstore.Snapshot, which []metadata.UIDRange, mode mailstore.FlagMode, flags mailstore.FlagSet) error {
	_, err := box.Store(ctx, mailstore.StoreFlags{View: view, UIDs: which, Mode: mode, Flags: flags})
	return err
}

// read reads a message to its end, which may fail only if it is expunged.
func (a *actor) read(ctx context.Context, box *mailstore.Mailbox, uid uint32) error {
	found := false
	var failed error
	err := box.Messages(ctx, uids(uid, uid), metadata.ColBlob|metadata.ColSize, func(m *metadata.Message) error {
		found = true
		body, err := box.Body(m)
		if err != nil {
			return err
		}
		defer body.Close()
		_, failed = io.Copy(io.Discard, io.NewSectionReader(body.At(ctx), 0, m.Size))
		return nil
	})
	if err != nil || found && failed == nil {
		a.did.read.Add(1)
		return err
	}
	now, err := box.Refresh(ctx)
	if err != nil {
		return err
	}
	if now.Slot(uid).Live() {
		return fmt.Errorf("message %d of mailbox %d: row found: %v, reading: %w", uid, box.ID(), found, failed)
	}
	return nil
}
