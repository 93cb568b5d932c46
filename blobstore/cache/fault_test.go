package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"pgregory.net/rapid"

	"starling/blobstore"
	"starling/blobstore/blobtest"
	"starling/blobstore/cache"
	"starling/blobstore/codec"
)

// cutBody gives n bytes, and then an error.
type cutBody struct {
	io.ReadCloser
	n   int64
	err error
}

func (c *cutBody) Read(p []byte) (int, error) {
	if c.n <= 0 {
		return 0, c.err
	}
	n, err := c.ReadCloser.Read(p[:min(int64(len(p)), c.n)])
	c.n -= int64(n)
	return n, err
}

var (
	errBroken = fmt.Errorf("%w: connection broke: %w", blobstore.ErrUnavailable, io.ErrUnexpectedEOF)
	// faults are the ways in which a body may end before its time, the last two against the contract.
	faults = map[string]error{"broken": errBroken, "unavailable": blobstore.ErrUnavailable, "short": io.ErrUnexpectedEOF, "silent": io.EOF}
)

func TestBodyThatBreaksIsNotKept(t *testing.T) {
	t.Parallel()
	for name, shape := range shapes {
		for fault, broken := range faults {
			t.Run(name+"/"+fault, func(t *testing.T) {
				t.Parallel()
				b, data := newBelow(), blobtest.Bytes(2*cache.BlockSize)
				s, key := open(t, b, shape(t)), b.put(t, data)
				b.get = func(ctx context.Context, key blobstore.Key, offset, length int64) (io.ReadCloser, error) {
					r, err := b.Store.Get(ctx, key, offset, length)
					return &cutBody{r, cache.BlockSize + 1000, broken}, err
				}
				got, err := get(t.Context(), s, key, 100, 2*cache.BlockSize-100)
				if err == nil && fault != "silent" || !bytes.HasPrefix(data[100:], got) {
					t.Errorf("%d bytes, %v of a body that broke", len(got), err)
				}
				b.get = nil
				wantRange(t, s, key, data, 0, len(data))
				wantRange(t, s, key, data, len(data)-10, 10)
			})
		}
	}
}

func TestBytesBeforeABreakAreEnoughForWhoWantsNoMore(t *testing.T) {
	t.Parallel()
	b, data := newBelow(), blobtest.Bytes(cache.BlockSize)
	s, key := open(t, b, cache.Config{Memory: 16 << 20}), b.put(t, data)
	b.get = func(ctx context.Context, key blobstore.Key, offset, length int64) (io.ReadCloser, error) {
		r, err := b.Store.Get(ctx, key, offset, length)
		return &cutBody{r, 1000, errBroken}, err
	}
	wantRange(t, s, key, data, 100, 900)
	if _, err := get(t.Context(), s, key, 100, 901); !errors.Is(err, blobstore.ErrUnavailable) {
		t.Errorf("error %v, want ErrUnavailable", err)
	}
	b.wantGets(t, 2)
}

func TestErrorsAreNotKept(t *testing.T) {
	t.Parallel()
	b, data := newBelow(), blobtest.Bytes(1000)
	s, key := open(t, b, cache.Config{Memory: 16 << 20}), b.put(t, data)
	for _, want := range []error{blobstore.ErrUnavailable, blobstore.ErrNotFound} {
		b.get = func(context.Context, blobstore.Key, int64, int64) (io.ReadCloser, error) { return nil, want }
		if _, err := get(t.Context(), s, key, 0, 10); !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
		b.get = nil
		wantRange(t, s, key, data, 0, 10)
		s.Forget(key)
	}
}

func TestWhatIsKeptIsReadWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	b, data := newBelow(), blobtest.Bytes(100_000)
	s, key := open(t, b, cache.Config{Memory: 16 << 20}), b.put(t, data)
	wantRange(t, s, key, data, 50_000, 10)
	b.get = func(context.Context, blobstore.Key, int64, int64) (io.ReadCloser, error) {
		return nil, blobstore.ErrUnavailable
	}
	wantRange(t, s, key, data, 0, len(data))
	if _, err := get(t.Context(), s, b.put(t, data), 0, 10); !errors.Is(err, blobstore.ErrUnavailable) {
		t.Errorf("error %v of what is not kept, want ErrUnavailable", err)
	}
}

// A bug below costs those who read there, and not the process.
func TestPanicBelowIsAnError(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.ErrorLevel)
	b, data := newBelow(), blobtest.Bytes(1000)
	s, key := open(t, b, cache.Config{Memory: 16 << 20, Log: zap.New(core)}), b.put(t, data)
	b.get = func(context.Context, blobstore.Key, int64, int64) (io.ReadCloser, error) { panic("a bug") }
	if _, err := get(t.Context(), s, key, 0, 10); err == nil || logs.Len() != 1 {
		t.Errorf("error %v, %d lines", err, logs.Len())
	}
	b.get = nil
	wantRange(t, s, key, data, 0, 10)
}

