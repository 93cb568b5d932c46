package cache_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"starling/blobstore"
	"starling/blobstore/blobtest"
	"starling/blobstore/cache"
	"starling/blobstore/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shapes are the ways in which a cache may be set up.
var shapes = map[string]func(t testing.TB) cache.Config{
	"memory": func(testing.TB) cache.Config { return cache.Config{Memory: 16 << 20} },
	"disk":   func(t testing.TB) cache.Config { return cache.Config{Dir: t.TempDir(), Disk: 16 << 20} },
	"both":   func(t testing.TB) cache.Config { return cache.Config{Memory: 1 << 20, Dir: t.TempDir(), Disk: 4 << 20} },
	"tiny":   func(t testing.TB) cache.Config { return cache.Config{Memory: 1000, Dir: t.TempDir(), Disk: 1000} },
}

func TestStore(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"both", "tiny"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			blobtest.Run(t, func(t *testing.T) blobstore.Store { return open(t, memory.New(), shapes[name](t)) })
		})
	}
}

// Without any room, and with a folder that cannot be used, the store below answers everything.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	for _, conf := range []cache.Config{{}, {Dir: "/dev/null/cache", Disk: 1 << 20}} {
		b, data := newBelow(), blobtest.Bytes(1000)
		s, key := open(t, b, conf), b.put(t, data)
		for range 3 {
			wantRange(t, s, key, data, 10, 100)
		}
		b.wantGets(t, 3)
	}
}

func open(t testing.TB, inner blobstore.Store, conf cache.Config) *cache.Store {
	s := cache.New(inner, conf)
	t.Cleanup(s.Close)
	return s
}

// below is the store below the cache: it counts what is asked of it, and fails as the test wants.
type below struct {
	blobstore.Store

	gets atomic.Int64
	// get stands for the store's Get, if it is not nil. It is set before the cache is used.
	get func(ctx context.Context, key blobstore.Key, offset, length int64) (io.ReadCloser, error)
}

func newBelow() *below { return &below{Store: memory.New()} }

func (b *below) Get(ctx context.Context, key blobstore.Key, offset, length int64) (io.ReadCloser, error) {
	b.gets.Add(1)
	if b.get != nil {
		return b.get(ctx, key, offset, length)
	}
	return b.Store.Get(ctx, key, offset, length)
}

func (b *below) List(ctx context.Context, prefix, after string) iter.Seq2[blobstore.Info, error] {
	return b.Store.List(ctx, prefix, after)
}

// put puts below the cache, which does not hear of it.
func (b *below) put(t testing.TB, data []byte) blobstore.Key {
	t.Helper()
	key := blobstore.NewKey(1)
	if _, err := b.Put(t.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
	return key
}

func (b *below) wantGets(t testing.TB, n int64) {
	t.Helper()
	if got := b.gets.Load(); got != n {
		t.Errorf("%d GETs, want %d", got, n)
	}
}

func get(ctx context.Context, s blobstore.Store, key blobstore.Key, offset, length int64) ([]byte, error) {
	r, err := s.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

func wantRange(t testing.TB, s blobstore.Store, key blobstore.Key, data []byte, offset, length int) {
	t.Helper()
	got, err := get(t.Context(), s, key, int64(offset), int64(length))
	if err != nil || !bytes.Equal(got, data[offset:offset+length]) {
		t.Errorf("Get(%d, %d): %d bytes, %v", offset, length, len(got), err)
	}
}
