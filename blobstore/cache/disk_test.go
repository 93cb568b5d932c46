package cache

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"pgregory.net/rapid"

	"starling/blobstore"
	"starling/blobstore/blobtest"
	inmemory "starling/blobstore/memory"
)

func newID(n byte) objectID { return objectID{1, blobstore.Object{n}} }

func openTest(t testing.TB, size int64) (*disk, *observer.ObservedLogs) {
	core, logs := observer.New(zapcore.InfoLevel)
	d := openDisk(t.TempDir(), size, zap.New(core), newMetrics(nil))
	if d == nil {
		t.Fatal("no disk")
	}
	t.Cleanup(d.close)
	return d, logs
}

func TestDiskIsBoundedAndGivesUpTheOldest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		file, err := createFile(dir)
		if err != nil {
			rt.Fatal(err)
		}
		defer file.Close()
		size := rapid.Int64Range(1000, 10_000).Draw(rt, "size")
		d := newDisk(file, size, zap.NewNop(), newMetrics(nil)) // which does not write by itself
		all := make([][]byte, rapid.IntRange(1, 60).Draw(rt, "blocks"))
		for i := range all {
			all[i] = blobtest.Bytes(rapid.IntRange(1, 1500).Draw(rt, "length"))
			d.add(newID(byte(i)), []block{{3, all[i]}})
			d.writeNext()
			// What does not fit at the end is written at the beginning: the room of one block may be lost there.
			room, last := size-1600, headSize+len(all[i]) <= int(size)
			for j := i; j >= 0; j-- {
				got := d.get(newID(byte(j)), 3)
				room -= int64(headSize + len(all[j]))
				switch {
				case got != nil && !bytes.Equal(got, all[j]):
					rt.Fatalf("block %d of %d is not what was kept", j, i+1)
				case got == nil && (room >= 0 || last):
					rt.Fatalf("block %d of %d is gone, with room for it and more", j, i+1)
				}
				last = false
			}
			if info, err := file.Stat(); err != nil || info.Size() > size || d.bytes() > float64(size) {
				rt.Fatalf("the file has %d bytes, %v of them used, and may have %d; %v", info.Size(), d.bytes(), size, err)
			}
		}
	})
}

func TestDiskForgetsWhatIsDropped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, _ := openTest(t, 1<<20)
		a, b := newID(1), newID(2)
		for index := range 3 {
			d.add(a, []block{{index, []byte("a")}})
			d.add(b, []block{{index, []byte("b")}})
		}
		synctest.Wait() // they are written
		if d.get(a, 2) == nil || d.get(b, 2) == nil {
			t.Fatal("blocks are not kept")
		}
		d.drop(a)
		d.add(b, []block{{7, []byte("queued")}})
		d.drop(b) // some of it may be on its way to the disk
		synctest.Wait()
		for _, index := range []int{0, 1, 2, 7} {
			if d.get(a, index) != nil || d.get(b, index) != nil {
				t.Errorf("block %d is still found", index)
			}
		}
	})
}

func TestDiskForgetsWhatIsDroppedWhileItIsWritten(t *testing.T) {
	t.Parallel()
	file, err := createFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	d := newDisk(file, 1<<20, zap.NewNop(), newMetrics(nil))
	for i, drop := range []bool{false, true} {
		id := newID(byte(i))
		d.add(id, []block{{2, []byte("a block")}})
		q, at, _ := d.next()
		if drop {
			d.drop(id)
		}
		if _, err := file.WriteAt(appendRecord(nil, q.id, q.index, q.data), at); err != nil {
			t.Fatal(err)
		}
		d.wrote(q, at, nil)
		if got := d.get(id, 2); (got == nil) != drop {
			t.Errorf("dropped %v: got %q", drop, got)
		}
	}
}

// What is written over while it is read is a miss, and no fault of the disk.
func TestDiskReadWhileItIsWrittenOver(t *testing.T) {
	t.Parallel()
	d, _ := openTest(t, 500_000)
	all := blobtest.Bytes(200_008)
	data := func(i int) []byte { return all[i%8:][:200_000] }
	var readers sync.WaitGroup
	var done atomic.Bool
	for range 4 {
		readers.Go(func() {
			for i := 0; !done.Load(); i++ {
				if got := d.get(newID(byte(i%8)), 0); got != nil && !bytes.Equal(got, data(i)) {
					t.Error("wrong bytes")
				}
			}
		})
	}
	for i := 0; testutil.ToFloat64(d.metrics.diskEvictions) < 500 && testutil.ToFloat64(d.metrics.diskErrors) == 0; i++ {
		d.add(newID(byte(i%8)), []block{{0, data(i)}})
		runtime.Gosched()
	}
	done.Store(true)
	readers.Wait()
	if n := testutil.ToFloat64(d.metrics.diskErrors); n != 0 {
		t.Errorf("%v errors of the disk", n)
	}
}

