package s3_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"starling/blobstore"
	"starling/blobstore/blobtest"
	"starling/blobstore/s3/s3test"
)

// Readers that stop in the middle, as clients do that do not take what they asked for,
// keep no connection from others; and read the rest when they go on.
func TestIdleReadersGiveWay(t *testing.T) {
	t.Parallel()
	conf := s3test.New(t)
	conf.MaxConns, conf.StallTimeout, conf.RetryDelay = 2, time.Second, 10*time.Millisecond
	s := open(t, conf)
	large, small := blobstore.NewKey(1), blobstore.NewKey(1)
	data := blobtest.Bytes(8 << 20) // more than fits between server and client
	if err := putBytes(t, s, large, data); err != nil {
		t.Fatal(err)
	}
	readers := make([]io.ReadCloser, 4)
	begun := make([]byte, 10)
	for i := range readers {
		r, err := s.Get(t.Context(), large, 0, -1)
		if err != nil {
			t.Fatalf("reader %d: %v", i, err)
		}
		readers[i] = r
		if _, err := io.ReadFull(r, begun); err != nil {
			t.Fatalf("reader %d: %v", i, err)
		}
	}
	if err := putBytes(t, s, small, data[:100]); err != nil {
		t.Errorf("put beside idle readers: %v", err)
	}
	if got, err := getBytes(t.Context(), s, small, 0, -1); err != nil || !bytes.Equal(got, data[:100]) {
		t.Errorf("get beside idle readers: %d bytes, %v", len(got), err)
	}
	for i, r := range readers {
		rest, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(rest, data[10:]) {
			t.Errorf("reader %d: %d bytes, %v", i, len(rest), err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("reader %d: %v", i, err)
		}
	}
}
