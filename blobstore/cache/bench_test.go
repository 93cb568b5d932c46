package cache_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"starling/blobstore"
	"starling/blobstore/blobtest"
	"starling/blobstore/cache"
	"starling/blobstore/memory"
)

func BenchmarkGet(b *testing.B) {
	for name, conf := range map[string]cache.Config{
		"memory": {Memory: 64 << 20},
		"disk":   {Dir: b.TempDir(), Disk: 64 << 20},
	} {
		for _, size := range []int{5 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) {
				below := newBelow()
				s, key, buf := open(b, below, conf), below.put(b, blobtest.Bytes(300_000)), make([]byte, size)
				read := func() {
					r, err := s.Get(b.Context(), key, 100, int64(size))
					if err != nil {
						b.Fatal(err)
					}
					if _, err := io.ReadFull(r, buf); err != nil {
						b.Fatal(err)
					}
					if err := r.Close(); err != nil {
						b.Fatal(err)
					}
				}
				for below.gets.Store(1); below.gets.Load() > 0; read() {
					below.gets.Store(0) // until one is answered by the cache
					read()
				}
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					read()
				}
			})
		}
	}
}

// BenchmarkPut shows what it costs to keep what is put, for each mail that nobody reads.
func BenchmarkPut(b *testing.B) {
	for _, size := range []int{5 << 10, 64 << 10} {
		data := blobtest.Bytes(size)
		for name, s := range map[string]func() blobstore.Store{
			"cached": func() blobstore.Store { return open(b, nowhere{memory.New()}, cache.Config{Memory: 64 << 20}) },
			"plain":  func() blobstore.Store { return nowhere{memory.New()} },
		} {
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) {
				s := s()
				b.ReportAllocs()
				for b.Loop() {
					if _, err := s.Put(b.Context(), blobstore.NewKey(1), bytes.NewReader(data), int64(size)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// nowhere takes a body and keeps nothing.
type nowhere struct{ blobstore.Store }

func (nowhere) Put(_ context.Context, _ blobstore.Key, body io.ReadSeeker, _ int64) (blobstore.PutResult, error) {
	_, err := io.Copy(io.Discard, body)
	return blobstore.PutResult{}, err
}