func TestDiskThatRotsIsAMiss(t *testing.T) {
	t.Parallel()
	for at := range headSize + 10 {
		d, logs := openTest(t, 1<<20)
		id, data := newID(1), blobtest.Bytes(10)
		d.wrote(&queued{id: id, block: block{2, data}}, 0, nil)
		record := appendRecord(nil, id, 2, data)
		record[at] ^= 0x10
		if _, err := d.file.WriteAt(record, 0); err != nil {
			t.Fatal(err)
		}
		if got := d.get(id, 2); got != nil {
			t.Fatalf("byte %d changed, and still %d bytes are given", at, len(got))
		}
		if logs.Len() != 1 || testutil.ToFloat64(d.metrics.diskErrors) != 1 {
			t.Errorf("byte %d changed: %d lines, %v errors", at, logs.Len(), testutil.ToFloat64(d.metrics.diskErrors))
		}
	}
}

// Two blocks may have one hash: the second has the place then, and the first is a miss.
func TestDiskThatHasAnotherBlockThereIsAMiss(t *testing.T) {
	t.Parallel()
	d, logs := openTest(t, 1<<20)
	if _, err := d.file.WriteAt(appendRecord(nil, newID(2), 2, []byte("other")), 0); err != nil {
		t.Fatal(err)
	}
	d.wrote(&queued{id: newID(1), block: block{2, []byte("mine.")}}, 0, nil)
	if got := d.get(newID(1), 2); got != nil || logs.Len() != 0 {
		t.Errorf("got %q, and %d lines", got, logs.Len())
	}
}

// A disk that is full, or fails, is told once a minute, counted, and no more than not there.
func TestDiskThatFailsIsNoError(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no /dev/full here: ", err)
	}
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		inner := inmemory.New()
		s := New(inner, Config{Dir: t.TempDir(), Disk: 1 << 20, Log: zap.New(core)})
		defer s.Close()
		good := s.disk.file
		s.disk.file = full
		key, data := blobstore.NewKey(1), blobtest.Bytes(5000)
		if _, err := inner.Put(t.Context(), key, bytes.NewReader(data), 5000); err != nil {
			t.Fatal(err)
		}
		read := func() {
			t.Helper()
			r, err := s.Get(t.Context(), key, 100, 4000)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data[100:4100]) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			synctest.Wait() // it is written, or not
		}
		for range 10 {
			read()
		}
		if logs.Len() != 1 || testutil.ToFloat64(s.metrics.diskErrors) != 1 {
			t.Errorf("%d lines, %v errors, want one", logs.Len(), testutil.ToFloat64(s.metrics.diskErrors))
		}
		time.Sleep(diskPause + time.Second) // of the bubble's clock
		read()
		if logs.Len() != 2 {
			t.Errorf("%d lines, want another after the pause", logs.Len())
		}
		if err := full.Close(); err != nil {
			t.Fatal(err)
		}
		s.disk.file = good
		time.Sleep(diskPause + time.Second)
		read()
		read()
		if hits := testutil.ToFloat64(s.metrics.diskHits); hits != 1 {
			t.Errorf("%v hits, want 1 once the disk works again", hits)
		}
	})
}

// The folder holds nothing that could be left behind.
func TestDiskHasNoName(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "for it")
	d := openDisk(dir, 1<<20, zap.NewNop(), newMetrics(nil))
	defer d.close()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestFolderThatCannotBeUsedIsTold(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.InfoLevel)
	m := newMetrics(nil)
	if d := openDisk("/dev/null/cache", 1<<20, zap.New(core), m); d != nil || logs.Len() != 1 || testutil.ToFloat64(m.diskErrors) != 1 {
		t.Errorf("%v, %d lines, %v errors", d, logs.Len(), testutil.ToFloat64(m.diskErrors))
	}
}
