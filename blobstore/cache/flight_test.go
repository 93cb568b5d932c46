package cache_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"starling/blobstore"
	"starling/blobstore/blobtest"
	"starling/blobstore/cache"
)

// answer is what a Get that was begun gave.
type answer struct {
	data []byte
	err  error
}

// begin reads in a goroutine of its own, and returns once that waits for something.
func begin(ctx context.Context, s blobstore.Store, key blobstore.Key, offset, length int64) <-chan answer {
	c := make(chan answer, 1)
	go func() {
		data, err := get(ctx, s, key, offset, length)
		c <- answer{data, err}
	}()
	synctest.Wait()
	return c
}

// held makes b hold back its answers until release is closed, or the request's context ends.
func held(b *below) (release chan struct{}) {
	release = make(chan struct{})
	b.get = func(ctx context.Context, key blobstore.Key, offset, length int64) (io.ReadCloser, error) {
		r, err := b.Store.Get(context.WithoutCancel(ctx), key, offset, length)
		select {
		case <-release:
			return r, err
		case <-ctx.Done():
			return nil, blobstore.ContextError(ctx)
		}
	}
	return release
}

func TestWhoLeavesFailsNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, data := newBelow(), blobtest.Bytes(3*cache.BlockSize)
		release := held(b)
		s, key := open(t, b, cache.Config{Memory: 16 << 20}), b.put(t, data)
		ctx, cancel := context.WithCancel(t.Context())
		first := begin(ctx, s, key, 0, 100)
		second := begin(t.Context(), s, key, 50, 100)
		third := begin(t.Context(), s, key, cache.BlockSize-50, 100) // one block that is fetched, and one that is not
		b.wantGets(t, 2)
		cancel()
		if a := <-first; !errors.Is(a.err, context.Canceled) {
			t.Errorf("who left: %v", a.err)
		}
		synctest.Wait()
		close(release)
		if a := <-second; a.err != nil || !bytes.Equal(a.data, data[50:150]) {
			t.Errorf("who stayed: %d bytes, %v", len(a.data), a.err)
		}
		if a := <-third; a.err != nil || !bytes.Equal(a.data, data[cache.BlockSize-50:cache.BlockSize+50]) {
			t.Errorf("who stayed for two blocks: %d bytes, %v", len(a.data), a.err)
		}
		b.wantGets(t, 2)
	})
}

func TestWhatNobodyWaitsForEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, data := newBelow(), blobtest.Bytes(1000)
		release := held(b)
		s, key := open(t, b, cache.Config{Memory: 16 << 20}), b.put(t, data)
		ctx, cancel := context.WithCancel(t.Context())
		both := []<-chan answer{begin(ctx, s, key, 0, 100), begin(ctx, s, key, 0, 100)}
		cancel()
		for _, c := range both {
			if a := <-c; !errors.Is(a.err, context.Canceled) {
				t.Errorf("who left: %v", a.err)
			}
		}
		s.Close() // would wait for ever if the request below had not ended
		close(release)
		wantRange(t, s, key, data, 0, 100)
		b.wantGets(t, 2)
	})
}

// What is deleted, forgotten or put again while it is fetched is not kept.
func TestNothingIsKeptOfWhatIsDroppedMeanwhile(t *testing.T) {
	t.Parallel()
	for name, shape := range shapes {
		for drop, do := range map[string]func(s *cache.Store, key blobstore.Key) error{
			"Delete": func(s *cache.Store, key blobstore.Key) error { return s.Delete(t.Context(), key) },
			"Forget": func(s *cache.Store, key blobstore.Key) error { s.Forget(key); return nil },
			"Put": func(s *cache.Store, key blobstore.Key) error {
				_, err := s.Put(t.Context(), key, bytes.NewReader(make([]byte, 300_000)), 300_000)
				return err
			},
		} {
			t.Run(name+"/"+drop, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					b, data := newBelow(), blobtest.Bytes(200_000)
					release := held(b)
					s, key := open(t, b, shape(t)), b.put(t, data)
					old := begin(t.Context(), s, key, 0, 100)
					if err := do(s, key); err != nil {
						t.Fatal(err)
					}
					close(release)
					if a := <-old; a.err != nil || !bytes.Equal(a.data, data[:100]) {
						t.Errorf("who read before: %d bytes, %v", len(a.data), a.err)
					}
					synctest.Wait() // what is written to the disk is written
					got, err := get(t.Context(), s, key, 0, 100)
					switch drop {
					case "Delete":
						if !errors.Is(err, blobstore.ErrNotFound) {
							t.Errorf("Get: %v, want ErrNotFound", err)
						}
					case "Put":
						if err != nil || !bytes.Equal(got, make([]byte, 100)) {
							t.Errorf("Get: %d bytes of before, %v", len(got), err)
						}
					default:
						b.wantGets(t, 2)
					}
				})
			})
		}
	}
}

func TestManyReadersOfManyObjects(t *testing.T) {
	t.Parallel()
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBelow()
			s := open(t, b, shape(t))
			var keys []blobstore.Key
			sizes := []int{1, 5000, 70_000, cache.BlockSize, cache.BlockSize + 1, 3*cache.BlockSize - 7, 2_000_000}
			var contents [][]byte
			for _, size := range sizes {
				contents = append(contents, blobtest.Bytes(size))
				keys = append(keys, b.put(t, blobtest.Bytes(size)))
			}
			var readers sync.WaitGroup
			for w := range 8 {
				readers.Go(func() {
					for i := range 70 {
						n := (i*(w+1) + w) % len(sizes)
						data := contents[n]
						offset := (i * 7919 * (w + 1)) % len(data)
						wantRange(t, s, keys[n], data, offset, min(len(data)-offset, 30_000+i*1000))
						if i%10 == w {
							s.Forget(keys[n])
						}
					}
				})
			}
			readers.Wait()
		})
	}
}