// codecTest is a codec and a mail put by it.
func codecTest(t *testing.T, b *below, data []byte) (*codec.Codec, blobstore.Key, codec.Extent) {
	t.Helper()
	c, err := codec.New(codec.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	spool := c.Spool(codec.Header{Account: 1})
	defer func() { _ = spool.Discard() }()
	if _, err := spool.Write(data); err != nil {
		t.Fatal(err)
	}
	object, size, ext, err := spool.Finish()
	if err != nil {
		t.Fatal(err)
	}
	key := blobstore.NewKey(1)
	if _, err := b.Put(t.Context(), key, object, size); err != nil {
		t.Fatal(err)
	}
	return c, key, ext
}

// Bytes that changed on their way would be read again from the cache, for ever.
func TestWhatDoesNotMatchIsReadAnew(t *testing.T) {
	t.Parallel()
	for _, size := range []int{5000, 400_000, 3_000_000} {
		b, data := newBelow(), blobtest.Bytes(size)
		s := open(t, b, cache.Config{Memory: 16 << 20, Dir: t.TempDir(), Disk: 16 << 20})
		c, key, ext := codecTest(t, b, data)
		b.get = func(ctx context.Context, key blobstore.Key, offset, length int64) (io.ReadCloser, error) {
			r, err := b.Store.Get(ctx, key, offset, length)
			if err != nil || b.gets.Load() > 1 {
				return r, err
			}
			bad, err := io.ReadAll(r)
			bad[1000] ^= 1
			if !errors.Is(err, io.ErrUnexpectedEOF) && err != nil {
				return nil, err
			}
			return &cutBody{io.NopCloser(bytes.NewReader(bad)), int64(len(bad)), io.ErrUnexpectedEOF}, nil
		}
		var got bytes.Buffer
		if err := c.Open(s, key, ext).ReadRange(t.Context(), &got, 0, 5000); err != nil || !bytes.Equal(got.Bytes(), data[:5000]) {
			t.Errorf("mail of %d: %d bytes, %v", size, got.Len(), err)
		}
		b.wantGets(t, 2)
	}
}

// A phone reads a mail in slices, with a command for each.
func TestMailInSlices(t *testing.T) {
	t.Parallel()
	b, data := newBelow(), blobtest.Bytes(mail)
	s := open(t, b, cache.Config{Memory: 16 << 20})
	c, key, ext := codecTest(t, b, data)
	for at := 0; at < mail; at += slice {
		body := c.Open(s, key, ext)
		var got bytes.Buffer
		if err := body.ReadRange(t.Context(), &got, int64(at), slice); err != nil || !bytes.Equal(got.Bytes(), data[at:at+slice]) {
			t.Fatalf("from %d: %d bytes, %v", at, got.Len(), err)
		}
		body.Close()
	}
	if got, most := b.gets.Load(), (ext.Length+cache.BlockSize-1)/cache.BlockSize; got > most {
		t.Errorf("%d GETs, want at most %d", got, most)
	}
}

// Whatever is done, and however the store below fails: who gets bytes gets the right ones, and who gets an error gets that
// of the store below, or it has failed.
func TestAnyReadIsThatOfTheStoreBelow(t *testing.T) {
	t.Parallel()
	sizes := []int{1, 100, 5000, cache.BlockSize - 1, cache.BlockSize, cache.BlockSize + 1, 3 * cache.BlockSize, 1_300_000}
	bytesOf := blobtest.Bytes(1_400_000)
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(rt *rapid.T) {
				b := newBelow()
				s := cache.New(b, shape(t))
				defer s.Close()
				var keys []blobstore.Key
				failed := false
				b.get = func(ctx context.Context, key blobstore.Key, offset, length int64) (io.ReadCloser, error) {
					r, err := b.Store.Get(ctx, key, offset, length)
					if err != nil || !rapid.Bool().Draw(rt, "fails") {
						return r, err
					}
					failed = true
					fault := rapid.SampledFrom([]string{"broken", "unavailable"}).Draw(rt, "fault")
					return &cutBody{r, rapid.Int64Range(0, 2*cache.BlockSize).Draw(rt, "after"), faults[fault]}, nil
				}
				rt.Repeat(map[string]func(*rapid.T){
					"put": func(rt *rapid.T) {
						size, from := rapid.SampledFrom(sizes).Draw(rt, "size"), len(keys)%100
						data := bytesOf[from : from+size]
						key := blobstore.NewKey(1)
						if _, err := s.Put(t.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
							rt.Fatal(err)
						}
						keys = append(keys, key)
					},
					"delete": func(rt *rapid.T) {
						if len(keys) > 0 {
							if err := s.Delete(t.Context(), rapid.SampledFrom(keys).Draw(rt, "key")); err != nil {
								rt.Fatal(err)
							}
						}
					},
					"get": func(rt *rapid.T) {
						if len(keys) == 0 {
							return
						}
						key := rapid.SampledFrom(keys).Draw(rt, "key")
						offset := rapid.OneOf(rapid.Int64Range(-1, 1_400_000), rapid.Int64Range(0, 6000)).Draw(rt, "offset")
						length := rapid.OneOf(rapid.Int64Range(-1, 1_400_000), rapid.Int64Range(1, 6000)).Draw(rt, "length")
						want, wantErr := get(t.Context(), b.Store, key, offset, length)
						failed = false
						got, err := get(t.Context(), s, key, offset, length)
						switch {
						case err == nil && (wantErr != nil || !bytes.Equal(got, want)):
							rt.Fatalf("Get(%d, %d): %d bytes; below %d bytes, %v", offset, length, len(got), len(want), wantErr)
						case err != nil && !failed && !sameError(err, wantErr):
							rt.Fatalf("Get(%d, %d): %v; below %v", offset, length, err, wantErr)
						case !bytes.HasPrefix(want, got):
							rt.Fatalf("Get(%d, %d): %d wrong bytes and %v", offset, length, len(got), err)
						}
					},
				})
			})
		})
	}
}

func sameError(a, b error) bool {
	for _, err := range []error{blobstore.ErrNotFound, blobstore.ErrRange, blobstore.ErrUnavailable, io.ErrUnexpectedEOF} {
		if errors.Is(a, err) != errors.Is(b, err) {
			return false
		}
	}
	return (a == nil) == (b == nil)
}

var _ blobstore.Forgetter = (*cache.Store)(nil)
