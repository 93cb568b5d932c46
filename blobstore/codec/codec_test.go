package codec_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/iotest"

	"starling/blobstore"
	"starling/blobstore/blobtest"
	"starling/blobstore/codec"
	"starling/blobstore/memory"
)

// frame is the frame size of most tests here: small, so that there are many frames.
const frame = 4 << 10

func newCodec(t testing.TB, opts codec.Options) *codec.Codec {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	c, err := codec.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// text returns n bytes that compress about as mail does.
func text(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "Received: from mx%d.example.org (%x); line %d of %d\r\n", r.IntN(100), r.Uint64(), b.Len(), n)
	}
	return b.Bytes()[:n]
}

// store is a memory store that counts GETs and can change what they read.
type store struct {
	blobstore.Store

	mu     sync.Mutex
	gets   int
	bytes  int64
	change func(get int, offset int64, data []byte) []byte
}

func newStore() *store { return &store{Store: memory.New()} }

func (s *store) Get(ctx context.Context, key blobstore.Key, offset, length int64) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gets++
	r, err := s.Store.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	if s.change != nil {
		data = s.change(s.gets, offset, data)
	}
	s.bytes += int64(len(data))
	return io.NopCloser(io.MultiReader(bytes.NewReader(data), iotest.ErrReader(cmpErr(err)))), nil
}

