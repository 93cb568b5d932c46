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

// large is more than a store keeps back until the end of an upload.
const large = 5<<20 + 77

var uploadTests = []subtest{
	{"what was uploaded is what is got, however it grew", func(t *testing.T, s blobstore.Store) {
		for _, size := range []int{0, 5000, 5 << 20, 11 << 20} {
			for _, step := range []int{700_001, 11 << 20} {
				key, src := blobstore.NewKey(account), &growing{data: Bytes(size)}
				u := blobstore.NewUpload(t.Context(), s, key, src)
				src.growTo(u, size, step)
				if _, err := u.Finish(t.Context(), int64(size)); err != nil {
					t.Fatalf("Finish of %d bytes by %d: %v", size, step, err)
				}
				src.over(t)
				wantObject(t, s, key, src.data)
			}
		}
	}},
	{"an upload need not be told that it grows", func(t *testing.T, s blobstore.Store) {
		key, data := blobstore.NewKey(account), Bytes(large)
		u := blobstore.NewUpload(t.Context(), s, key, bytes.NewReader(data))
		if _, err := u.Finish(t.Context(), large); err != nil {
			t.Fatal(err)
		}
		wantObject(t, s, key, data)
	}},
	{"there is nothing under the key before Finish", func(t *testing.T, s blobstore.Store) {
		key, src := blobstore.NewKey(account), &growing{data: Bytes(large)}
		u := blobstore.NewUpload(t.Context(), s, key, src)
		src.growTo(u, large, 1<<20)
		wantAbsent(t, s, key)
		if _, err := u.Finish(t.Context(), large); err != nil {
			t.Fatal(err)
		}
		wantObject(t, s, key, src.data)
	}},
	{"Finish replaces what was there", func(t *testing.T, s blobstore.Store) {
		key, src := named(t, account, "mailboxes"), &growing{data: Bytes(large)}
		put(t, s, key, []byte("first"))
		u := blobstore.NewUpload(t.Context(), s, key, src)
		src.growTo(u, large, 1<<20)
		wantObject(t, s, key, []byte("first"))
		if _, err := u.Finish(t.Context(), large); err != nil {
			t.Fatal(err)
		}
		wantObject(t, s, key, src.data)
	}},
	{"an upload that is aborted leaves nothing", func(t *testing.T, s blobstore.Store) {
		for _, size := range []int{0, 1000, large} {
			key, src := blobstore.NewKey(account), &growing{data: Bytes(size)}
			u := blobstore.NewUpload(t.Context(), s, key, src)
			src.growTo(u, size, 1<<20)
			u.Abort()
			src.over(t)
			wantAbsent(t, s, key)
		}
	}},
	{"Abort after Finish does nothing", func(t *testing.T, s blobstore.Store) {
		key, src := blobstore.NewKey(account), &growing{data: Bytes(large)}
		u := blobstore.NewUpload(t.Context(), s, key, src)
		src.growTo(u, large, 1<<20)
		if _, err := u.Finish(t.Context(), large); err != nil {
			t.Fatal(err)
		}
		u.Abort()
		src.over(t)
		wantObject(t, s, key, src.data)
	}},
	{"a source that fails leaves nothing", func(t *testing.T, s blobstore.Store) {
		for _, size := range []int{1000, large} {
			for _, grown := range []int{0, size} {
				key, src := blobstore.NewKey(account), &growing{data: Bytes(size), bad: int64(size / 2)}
				u := blobstore.NewUpload(t.Context(), s, key, src)
				src.growTo(u, grown, 1<<20)
				_, err := u.Finish(t.Context(), int64(size))
				src.over(t)
				wantError(t, "Finish", err, blobstore.ErrBody)
				wantError(t, "Finish", err, errRead)
				wantAbsent(t, s, key)
			}
		}
	}},
	{"a context that ends while an upload grows does not end it", func(t *testing.T, s blobstore.Store) {
		key, src := blobstore.NewKey(account), &growing{data: Bytes(large)}
		ctx, cancel := context.WithCancel(t.Context())
		u := blobstore.NewUpload(ctx, s, key, src)
		src.growTo(u, large/2, 1<<20)
		cancel()
		src.growTo(u, large, 1<<20)
		if _, err := u.Finish(t.Context(), large); err != nil {
			t.Fatal(err)
		}
		wantObject(t, s, key, src.data)
	}},
	{"a context that has ended stops Finish", func(t *testing.T, s blobstore.Store) {
		for _, size := range []int{1000, large} {
			key, src := blobstore.NewKey(account), &growing{data: Bytes(size)}
			u := blobstore.NewUpload(t.Context(), s, key, src)
			src.growTo(u, size, 1<<20)
			ctx, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
			_, err := u.Finish(ctx, int64(size))
			cancel()
			src.over(t)
			wantError(t, "Finish", err, context.DeadlineExceeded)
			wantError(t, "Finish", err, blobstore.ErrUnavailable)
			wantAbsent(t, s, key)
		}
	}},
	{"an upload under an invalid key is refused", func(t *testing.T, s blobstore.Store) {
		src := &growing{data: Bytes(large)}
		u := blobstore.NewUpload(t.Context(), s, "../../etc/passwd", src)
		src.growTo(u, large, 1<<20)
		_, err := u.Finish(t.Context(), large)
		wantError(t, "Finish", err, blobstore.ErrKey)
		u.Abort()
	}},
	{"Date of an upload is never later than the listing says", func(t *testing.T, s blobstore.Store) {
		key, src := blobstore.NewKey(account), &growing{data: Bytes(large)}
		u := blobstore.NewUpload(t.Context(), s, key, src)
		src.growTo(u, large, 1<<20)
		res, err := u.Finish(t.Context(), large)
		if err != nil || res.Date.IsZero() {
			t.Fatalf("Date %v, %v", res.Date, err)
		}
		for info, err := range s.List(t.Context(), string(key), "") {
			if err != nil || info.Size != large || res.Date.After(info.Modified.Add(time.Second)) {
				t.Fatalf("listed as %+v, %v; Date is %v", info, err, res.Date)
			}
		}
	}},
	{"EndUploads ends what was begun before, and no finished object", func(t *testing.T, s blobstore.Store) {
		key, src := blobstore.NewKey(account), &growing{data: Bytes(large)}
		u := blobstore.NewUpload(t.Context(), s, key, src)
		defer u.Abort()
		src.growTo(u, large, 1<<20)
		done, data := blobstore.NewKey(account), Bytes(5000)
		put(t, s, done, data)
		if n, err := blobstore.EndUploads(t.Context(), s, blobstore.AccountPrefix(account), time.Unix(0, 0)); n != 0 || err != nil {
			t.Errorf("before all: %d, %v", n, err)
		}
		if n, err := blobstore.EndUploads(t.Context(), s, blobstore.AccountPrefix(account+1), time.Time{}); n != 0 || err != nil {
			t.Errorf("of another account: %d, %v", n, err)
		}
		if _, err := blobstore.EndUploads(t.Context(), s, blobstore.AccountPrefix(account), time.Time{}); err != nil {
			t.Error(err)
		}
		wantObject(t, s, done, data)
		wantAbsent(t, s, key)
	}},
	{"many uploads grow at once", func(t *testing.T, s blobstore.Store) {
		var wg sync.WaitGroup
		for w := range 3 {
			wg.Go(func() {
				size := large + w
				key, src := blobstore.NewKey(account), &growing{data: Bytes(size)}
				u := blobstore.NewUpload(t.Context(), s, key, src)
				defer u.Abort()
				src.growTo(u, size, 700_000)
				if _, err := u.Finish(t.Context(), int64(size)); err != nil {
					t.Errorf("Finish: %v", err)
					return
				}
				if got, err := get(t.Context(), s, key, 0, -1); err != nil || !bytes.Equal(got, src.data) {
					t.Errorf("%d of %d bytes, %v", len(got), size, err)
				}
			})
		}
		wg.Wait()
	}},
}

