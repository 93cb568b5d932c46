package codec

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"starling/blobstore"
	"starling/blobstore/memory"
)

// What is recovered from an object is what its Spool said of it.
func TestRecover(t *testing.T) {
	t.Parallel()
	c, err := New(Options{Dir: t.TempDir(), FrameSize: minFrame})
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 5*minFrame)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(noise) // never fails
	h := Header{
		Tenant: 1, Account: 2, Mailbox: 3, MailboxName: "Büro", Flags: []string{`\Seen`, "$Forwarded"}, EmailID: 4,
		InternalDate: time.Unix(1_700_000_000, 0).In(time.FixedZone("", 3600)),
	}
	for name, message := range map[string][]byte{
		"empty": nil, "one byte": {'x'}, "of one value": bytes.Repeat([]byte{'x'}, 3000), "one frame": noise[:minFrame], "two frames": noise[:minFrame+1],
		"even frames": noise, "text": []byte(strings.Repeat("A line of text.\r\n", 4000)),
	} {
		store := memory.New()
		key := blobstore.NewKey(2)
		object, extent := storeMessage(t, c, store, key, h, message)
		var got bytes.Buffer
		header, ext, err := c.Recover(t.Context(), store, key, &got)
		if err != nil || !bytes.Equal(got.Bytes(), message) {
			t.Errorf("%s: %d bytes of %d, %v", name, got.Len(), len(message), err)
			continue
		}
		if !reflect.DeepEqual(ext, extent) {
			t.Errorf("%s: extent %+v, want %+v", name, ext, extent)
		}
		if header.MailboxName != h.MailboxName || header.EmailID != h.EmailID || !header.InternalDate.Equal(h.InternalDate) || !reflect.DeepEqual(header.Flags, h.Flags) {
			t.Errorf("%s: header %+v", name, header)
		}
		// With any bit another, or bytes missing, but whole frames at its end, it is no other message.
		borders := map[int]bool{ext.Header: true}
		for i, end := 0, ext.Header; i < len(ext.Frames); i++ {
			end += int(ext.Frames[i])
			borders[end] = true
		}
		for range 300 {
			broken := bytes.Clone(object)
			at := rand.IntN(len(broken))
			if cut := rand.IntN(2) == 0 && !borders[at]; cut {
				broken = broken[:at]
			} else {
				broken[at] ^= 1 << rand.IntN(8)
			}
			if _, err := store.Put(t.Context(), key, bytes.NewReader(broken), int64(len(broken))); err != nil {
				t.Fatal(err)
			}
			got.Reset() // some bits of a frame mean nothing
			if _, _, err := c.Recover(t.Context(), store, key, &got); !errors.Is(err, blobstore.ErrCorrupt) && (err != nil || !bytes.Equal(got.Bytes(), message)) {
				t.Errorf("%s: damaged at byte %d: %d bytes, %v", name, at, got.Len(), err)
			}
		}
	}
}

func storeMessage(t *testing.T, c *Codec, store blobstore.Store, key blobstore.Key, h Header, message []byte) ([]byte, Extent) {
	t.Helper()
	s := c.Spool(h)
	defer func() {
		if err := s.Discard(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := s.Write(message); err != nil {
		t.Fatal(err)
	}
	r, size, ext, err := s.Finish()
	if err != nil {
		t.Fatal(err)
	}
	object, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Put(t.Context(), key, bytes.NewReader(object), size); err != nil {
		t.Fatal(err)
	}
	return object, ext
}

// A store that is away does not make an object corrupt.
func TestRecoverUnavailable(t *testing.T) {
	t.Parallel()
	c, err := New(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	store, key := memory.New(), blobstore.NewKey(2)
	storeMessage(t, c, store, key, Header{Account: 2}, []byte("message"))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := c.Recover(gone, store, key, io.Discard); !errors.Is(err, context.Canceled) || errors.Is(err, blobstore.ErrCorrupt) {
		t.Errorf("error is %v", err)
	}
	failed := errors.New("disk full")
	if _, _, err := c.Recover(t.Context(), store, key, failing{failed}); !errors.Is(err, failed) {
		t.Errorf("error is %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
