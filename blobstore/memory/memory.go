// Package memory is a blobstore.Store that forgets everything when the process ends. It is for tests and trials.
package memory

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"starling/blobstore"
)

// Store keeps objects in a map. Its clock is the local one.
type Store struct {
	mu      sync.RWMutex
	objects map[blobstore.Key]object
}

// object is immutable once it is in the map: readers share data without a lock.
type object struct {
	data     []byte
	modified time.Time
}

// New returns an empty store.
func New() *Store { return &Store{objects: make(map[blobstore.Key]object)} }

// Put implements blobstore.Store.
func (s *Store) Put(ctx context.Context, key blobstore.Key, r io.ReadSeeker, size int64) (blobstore.PutResult, error) {
	if err := key.Check(); err != nil {
		return blobstore.PutResult{}, err
	}
	body, err := blobstore.NewBody(r, size)
	if err != nil {
		return blobstore.PutResult{}, fmt.Errorf("put %s: %w", key, err)
	}
	data := make([]byte, size)
	for at := 0; !body.Done(); {
		if err := blobstore.ContextError(ctx); err != nil {
			return blobstore.PutResult{}, fmt.Errorf("put %s: %w", key, err)
		}
		n, err := body.Read(data[at:min(len(data), at+1<<20)])
		at += n
		if err != nil {
			return blobstore.PutResult{}, fmt.Errorf("put %s: %w", key, err)
		}
	}
	if err := blobstore.ContextError(ctx); err != nil {
		return blobstore.PutResult{}, fmt.Errorf("put %s: %w", key, err)
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[key] = object{data: data, modified: now}
	return blobstore.PutResult{Date: now}, nil
}

// Get implements blobstore.Store.
func (s *Store) Get(ctx context.Context, key blobstore.Key, offset, length int64) (io.ReadCloser, error) {
	if err := key.Check(); err != nil {
		return nil, err
	}
	if err := blobstore.CheckRange(offset, length); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	if err := blobstore.ContextError(ctx); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	s.mu.RLock()
	o, ok := s.objects[key]
	s.mu.RUnlock()
	if !ok {
		return nil, fmt.Errorf("get %s: %w", key, blobstore.ErrNotFound)
	}
	if err := blobstore.CheckOffset(offset, length, int64(len(o.data))); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	r := io.NopCloser(bytes.NewReader(o.data[offset:]))
	return &blobstore.RangeReader{Ctx: ctx, R: r, Want: length}, nil
}

// Delete implements blobstore.Store.
func (s *Store) Delete(ctx context.Context, key blobstore.Key) error {
	if err := key.Check(); err != nil {
		return err
	}
	if err := blobstore.ContextError(ctx); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, key)
	return nil
}

// List implements blobstore.Store.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[blobstore.Info, error] {
	return func(yield func(blobstore.Info, error) bool) {
		for _, info := range s.snapshot(prefix, after) {
			if err := blobstore.ContextError(ctx); err != nil {
				yield(blobstore.Info{}, fmt.Errorf("list %q: %w", prefix, err))
				return
			}
			if !yield(info, nil) {
				return
			}
		}
		if err := blobstore.ContextError(ctx); err != nil {
			yield(blobstore.Info{}, fmt.Errorf("list %q: %w", prefix, err))
		}
	}
}

func (s *Store) snapshot(prefix, after string) []blobstore.Info {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var infos []blobstore.Info
	for key, o := range s.objects {
		if strings.HasPrefix(string(key), prefix) && string(key) > after {
			infos = append(infos, blobstore.Info{Key: key, Size: int64(len(o.data)), Modified: o.modified})
		}
	}
	slices.SortFunc(infos, func(a, b blobstore.Info) int { return strings.Compare(string(a.Key), string(b.Key)) })
	return infos
}
