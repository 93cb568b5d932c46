package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"starling/blobstore"
)

var getTests = []subtest{
	{"a range gives exactly its bytes", func(t *testing.T, s blobstore.Store) {
		const size = 100_000
		key, data := blobstore.NewKey(account), Bytes(size)
		put(t, s, key, data)
		for _, r := range [][2]int64{{0, 1}, {0, size}, {1, 1}, {size - 1, 1}, {4095, 8193}, {0, -1}, {1, -1}, {size - 1, -1}, {50_000, 50_000}} {
			end := r[0] + r[1]
			if r[1] < 0 {
				end = size
			}
			got, err := get(t.Context(), s, key, r[0], r[1])
			if err != nil || !bytes.Equal(got, data[r[0]:end]) {
				t.Errorf("Get(%d, %d): %d bytes, %v", r[0], r[1], len(got), err)
			}
		}
	}},
	{"an absent object is ErrNotFound", func(t *testing.T, s blobstore.Store) {
		put(t, s, blobstore.NewKey(account), []byte("x"))
		for _, key := range []blobstore.Key{blobstore.NewKey(account), blobstore.NewKey(account + 1), named(t, account, "mailboxes")} {
			for _, r := range [][2]int64{{0, -1}, {0, 10}, {5, 5}} {
				_, err := s.Get(t.Context(), key, r[0], r[1])
				wantError(t, "Get", err, blobstore.ErrNotFound)
			}
		}
	}},
	{"a range that begins outside the object is ErrRange", func(t *testing.T, s blobstore.Store) {
		key, empty := blobstore.NewKey(account), blobstore.NewKey(account)
		put(t, s, key, []byte("12345"))
		put(t, s, empty, nil)
		for _, r := range [][2]int64{{5, 1}, {5, -1}, {6, 1}, {1 << 40, -1}, {-1, 1}, {0, 0}, {2, 0}} {
			_, err := s.Get(t.Context(), key, r[0], r[1])
			wantError(t, fmt.Sprintf("Get(%d, %d)", r[0], r[1]), err, blobstore.ErrRange)
		}
		for _, r := range [][2]int64{{0, 1}, {1, -1}, {0, 0}} {
			_, err := s.Get(t.Context(), empty, r[0], r[1])
			wantError(t, fmt.Sprintf("Get(%d, %d) of nothing", r[0], r[1]), err, blobstore.ErrRange)
		}
	}},
	{"a range that ends outside the object gives what is there and ErrUnexpectedEOF", func(t *testing.T, s blobstore.Store) {
		key := blobstore.NewKey(account)
		put(t, s, key, []byte("12345"))
		for _, r := range [][2]int64{{0, 6}, {4, 2}, {0, 1 << 40}} {
			got, err := get(t.Context(), s, key, r[0], r[1])
			wantError(t, fmt.Sprintf("Get(%d, %d)", r[0], r[1]), err, io.ErrUnexpectedEOF)
			if want := "12345"[r[0]:]; string(got) != want {
				t.Errorf("Get(%d, %d): %q, want %q", r[0], r[1], got, want)
			}
		}
	}},
	{"many may read at once", func(t *testing.T, s blobstore.Store) {
		key, data := blobstore.NewKey(account), Bytes(300_000)
		put(t, s, key, data)
		var wg sync.WaitGroup
		for w := range 16 {
			wg.Go(func() {
				off := int64(w * 10_000)
				got, err := get(t.Context(), s, key, off, 100_000)
				if err != nil || !bytes.Equal(got, data[off:off+100_000]) {
					t.Errorf("Get(%d): %d bytes, %v", off, len(got), err)
				}
			})
		}
		wg.Wait()
	}},
	{"a reader may be closed before its end", func(t *testing.T, s blobstore.Store) {
		key, data := blobstore.NewKey(account), Bytes(3_000_000)
		put(t, s, key, data)
		for range 20 {
			r, err := s.Get(t.Context(), key, 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		wantObject(t, s, key, data)
	}},
}

var deleteTests = []subtest{
	{"a deleted object is gone", func(t *testing.T, s blobstore.Store) {
		key, other := blobstore.NewKey(account), blobstore.NewKey(account)
		put(t, s, key, []byte("x"))
		put(t, s, other, []byte("y"))
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		wantAbsent(t, s, key)
		wantObject(t, s, other, []byte("y"))
	}},
	{"deleting twice is no error", func(t *testing.T, s blobstore.Store) {
		key := blobstore.NewKey(account)
		put(t, s, key, []byte("x"))
		for range 2 {
			if err := s.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
	}},
	{"deleting what never was is no error", func(t *testing.T, s blobstore.Store) {
		if err := s.Delete(t.Context(), blobstore.NewKey(account)); err != nil {
			t.Fatal(err)
		}
	}},
	{"what was deleted can be put again", func(t *testing.T, s blobstore.Store) {
		key := named(t, account, "mailboxes")
		put(t, s, key, []byte("first"))
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		put(t, s, key, []byte("again"))
		wantObject(t, s, key, []byte("again"))
	}},
}

var listTests = []subtest{
	{"an empty store lists nothing", func(t *testing.T, s blobstore.Store) {
		if keys := list(t, s, "", ""); len(keys) != 0 {
			t.Fatalf("List: %v", keys)
		}
	}},
	{"List shows key, size and time", func(t *testing.T, s blobstore.Store) {
		key := blobstore.NewKey(account)
		put(t, s, key, Bytes(1234))
		n := 0
		for info, err := range s.List(t.Context(), "", "") {
			if err != nil {
				t.Fatal(err)
			}
			n++
			if info.Key != key || info.Size != 1234 || info.Modified.IsZero() {
				t.Errorf("List: %+v", info)
			}
		}
		if n != 1 {
			t.Errorf("List: %d objects, want 1", n)
		}
	}},
	{"List is ordered, and goes on after a key", func(t *testing.T, s blobstore.Store) {
		keys := fill(t, s)
		if got := list(t, s, "", ""); !slices.Equal(got, keys) {
			t.Fatalf("List: %v, want %v", got, keys)
		}
		for i, after := range keys {
			if got := list(t, s, "", string(after)); !slices.Equal(got, keys[i+1:]) {
				t.Fatalf("List after %s: %v, want %v", after, got, keys[i+1:])
			}
		}
		absent := string(keys[2]) + "0"
		if got := list(t, s, "", absent); !slices.Equal(got, keys[3:]) {
			t.Fatalf("List after %s, which is no object: %v, want %v", absent, got, keys[3:])
		}
	}},
	{"List keeps to its prefix", func(t *testing.T, s blobstore.Store) {
		keys := fill(t, s)
		prefixes := []string{blobstore.AccountPrefix(1), blobstore.AccountPrefix(2), blobstore.AccountPrefix(9), "000000000000000", "f", string(keys[1]), string(keys[1][:20]), string(keys[1]) + "x"}
		for _, prefix := range prefixes {
			for _, after := range []string{"", string(keys[1]), string(keys[len(keys)-1])} {
				var want []blobstore.Key
				for _, k := range keys {
					if len(k) >= len(prefix) && string(k[:len(prefix)]) == prefix && string(k) > after {
						want = append(want, k)
					}
				}
				if got := list(t, s, prefix, after); !slices.Equal(got, want) {
					t.Errorf("List(%q, %q): %v, want %v", prefix, after, got, want)
				}
			}
		}
	}},
	{"List shows each of more than 1,000 objects once", func(t *testing.T, s blobstore.Store) {
		const n = 1100
		var mu sync.Mutex
		var want []blobstore.Key
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for {
					mu.Lock()
					done, key := len(want) == n, blobstore.NewKey(account)
					if !done {
						want = append(want, key)
					}
					mu.Unlock()
					if done {
						return
					}
					if _, err := s.Put(t.Context(), key, bytes.NewReader([]byte("x")), 1); err != nil {
						t.Errorf("Put: %v", err)
						return
					}
				}
			})
		}
		wg.Wait()
		slices.Sort(want)
		if got := list(t, s, "", ""); !slices.Equal(got, want) {
			t.Fatalf("List: %d objects, want %d in order", len(got), len(want))
		}
	}},
	{"a listing may be left before its end", func(t *testing.T, s blobstore.Store) {
		keys := fill(t, s)
		for info, err := range s.List(t.Context(), "", "") {
			if err != nil || info.Key != keys[0] {
				t.Fatalf("List: %v, %v", info, err)
			}
			break
		}
	}},
}

