package codec_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"starling/blobstore"
	"starling/blobstore/codec"
)

// objectHeader is the header frame of an empty message.
func objectHeader(t testing.TB, h codec.Header) []byte {
	t.Helper()
	spool := newCodec(t, codec.Options{}).Spool(h)
	defer func() {
		if err := spool.Discard(); err != nil {
			t.Error(err)
		}
	}()
	object, size, ext, err := spool.Finish()
	if err != nil || int64(ext.Header) != size {
		t.Fatalf("empty message: %+v, %d bytes, %v", ext, size, err)
	}
	data := make([]byte, size)
	if _, err := object.Read(data); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestHeaderComesBack(t *testing.T) {
	t.Parallel()
	for _, h := range []codec.Header{
		{},
		header,
		{
			Tenant: 1, Account: 1<<63 - 1, Mailbox: 7, MailboxName: "Räksmörgås/☃", EmailID: -1, ThreadID: -1 << 63, KeyID: 1<<32 - 1,
			Flags:        []string{`\Seen`, `\Flagged`, "$Forwarded", "Ünïcode", ""},
			InternalDate: time.Date(2024, 2, 29, 23, 59, 59, 0, time.FixedZone("", -(3*3600+1800))),
		},
		{InternalDate: time.Unix(0, 0).UTC()},
		{InternalDate: time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC)},
	} {
		data := objectHeader(t, h)
		got, n, err := codec.ParseHeader(append(data, "data frames"...))
		if err != nil || n != len(data) {
			t.Errorf("%+v: %d of %d bytes, %v", h, n, len(data), err)
		}
		if !got.InternalDate.Equal(h.InternalDate) || got.InternalDate.Format(time.RFC3339) != h.InternalDate.Format(time.RFC3339) {
			t.Errorf("internal date %v became %v", h.InternalDate, got.InternalDate)
		}
		got.InternalDate = h.InternalDate
		if !reflect.DeepEqual(got, h) {
			t.Errorf("%+v became %+v", h, got)
		}
	}
}

func TestHeaderIsBounded(t *testing.T) {
	t.Parallel()
	h := codec.Header{MailboxName: strings.Repeat("n", 5000), EmailID: 9}
	for i := range 1000 {
		h.Flags = append(h.Flags, fmt.Sprintf("keyword-%d", i))
	}
	data := objectHeader(t, h)
	if len(data) > codec.MaxHeader {
		t.Fatalf("header of %d bytes", len(data))
	}
	got, _, err := codec.ParseHeader(data)
	if err != nil || !got.Truncated || got.EmailID != 9 || len(got.MailboxName) != 1024 || len(got.Flags) < 100 {
		t.Errorf("header: %+v, %v", got, err)
	}
	if !slices.Equal(got.Flags, h.Flags[:len(got.Flags)]) {
		t.Error("the flags kept are not the first")
	}
}

func TestExtentIsSmall(t *testing.T) {
	t.Parallel()
	c, s := newCodec(t, codec.Options{}), newStore()
	for size, limit := range map[int]int{100: 25, 5 << 10: 25, 128 << 10: 25, 10 << 20: 300} {
		_, ext := save(t, c, s, text(size))
		if n := len(ext.Append(nil)); n > limit {
			t.Errorf("extent of %d bytes takes %d, want at most %d", size, n, limit)
		}
	}
}

func TestParseExtentRefuses(t *testing.T) {
	t.Parallel()
	c, s := newCodec(t, codec.Options{FrameSize: frame}), newStore()
	for _, size := range []int{0, 100, 5 * frame} {
		_, ext := save(t, c, s, text(size))
		good := ext.Append(nil)
		for n := range good {
			if _, err := codec.ParseExtent(good[:n]); !errors.Is(err, blobstore.ErrCorrupt) {
				t.Errorf("%d of %d bytes: %v, want ErrCorrupt", n, len(good), err)
			}
		}
		if _, err := codec.ParseExtent(append(good, 0)); !errors.Is(err, blobstore.ErrCorrupt) {
			t.Errorf("a byte too many: %v", err)
		}
		for _, i := range []int{0, 1} {
			bad := bytes.Clone(good)
			bad[i]++
			if _, err := codec.ParseExtent(bad); !errors.Is(err, blobstore.ErrCorrupt) {
				t.Errorf("byte %d changed: %v", i, err)
			}
		}
	}
}

func FuzzParseExtent(f *testing.F) {
	c, s := newCodec(f, codec.Options{FrameSize: frame}), newStore()
	for _, size := range []int{0, 1, 100, frame, 5 * frame} {
		_, ext := save(f, c, s, text(size))
		f.Add(ext.Append(nil))
	}
	key, _ := save(f, c, s, text(3*frame))
	f.Fuzz(func(t *testing.T, data []byte) {
		ext, err := codec.ParseExtent(data)
		if err != nil {
			if !errors.Is(err, blobstore.ErrCorrupt) {
				t.Fatalf("error %v, want ErrCorrupt", err)
			}
			return
		}
		again, err := codec.ParseExtent(ext.Append(nil))
		if err != nil || !reflect.DeepEqual(again, ext) {
			t.Fatalf("%+v became %+v, %v", ext, again, err)
		}
		if ext.Plain == 0 {
			return
		}
		// Whatever it says, reading by it is an error or right, and bounded.
		var w bytes.Buffer
		if err := c.Open(s, key, ext).ReadRange(t.Context(), &w, ext.Plain-1, 1); err == nil && w.Len() != 1 {
			t.Fatalf("read %d bytes", w.Len())
		}
	})
}

func FuzzParseHeader(f *testing.F) {
	for _, h := range []codec.Header{{}, header, {Flags: []string{`\Seen`, "x"}, InternalDate: time.Unix(1e9, 0), KeyID: 7}} {
		f.Add(objectHeader(f, h))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, n, err := codec.ParseHeader(data)
		if err != nil {
			if !errors.Is(err, blobstore.ErrCorrupt) {
				t.Fatalf("error %v, want ErrCorrupt", err)
			}
			return
		}
		if n > codec.MaxHeader || n > len(data) {
			t.Fatalf("header of %d bytes in %d: %+v", n, len(data), h)
		}
	})
}

// corpus returns the mails of the shared corpus.
func corpus(t testing.TB) []string {
	t.Helper()
	dir := os.Getenv("STARLING_CORPUS")
	if dir == "" {
		wd, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for d := wd; d != filepath.Dir(d) && dir == ""; d = filepath.Dir(d) {
			if _, err := os.Stat(filepath.Join(d, "shared", "corpus")); err == nil {
				dir = filepath.Join(d, "shared", "corpus")
			}
		}
	}
	if dir == "" {
		t.Skip("no corpus: set STARLING_CORPUS, or put shared/corpus beside the project")
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.eml"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no *.eml in %s: %v", dir, err)
	}
	return names
}

func TestCorpusComesBackByteForByte(t *testing.T) {
	t.Parallel()
	c, s := newCodec(t, codec.Options{}), newStore()
	var plain, object, extents int64
	names := corpus(t)
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		key, ext := save(t, c, s, data)
		wantWhole(t, c.Open(s, key, ext), data)
		plain, object, extents = plain+ext.Plain, object+ext.Length, extents+int64(len(ext.Append(nil)))
	}
	t.Logf("%d mails: %d bytes, %d in objects (%.1f%%), %.1f bytes an extent", len(names), plain, object, 100*float64(object)/float64(plain), float64(extents)/float64(len(names)))
}
