package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"starling/blobstore"
)

var putTests = []subtest{
	{"what was put is what is got", func(t *testing.T, s blobstore.Store) {
		for _, size := range []int{1, 2, 511, 4096, 65535, 65536, 65537, 1<<20 + 1} {
			key, data := blobstore.NewKey(account), Bytes(size)
			put(t, s, key, data)
			wantObject(t, s, key, data)
		}
	}},
	{"an object may be empty", func(t *testing.T, s blobstore.Store) {
		key := blobstore.NewKey(account)
		put(t, s, key, nil)
		wantObject(t, s, key, nil)
		if got := list(t, s, "", ""); len(got) != 1 || got[0] != key {
			t.Fatalf("List: %v, want %v", got, key)
		}
	}},
	{"an object of 50 MB streams in and out", func(t *testing.T, s blobstore.Store) {
		key, data := blobstore.NewKey(account), Bytes(50<<20)
		put(t, s, key, data)
		wantObject(t, s, key, data)
	}},
	{"Put begins where body stands", func(t *testing.T, s blobstore.Store) {
		key, r := blobstore.NewKey(account), bytes.NewReader([]byte("envelope and message"))
		if _, err := r.Seek(13, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Put(t.Context(), key, r, 7); err != nil {
			t.Fatal(err)
		}
		wantObject(t, s, key, []byte("message"))
	}},
	{"Put replaces what was there", func(t *testing.T, s blobstore.Store) {
		key := named(t, account, "mailboxes")
		put(t, s, key, Bytes(9000))
		put(t, s, key, []byte("second"))
		wantObject(t, s, key, []byte("second"))
	}},
	{"Date is the clock of the listing", func(t *testing.T, s blobstore.Store) {
		key := blobstore.NewKey(account)
		date := put(t, s, key, []byte("x")).Date
		if date.IsZero() {
			t.Fatal("Date is zero")
		}
		for info, err := range s.List(t.Context(), string(key), "") {
			if err != nil {
				t.Fatal(err)
			}
			if d := info.Modified.Sub(date).Abs(); d > 5*time.Second {
				t.Fatalf("listed as of %v, put at %v", info.Modified, date)
			}
		}
	}},
	{"a body that fails leaves nothing", func(t *testing.T, s blobstore.Store) {
		for _, size := range []int{100, 300_000} {
			key := blobstore.NewKey(account)
			body := &failing{Reader: bytes.NewReader(Bytes(size)), at: int64(size / 2)}
			_, err := s.Put(t.Context(), key, body, int64(size))
			wantError(t, "Put", err, blobstore.ErrBody)
			wantError(t, "Put", err, errRead)
			wantAbsent(t, s, key)
		}
	}},
	{"a body that fails leaves what was there before", func(t *testing.T, s blobstore.Store) {
		key := named(t, account, "mailboxes")
		put(t, s, key, []byte("first"))
		body := &failing{Reader: bytes.NewReader(Bytes(300_000)), at: 200_000}
		_, err := s.Put(t.Context(), key, body, 300_000)
		wantError(t, "Put", err, blobstore.ErrBody)
		wantObject(t, s, key, []byte("first"))
	}},
	{"a body that cannot seek is refused", func(t *testing.T, s blobstore.Store) {
		key := blobstore.NewKey(account)
		_, err := s.Put(t.Context(), key, unseekable{bytes.NewReader([]byte("once"))}, 4)
		wantError(t, "Put", err, blobstore.ErrBody)
		wantAbsent(t, s, key)
	}},
	{"a body of another size is refused", func(t *testing.T, s blobstore.Store) {
		for _, size := range []int64{0, 4, 6, 1 << 20} {
			key := blobstore.NewKey(account)
			_, err := s.Put(t.Context(), key, bytes.NewReader([]byte("12345")), size)
			wantError(t, fmt.Sprintf("Put of 5 bytes as %d", size), err, blobstore.ErrBody)
			wantAbsent(t, s, key)
		}
	}},
	{"a body that ends before its time is refused", func(t *testing.T, s blobstore.Store) {
		key := blobstore.NewKey(account)
		_, err := s.Put(t.Context(), key, &shrinking{bytes.NewReader(Bytes(200_000)), 100_000}, 200_000)
		wantError(t, "Put", err, blobstore.ErrBody)
		wantAbsent(t, s, key)
	}},
	{"an invalid key is refused", func(t *testing.T, s blobstore.Store) {
		for _, key := range []blobstore.Key{"", "a/b", "../../etc/passwd", "0123456789abcdef/..", "0123456789abcdef/a/b"} {
			_, err := s.Put(t.Context(), key, bytes.NewReader(nil), 0)
			wantError(t, "Put", err, blobstore.ErrKey)
			_, err = s.Get(t.Context(), key, 0, -1)
			wantError(t, "Get", err, blobstore.ErrKey)
			wantError(t, "Delete", s.Delete(t.Context(), key), blobstore.ErrKey)
		}
	}},
	{"concurrent Puts of many keys all arrive", func(t *testing.T, s blobstore.Store) {
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for i := range 10 {
					key, data := blobstore.NewKey(int64(w%3+1)), Bytes(1000*w+i)
					if _, err := s.Put(t.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
						t.Errorf("Put: %v", err)
						return
					}
					got, err := get(t.Context(), s, key, 0, -1)
					if err != nil || !bytes.Equal(got, data) {
						t.Errorf("Get(%s): %d of %d bytes, %v", key, len(got), len(data), err)
					}
				}
			})
		}
		wg.Wait()
		if n := len(list(t, s, "", "")); n != 80 {
			t.Errorf("List: %d objects, want 80", n)
		}
	}},
	{"readers of a key that is replaced see one whole object", wholeWhileReplaced},
	{"Put does not read body once it has returned", noReadAfterReturn},
}