// fill puts a few objects of several accounts and returns their keys in order.
func fill(t *testing.T, s blobstore.Store) []blobstore.Key {
	t.Helper()
	var keys []blobstore.Key
	for _, account := range []int64{1, 2, 0x10, 0x7fff_ffff_ffff_ffff} {
		keys = append(keys, blobstore.NewKey(account), blobstore.NewKey(account), named(t, account, "mailboxes"))
	}
	slices.Sort(keys)
	for _, k := range keys {
		put(t, s, k, []byte(k))
	}
	return keys
}

var contextTests = []subtest{
	{"a context that has ended stops every call", func(t *testing.T, s blobstore.Store) {
		key := blobstore.NewKey(account)
		put(t, s, key, []byte("x"))
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		late, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
		defer cancel()
		for _, ctx := range []context.Context{cancelled, late} {
			for what, err := range calls(ctx, s, key) {
				wantError(t, what, err, ctx.Err())
				if timeout := errors.Is(err, blobstore.ErrUnavailable); timeout != (ctx == late) {
					t.Errorf("%s: %v: ErrUnavailable is %v", what, err, timeout)
				}
			}
		}
		wantObject(t, s, key, []byte("x"))
	}},
	{"a reader ends with its context", func(t *testing.T, s blobstore.Store) {
		key := blobstore.NewKey(account)
		put(t, s, key, Bytes(20<<20))
		ctx, cancel := context.WithCancel(t.Context())
		r, err := s.Get(ctx, key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		cancel()
		_, err = io.Copy(io.Discard, r)
		wantError(t, "read on", err, context.Canceled)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}},
}

// calls makes each call of the Store once with ctx.
func calls(ctx context.Context, s blobstore.Store, key blobstore.Key) map[string]error {
	errs := make(map[string]error)
	_, errs["Put"] = s.Put(ctx, key, bytes.NewReader([]byte("new")), 3)
	_, errs["Get"] = s.Get(ctx, key, 0, -1)
	errs["Delete"] = s.Delete(ctx, key)
	for _, err := range s.List(ctx, "", "") {
		errs["List"] = err
	}
	return errs
}
