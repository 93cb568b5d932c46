package disk_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"starling/blobstore"
	"starling/blobstore/blobtest"
	"starling/blobstore/disk"
)

func open(t testing.TB, root string) *disk.Store {
	t.Helper()
	s, err := disk.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	t.Parallel()
	blobtest.Run(t, func(t *testing.T) blobstore.Store { return open(t, t.TempDir()) })
}

func TestReopenSeesWhatWasPut(t *testing.T) {
	t.Parallel()
	root, key := t.TempDir(), blobstore.NewKey(7)
	if _, err := open(t, root).Put(t.Context(), key, bytes.NewReader([]byte("kept")), 4); err != nil {
		t.Fatal(err)
	}
	r, err := open(t, root).Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := got.ReadFrom(r); err != nil || got.String() != "kept" {
		t.Fatalf("got %q, %v", got.String(), err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRemovesOnlyOldLeftovers(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	open(t, root)
	old, fresh := filepath.Join(root, ".tmp", "old"), filepath.Join(root, ".tmp", "fresh")
	for _, name := range []string{old, fresh} {
		if err := os.WriteFile(name, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	then := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(old, then, then); err != nil {
		t.Fatal(err)
	}
	open(t, root)
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old leftover is still there: %v", err)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("a file that may still be written is gone: %v", err)
	}
}

func TestFailedPutLeavesNoFile(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, root)
	// A folder stands where the object should be: everything works up to the rename.
	key := blobstore.NewKey(7)
	if err := os.MkdirAll(filepath.Join(root, string(key), "in-the-way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), key, bytes.NewReader([]byte("x")), 1); !errors.Is(err, blobstore.ErrUnavailable) {
		t.Fatalf("Put: %v", err)
	}
	left, err := os.ReadDir(filepath.Join(root, ".tmp"))
	if err != nil || len(left) != 0 {
		t.Fatalf(".tmp holds %v, %v", left, err)
	}
}

func TestUnmountedIsUnavailableNotAbsent(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "mount")
	s, key := open(t, root), blobstore.NewKey(7)
	if _, err := s.Put(t.Context(), key, bytes.NewReader([]byte("x")), 1); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(root, root+".away"); err != nil {
		t.Fatal(err)
	}
	for _, mountpoint := range []bool{false, true} {
		if mountpoint { // the disk is away, the empty folder that it was mounted on is there
			if err := os.Mkdir(root, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		_, err := s.Get(t.Context(), key, 0, -1)
		wantUnavailable(t, "Get", err)
		wantUnavailable(t, "Delete", s.Delete(t.Context(), key))
		_, err = s.Put(t.Context(), key, bytes.NewReader([]byte("x")), 1)
		wantUnavailable(t, "Put", err)
		err = nil
		for _, err = range s.List(t.Context(), "", "") {
		}
		wantUnavailable(t, "List", err)
	}
}

func wantUnavailable(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, blobstore.ErrUnavailable) {
		t.Errorf("%s: %v, want ErrUnavailable", what, err)
	}
}

func TestTwoStoresMakeTheSameAccount(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	stores := []*disk.Store{open(t, root), open(t, root)}
	for account := range int64(50) {
		var wg sync.WaitGroup
		for _, s := range stores {
			wg.Go(func() {
				if _, err := s.Put(t.Context(), blobstore.NewKey(account), bytes.NewReader([]byte("x")), 1); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}

func BenchmarkPut5KB(b *testing.B) {
	s, data := open(b, b.TempDir()), blobtest.Bytes(5<<10)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Put(b.Context(), blobstore.NewKey(7), bytes.NewReader(data), int64(len(data))); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkGet5KB(b *testing.B) {
	s, data, key := open(b, b.TempDir()), blobtest.Bytes(5<<10), blobstore.NewKey(7)
	if _, err := s.Put(b.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	buf := make([]byte, len(data)+1)
	for b.Loop() {
		r, err := s.Get(b.Context(), key, 0, -1)
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for err == nil {
			var m int
			m, err = r.Read(buf[n:])
			n += m
		}
		if n != len(data) || r.Close() != nil {
			b.Fatal(n, err)
		}
	}
}

func TestEndUploadsEndsThoseOfADeadProcess(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dead := open(t, root)
	data := blobtest.Bytes(1 << 20)
	for account := range int64(3) {
		u := dead.Upload(t.Context(), blobstore.NewKey(account), bytes.NewReader(data))
		defer u.Abort()
		u.Grown(1 << 20)
	}
	s := open(t, root) // its sweep leaves what is young
	for _, c := range []struct {
		prefix string
		before time.Time
		want   int
	}{
		{"", time.Now().Add(-time.Minute), 0},
		{blobstore.AccountPrefix(1), time.Now().Add(time.Minute), 1},
		{blobstore.AccountPrefix(1), time.Time{}, 0},
		{"", time.Time{}, 2},
	} {
		if n, err := s.EndUploads(t.Context(), c.prefix, c.before); n != c.want || err != nil {
			t.Errorf("%d ended of %q before %v, %v, want %d", n, c.prefix, c.before, err, c.want)
		}
	}
}
