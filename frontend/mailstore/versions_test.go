package mailstore_test

import (
	"context"
	"iter"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"starling/blobstore"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// versioned is an object store that has kept three versions of each object.
type versioned struct {
	*guard
	t *testing.T

	mu   sync.Mutex
	gone map[blobstore.Version]bool
	busy map[blobstore.Key]bool
}

func versionsOf(key blobstore.Key) []blobstore.Version {
	return []blobstore.Version{{Key: key, ID: "third"}, {Key: key, ID: "second"}, {Key: key, ID: "first"}}
}

func (s *versioned) Versions(ctx context.Context, prefix string) iter.Seq2[blobstore.Version, error] {
	return func(yield func(blobstore.Version, error) bool) {
		for info, err := range s.List(ctx, prefix, "") {
			for _, v := range versionsOf(info.Key) {
				s.mu.Lock()
				gone := s.gone[v]
				s.mu.Unlock()
				if !gone && !yield(v, err) {
					return
				}
			}
		}
	}
}

func (s *versioned) DeleteVersion(ctx context.Context, v blobstore.Version) error {
	s.mu.Lock()
	if s.busy[v.Key] {
		s.t.Errorf("two versions of %s are deleted at the same time", v.Key)
	}
	s.busy[v.Key] = true
	s.mu.Unlock()
	for range 100 {
		runtime.Gosched()
	}
	s.mu.Lock()
	s.busy[v.Key], s.gone[v] = false, true
	all := !slices.ContainsFunc(versionsOf(v.Key), func(v blobstore.Version) bool { return !s.gone[v] })
	s.mu.Unlock()
	if all {
		return s.Delete(ctx, v.Key)
	}
	return nil
}

// Of a deleted account no version of any object stays in a bucket that keeps them, and those of
// one object go one after the other, because not every server can take two at the same time.
func TestCollectDeletedAccountWithVersions(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{})
	blobs := &versioned{guard: s.blobs, t: t, gone: make(map[blobstore.Version]bool), busy: make(map[blobstore.Key]bool)}
	store := s.store(func(c *mailstore.Config) { c.Blobs, c.OrphanGrace = blobs, time.Nanosecond })
	a, _ := s.open(s.store(), "INBOX", func() {})
	for range 5 {
		s.deliver(a, "INBOX", mailstore.FlagSet{})
	}
	if err := s.db.DeleteAccount(t.Context(), s.account.Name); err != nil {
		t.Fatal(err)
	}
	for i, want := range []mailstore.CollectReport{{Messages: 5, Objects: 15, Emptied: 1}, {Emptied: 1}, {Accounts: 1}} {
		if got := s.collect(store, 0); got != want {
			t.Errorf("run %d: collected %+v, want %+v", i, got, want)
		}
	}
	if left := s.blobs.keys(s.account.ID); len(left) > 0 || len(blobs.gone) != 15 {
		t.Errorf("%d versions are gone, left are %v", len(blobs.gone), left)
	}
}