// errRead is what the failing body says.
var errRead = errors.New("the disk below the body is gone")

// failing reads well up to an offset, and never beyond.
type failing struct {
	*bytes.Reader
	at int64
}

func (f *failing) Read(p []byte) (int, error) {
	left := f.at - (f.Size() - int64(f.Len()))
	if left <= 0 {
		return 0, errRead
	}
	return f.Reader.Read(p[:min(int64(len(p)), left)])
}

func (f *failing) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{f})
}

// ReadAt fails as Read does, for stores that read by offset.
func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.at {
		return 0, errRead
	}
	return f.Reader.ReadAt(p, off)
}

type unseekable struct{ io.Reader }

func (unseekable) Seek(int64, int) (int64, error) { return 0, errors.New("a pipe cannot seek") }

// shrinking claims to have all its bytes when asked for its end, and has only some when read.
type shrinking struct {
	r  *bytes.Reader
	at int64
}

func (s *shrinking) Seek(offset int64, whence int) (int64, error) { return s.r.Seek(offset, whence) }

func (s *shrinking) Read(p []byte) (int, error) {
	left := s.at - (s.r.Size() - int64(s.r.Len()))
	if left <= 0 {
		return 0, io.EOF
	}
	return s.r.Read(p[:min(int64(len(p)), left)])
}

func wholeWhileReplaced(t *testing.T, s blobstore.Store) {
	key := named(t, account, "mailboxes")
	version := func(n int) []byte { return bytes.Repeat([]byte{byte(n)}, 20_000+n) }
	put(t, s, key, version(0))
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := range 10 {
				data := version(w*10 + i)
				if _, err := s.Put(t.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
					t.Errorf("Put: %v", err)
				}
			}
		})
		wg.Go(func() {
			for range 20 {
				got, err := get(t.Context(), s, key, 0, -1)
				if err != nil {
					t.Errorf("Get: %v", err)
				} else if len(got) < 20_000 || !bytes.Equal(got, version(int(got[0]))) {
					t.Errorf("Get: %d bytes that no Put has written", len(got))
				}
			}
		})
	}
	wg.Wait()
}

// watched reports a Read that comes after Put has returned.
type watched struct {
	*bytes.Reader
	t        *testing.T
	returned *atomic.Bool
	cancel   context.CancelFunc
	at       int64
}

func (w *watched) Read(p []byte) (int, error) {
	if w.returned.Load() {
		w.t.Error("body read after Put has returned")
	}
	if w.Size()-int64(w.Len()) >= w.at {
		w.cancel()
	}
	return w.Reader.Read(p[:min(len(p), 4096)])
}

func (w *watched) WriteTo(dst io.Writer) (int64, error) {
	return io.Copy(dst, struct{ io.Reader }{w})
}

func noReadAfterReturn(t *testing.T, s blobstore.Store) {
	data := Bytes(400_000)
	for _, at := range []int64{0, 8192, 200_000, 399_000} {
		ctx, cancel := context.WithCancel(t.Context())
		var returned atomic.Bool
		body := &watched{bytes.NewReader(data), t, &returned, cancel, at}
		key := blobstore.NewKey(account)
		_, err := s.Put(ctx, key, body, int64(len(data)))
		returned.Store(true)
		cancel()
		switch got, gerr := get(t.Context(), s, key, 0, -1); {
		case errors.Is(gerr, blobstore.ErrNotFound) && errors.Is(err, context.Canceled):
		case gerr == nil && bytes.Equal(got, data):
		default:
			t.Fatalf("Put said %v, and then Get found %d bytes, %v", err, len(got), gerr)
		}
	}
}