func cmpErr(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

func (s *store) reset(change func(get int, offset int64, data []byte) []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gets, s.bytes, s.change = 0, 0, change
}

var header = codec.Header{Tenant: 1, Account: 2, Mailbox: 3, MailboxName: "INBOX", EmailID: 4, ThreadID: 5}

// save spools data in pieces, checks what the spool says, and puts the object.
func save(t testing.TB, c *codec.Codec, s blobstore.Store, data []byte) (blobstore.Key, codec.Extent) {
	t.Helper()
	spool := c.Spool(header)
	defer func() {
		if err := spool.Discard(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := io.CopyBuffer(struct{ io.Writer }{spool}, struct{ io.Reader }{bytes.NewReader(data)}, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	object, size, ext, err := spool.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if ext.Plain != int64(len(data)) || spool.Size() != ext.Plain || ext.Length != size || ext.CRC != crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)) {
		t.Fatalf("extent %+v of %d bytes in %d", ext, len(data), size)
	}
	wantWhole(t, spool.Body(), data)
	key := blobstore.NewKey(2)
	if _, err := s.Put(t.Context(), key, object, size); err != nil {
		t.Fatal(err)
	}
	parsed, err := codec.ParseExtent(ext.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(parsed.Frames, ext.Frames) || parsed.Append(nil) == nil || !bytes.Equal(parsed.Append(nil), ext.Append(nil)) {
		t.Fatalf("extent %+v became %+v", ext, parsed)
	}
	return key, parsed
}

func wantWhole(t testing.TB, b *codec.Body, data []byte) {
	t.Helper()
	var got bytes.Buffer
	if err := b.ReadRange(t.Context(), &got, 0, b.Size()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), data) {
		t.Fatalf("read %d bytes that are not the %d written", got.Len(), len(data))
	}
}

func TestRoundTripAtFrameBorders(t *testing.T) {
	t.Parallel()
	c := newCodec(t, codec.Options{FrameSize: frame, Memory: 3 * frame, Whole: 8 * frame})
	s := newStore()
	for _, size := range []int{0, 1, 2, frame - 1, frame, frame + 1, 2*frame - 1, 2 * frame, 2*frame + 1, 16384, 16385, 10 * frame, 30*frame + 7} {
		for name, data := range map[string][]byte{"text": text(size), "random": blobtest.Bytes(size), "zeros": make([]byte, size)} {
			key, ext := save(t, c, s, data)
			if ext.Plain > frame && len(ext.Frames) != (size+frame-1)/frame {
				t.Errorf("%s, %d bytes: %d frames", name, size, len(ext.Frames))
			}
			wantWhole(t, c.Open(s, key, ext), data)
			h, err := codec.ReadHeader(t.Context(), s, key)
			if err != nil || h.EmailID != header.EmailID || h.MailboxName != "INBOX" {
				t.Errorf("%s, %d bytes: header %+v, %v", name, size, h, err)
			}
		}
	}
}

func TestRangesGiveThePlainBytes(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]codec.Options{
		"kept whole": {FrameSize: frame},
		"by range":   {FrameSize: frame, Whole: 1, ReadAhead: 2 * frame},
		"no ahead":   {FrameSize: frame, Whole: 1, ReadAhead: 1},
	} {
		c, s := newCodec(t, opts), newStore()
		data := text(20*frame + 123)
		key, ext := save(t, c, s, data)
		b := c.Open(s, key, ext)
		r := rand.New(rand.NewPCG(1, 2))
		next := 0
		for i := range 2000 {
			off := r.IntN(len(data))
			if i%3 > 0 {
				off = next % len(data) // go on in order for a while
			}
			n := r.IntN(min(len(data)-off, 3*frame) + 1)
			next = off + n
			var got bytes.Buffer
			s.reset(nil)
			if err := b.ReadRange(t.Context(), &got, int64(off), int64(n)); err != nil {
				t.Fatalf("%s: ReadRange(%d, %d): %v", name, off, n, err)
			}
			if !bytes.Equal(got.Bytes(), data[off:off+n]) {
				t.Fatalf("%s: ReadRange(%d, %d) gave %d other bytes", name, off, n, got.Len())
			}
			if s.gets > 1 {
				t.Fatalf("%s: ReadRange(%d, %d) took %d GETs", name, off, n, s.gets)
			}
			if i%500 == 499 {
				b.Close()
			}
		}
		if err := iotest.TestReader(io.NewSectionReader(b.At(t.Context()), 0, b.Size()), data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRangeOutsideTheMessage(t *testing.T) {
	t.Parallel()
	c, s := newCodec(t, codec.Options{}), newStore()
	key, ext := save(t, c, s, []byte("12345"))
	b := c.Open(s, key, ext)
	s.reset(nil)
	for _, r := range [][2]int64{{-1, 1}, {0, 6}, {5, 1}, {6, 0}, {0, -1}, {1 << 62, 1 << 62}} {
		if err := b.ReadRange(t.Context(), io.Discard, r[0], r[1]); !errors.Is(err, blobstore.ErrRange) {
			t.Errorf("ReadRange(%d, %d): %v, want ErrRange", r[0], r[1], err)
		}
	}
	if s.gets != 0 {
		t.Errorf("%d GETs for ranges that are refused", s.gets)
	}
	p := make([]byte, 10)
	if n, err := b.At(t.Context()).ReadAt(p, 3); n != 2 || err != io.EOF || string(p[:2]) != "45" {
		t.Errorf("ReadAt beyond the end: %d, %v", n, err)
	}
	if n, err := b.At(t.Context()).ReadAt(p, 7); n != 0 || err != io.EOF {
		t.Errorf("ReadAt after the end: %d, %v", n, err)
	}
}

func TestGETs(t *testing.T) {
	t.Parallel()
	c, s := newCodec(t, codec.Options{}), newStore()
	for _, test := range []struct {
		name          string
		size          int
		slice         int // 0: whole
		gets          int
		most, fromOff int
	}{
		{name: "small mail, whole", size: 5 << 10, gets: 1},
		{name: "small mail, in slices", size: 5 << 10, slice: 100, gets: 1},
		{name: "mail of several frames that is small, in slices", size: 400 << 10, slice: 10 << 10, gets: 1},
		{name: "10 MB, whole", size: 10 << 20, gets: 1},
		{name: "10 MB in slices of 10 KB", size: 10 << 20, slice: 10 << 10, gets: 9},
	} {
		data := blobtest.Bytes(test.size) // does not compress: the worst case
		key, ext := save(t, c, s, data)
		b := c.Open(s, key, ext)
		slice := test.slice
		if slice == 0 {
			slice = len(data)
		}
		s.reset(nil)
		for off := 0; off < len(data); off += slice {
			n := min(slice, len(data)-off)
			if err := b.ReadRange(t.Context(), io.Discard, int64(off), int64(n)); err != nil {
				t.Fatal(err)
			}
		}
		if s.gets > test.gets {
			t.Errorf("%s: %d GETs, want at most %d", test.name, s.gets, test.gets)
		}
		if s.bytes > ext.Length {
			t.Errorf("%s: %d bytes fetched of %d", test.name, s.bytes, ext.Length)
		}
	}
}

func TestSliceOfALargeMailMovesFewBytes(t *testing.T) {
	t.Parallel()
	c, s := newCodec(t, codec.Options{}), newStore()
	key, ext := save(t, c, s, blobtest.Bytes(30<<20))
	s.reset(nil)
	if err := c.Open(s, key, ext).ReadRange(t.Context(), io.Discard, 20<<20, 4096); err != nil {
		t.Fatal(err)
	}
	if s.gets != 1 || s.bytes > 130<<10 {
		t.Errorf("%d GETs, %d bytes", s.gets, s.bytes)
	}
}

func TestCorruptionIsFoundEverywhere(t *testing.T) {
	t.Parallel()
	c := newCodec(t, codec.Options{FrameSize: frame, Whole: 1})
	for _, size := range []int{300, 3*frame - 100} {
		s, data := newStore(), text(size)
		key, ext := save(t, c, s, data)
		harmless := 0 // zstd has a few bits that say nothing about the bytes
		for at := int64(0); at < ext.Length; at++ {
			for _, bit := range []byte{0x01, 0x80} {
				s.reset(func(_ int, offset int64, data []byte) []byte {
					if i := at - offset; i >= 0 && i < int64(len(data)) {
						data[i] ^= bit
					}
					return data
				})
				var got bytes.Buffer
				err := c.Open(s, key, ext).ReadRange(t.Context(), &got, 0, int64(size))
				switch {
				case err == nil && !bytes.Equal(got.Bytes(), data):
					t.Fatalf("byte %d changed: wrong bytes and no error", at)
				case err != nil && (!errors.Is(err, blobstore.ErrCorrupt) || errors.Is(err, blobstore.ErrUnavailable)):
					t.Fatalf("byte %d changed: %v, want ErrCorrupt", at, err)
				case !bytes.HasPrefix(data, got.Bytes()):
					t.Fatalf("byte %d changed: wrong bytes before the error", at)
				case err == nil && at >= int64(ext.Header):
					harmless++
				}
				if _, err := codec.ReadHeader(t.Context(), s, key); (err != nil) != (at < int64(ext.Header)) {
					t.Fatalf("byte %d changed: header says %v", at, err)
				}
			}
		}
		if frames := max(1, len(ext.Frames)); harmless > 8*frames {
			t.Errorf("%d changes of %d frames were not noticed", harmless, frames)
		}
	}
}

func TestOtherBytesAreFoundByTheCRC(t *testing.T) {
	t.Parallel()
	c, s := newCodec(t, codec.Options{FrameSize: frame}), newStore()
	for _, size := range []int{200, 3 * frame} {
		mine, other := bytes.Repeat([]byte("a"), size), bytes.Repeat([]byte("b"), size)
		_, ext := save(t, c, s, mine)
		key, otherExt := save(t, c, s, other)
		if ext.Length != otherExt.Length {
			t.Fatalf("the objects have %d and %d bytes; the test needs them equal", ext.Length, otherExt.Length)
		}
		var got bytes.Buffer
		err := c.Open(s, key, ext).ReadRange(t.Context(), &got, 0, int64(size))
		if !errors.Is(err, blobstore.ErrCorrupt) || got.Len() == size {
			t.Errorf("%d bytes: %v after %d bytes, want ErrCorrupt before the last frame", size, err, got.Len())
		}
	}
}

func TestMismatchIsReadOnceMore(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(data []byte) []byte{
		"bit": func(data []byte) []byte { data[len(data)-1] ^= 4; return data },
		"cut": func(data []byte) []byte { return data[:len(data)/2] },
	} {
		for _, whole := range []int{1, 1 << 20} {
			c, s := newCodec(t, codec.Options{FrameSize: frame, Whole: whole}), newStore()
			data := text(5 * frame)
			key, ext := save(t, c, s, data)
			s.reset(func(get int, _ int64, data []byte) []byte {
				if get == 1 {
					return change(data)
				}
				return data
			})
			wantWhole(t, c.Open(s, key, ext), data)
			if s.gets != 2 {
				t.Errorf("%s: %d GETs, want 2", name, s.gets)
			}
		}
	}
}

func TestMissingAndShortObjects(t *testing.T) {
	t.Parallel()
	c, s := newCodec(t, codec.Options{FrameSize: frame}), newStore()
	data := text(5 * frame)
	_, ext := save(t, c, s, data)
	absent := blobstore.NewKey(2)
	if err := c.Open(s, absent, ext).ReadRange(t.Context(), io.Discard, 0, 1); !errors.Is(err, blobstore.ErrNotFound) {
		t.Errorf("absent: %v, want ErrNotFound", err)
	}
	if _, err := codec.ReadHeader(t.Context(), s, absent); !errors.Is(err, blobstore.ErrNotFound) {
		t.Errorf("absent: %v, want ErrNotFound", err)
	}
	for _, size := range []int{0, 1, 8, 50} {
		short := blobstore.NewKey(2)
		if _, err := s.Put(t.Context(), short, bytes.NewReader(make([]byte, size)), int64(size)); err != nil {
			t.Fatal(err)
		}
		if err := c.Open(s, short, ext).ReadRange(t.Context(), io.Discard, 0, 1); !errors.Is(err, blobstore.ErrCorrupt) {
			t.Errorf("%d bytes: %v, want ErrCorrupt", size, err)
		}
		if _, err := codec.ReadHeader(t.Context(), s, short); !errors.Is(err, blobstore.ErrCorrupt) {
			t.Errorf("%d bytes: header: %v, want ErrCorrupt", size, err)
		}
	}
}

func TestPackedObject(t *testing.T) {
	t.Parallel()
	c, s := newCodec(t, codec.Options{FrameSize: frame}), newStore()
	data := text(3 * frame)
	key, ext := save(t, c, s, data)
	r, err := s.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	object, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	packed := append(blobtest.Bytes(777), object...)
	packed = append(packed, "and what follows"...)
	if _, err := s.Put(t.Context(), key, bytes.NewReader(packed), int64(len(packed))); err != nil {
		t.Fatal(err)
	}
	ext.Offset = 777
	wantWhole(t, c.Open(s, key, ext), data)
}

func TestSpoolLeavesNoFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := newCodec(t, codec.Options{Dir: dir, Memory: 10_000})
	spool := c.Spool(header)
	data := blobtest.Bytes(1 << 20)
	if _, err := spool.Write(data); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("files with names: %v, %v", left, err)
	}
	if _, _, _, err := spool.Finish(); err != nil {
		t.Fatal(err)
	}
	wantWhole(t, spool.Body(), data)
	for range 2 {
		if err := spool.Discard(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := spool.Write(data); err == nil {
		t.Error("Write after Discard succeeds")
	}
}

func TestSpoolWithoutRoomIsUnavailable(t *testing.T) {
	t.Parallel()
	c := newCodec(t, codec.Options{Dir: filepath.Join(t.TempDir(), "missing"), Memory: 10_000})
	spool := c.Spool(header)
	_, err := spool.Write(blobtest.Bytes(1 << 20))
	if !errors.Is(err, blobstore.ErrUnavailable) {
		t.Errorf("Write: %v, want ErrUnavailable", err)
	}
	if _, _, _, err := spool.Finish(); !errors.Is(err, blobstore.ErrUnavailable) {
		t.Errorf("Finish: %v, want ErrUnavailable", err)
	}
	if err := spool.Discard(); err != nil {
		t.Error(err)
	}
}

func TestManyReadersOfOneBody(t *testing.T) {
	t.Parallel()
	c, s := newCodec(t, codec.Options{FrameSize: frame, Whole: 1, ReadAhead: 3 * frame}), newStore()
	data := text(20 * frame)
	key, ext := save(t, c, s, data)
	b := c.Open(s, key, ext)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 0))
			p := make([]byte, 5000)
			for range 200 {
				off := r.IntN(len(data) - len(p))
				if n, err := b.At(t.Context()).ReadAt(p, int64(off)); err != nil || !bytes.Equal(p[:n], data[off:off+n]) {
					t.Errorf("ReadAt(%d): %d, %v", off, n, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestBodyEndsWithItsContext(t *testing.T) {
	t.Parallel()
	c, s := newCodec(t, codec.Options{}), newStore()
	key, ext := save(t, c, s, text(1000))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := c.Open(s, key, ext)
	if err := b.ReadRange(ctx, io.Discard, 0, 10); !errors.Is(err, context.Canceled) {
		t.Errorf("ReadRange: %v, want Canceled", err)
	}
	if err := b.ReadRange(t.Context(), io.Discard, 0, 10); err != nil {
		t.Errorf("and then: %v", err)
	}
}

// failingWriter takes n bytes.
type failingWriter struct{ n int }

var errWriter = errors.New("the client is gone")

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, errWriter
	}
	return len(p), nil
}

func TestWritersErrorIsReturned(t *testing.T) {
	t.Parallel()
	c, s := newCodec(t, codec.Options{FrameSize: frame, Whole: 1}), newStore()
	data := text(5 * frame)
	key, ext := save(t, c, s, data)
	b := c.Open(s, key, ext)
	if err := b.ReadRange(t.Context(), &failingWriter{2 * frame}, 0, b.Size()); err != errWriter {
		t.Errorf("ReadRange: %v, want the writer's error", err)
	}
	wantWhole(t, b, data)
}
