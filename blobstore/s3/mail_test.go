package s3_test

import (
	"bytes"
	"io"
	"net/http/httptest"
	"testing"

	"starling/blobstore"
	"starling/blobstore/blobtest"
	"starling/blobstore/codec"
	"starling/blobstore/s3/s3test"
)

// A mail, small or large, costs one PUT, and one GET to read whole.
func TestMailIsOnePutAndOneGet(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	s := open(t, n.conf)
	c, err := codec.New(codec.Options{Dir: t.TempDir(), Memory: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{5000, 9_000_000} {
		n.set(nil)
		data, key := blobtest.Bytes(size), blobstore.NewKey(1)
		spool := c.Spool(codec.Header{Account: 1, MailboxName: "INBOX"})
		if _, err := spool.Write(data); err != nil {
			t.Fatal(err)
		}
		object, length, ext, err := spool.Finish()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Put(t.Context(), key, object, length); err != nil {
			t.Fatal(err)
		}
		if err := spool.Discard(); err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := c.Open(s, key, ext).ReadRange(t.Context(), &got, 0, int64(size)); err != nil || !bytes.Equal(got.Bytes(), data) {
			t.Fatalf("%d of %d bytes, %v", got.Len(), size, err)
		}
		n.mu.Lock()
		if len(n.seen) != 2 || n.seen[0] != "PUT" || n.seen[1][:4] != "GET " {
			t.Errorf("requests: %q", n.seen)
		}
		n.mu.Unlock()
		if h, err := codec.ReadHeader(t.Context(), s, key); err != nil || h.MailboxName != "INBOX" {
			t.Errorf("header %+v, %v", h, err)
		}
	}
}

func BenchmarkPut5KB(b *testing.B) {
	s, data := open(b, s3test.New(b)), blobtest.Bytes(5<<10)
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
	s, data, key := open(b, s3test.New(b)), blobtest.Bytes(5<<10), blobstore.NewKey(7)
	if _, err := s.Put(b.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, err := s.Get(b.Context(), key, 0, int64(len(data)))
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, r); err != nil {
				b.Fatal(err)
			}
			if err := r.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