// growing is the source of an upload. It finds out reads beyond what was told to be there, and after the end.
type growing struct {
	data  []byte
	bad   int64 // it cannot be read from here on; 0: it can
	there atomic.Int64
	ended atomic.Bool
	wrong atomic.Pointer[string]
}

// growTo tells that the source grew, step by step.
func (g *growing) growTo(u blobstore.Upload, size, step int) {
	for n := int(g.there.Load()); n < size; {
		n = min(n+step, size)
		g.there.Store(int64(n))
		u.Grown(int64(n))
	}
}

// over says that the upload has ended: nothing may be read any more.
func (g *growing) over(t *testing.T) {
	t.Helper()
	g.ended.Store(true)
	t.Cleanup(func() {
		if wrong := g.wrong.Load(); wrong != nil {
			t.Error(*wrong)
		}
	})
}

func (g *growing) ReadAt(p []byte, off int64) (int, error) {
	end := min(off+int64(len(p)), int64(len(g.data)))
	there := g.there.Load()
	if early := there > 0 && there < int64(len(g.data)) && end > there; early || g.ended.Load() {
		wrong := fmt.Sprintf("read from %d to %d, of %d that were there; the upload was over: %v", off, end, there, g.ended.Load())
		g.wrong.Store(&wrong)
	}
	if g.bad > 0 && end > g.bad {
		return 0, errRead
	}
	n := copy(p, g.data[min(off, end):end])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

var versionTests = []subtest{
	{"Versions shows what List shows, and deleting them ends in nothing", func(t *testing.T, s blobstore.Store) {
		const other = account + 1
		keys := []blobstore.Key{blobstore.NewKey(account), blobstore.NewKey(account), named(t, account, "mailboxes")}
		for _, key := range keys {
			put(t, s, key, []byte("first"))
		}
		put(t, s, keys[2], []byte("second"))
		kept := blobstore.NewKey(other)
		put(t, s, kept, []byte("kept"))
		if err := s.Delete(t.Context(), keys[0]); err != nil {
			t.Fatal(err)
		}
		seen := make(map[blobstore.Key]bool)
		for v, err := range blobstore.Versions(t.Context(), s, blobstore.AccountPrefix(account)) {
			if err != nil {
				t.Fatal(err)
			}
			seen[v.Key] = true
			for range 2 { // an absent one is no error
				if err := blobstore.DeleteVersion(t.Context(), s, v); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, key := range keys {
			if !seen[key] && key != keys[0] {
				t.Errorf("%s was not among the versions", key)
			}
			wantAbsent(t, s, key)
		}
		for v, err := range blobstore.Versions(t.Context(), s, blobstore.AccountPrefix(account)) {
			t.Errorf("left: %v, %v", v, err)
		}
		wantObject(t, s, kept, []byte("kept"))
	}},
	{"Versions ends with its context", func(t *testing.T, s blobstore.Store) {
		put(t, s, blobstore.NewKey(account), []byte("x"))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		n := 0
		for _, err := range blobstore.Versions(ctx, s, "") {
			if n++; !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want Canceled", err)
			}
		}
		if n != 1 {
			t.Errorf("%d yielded, want the error alone", n)
		}
	}},
}
