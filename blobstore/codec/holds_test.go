package codec

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"starling/blobstore"
	"starling/blobstore/memory"
)

// held is the memory that a Body has now.
func (b *Body) held() (n int64) {
	for _, s := range b.slots {
		if s.buf != nil {
			n += int64(cap(*s.buf))
		}
	}
	if b.win.frameBuf != nil {
		n += int64(cap(*b.win.frameBuf))
	}
	return n + int64(cap(b.win.kept))
}

// What a Body says that it may hold is what it holds at most, and not many times as much.
func TestHolds(t *testing.T) {
	t.Parallel()
	c, err := New(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	random := rand.NewChaCha8([32]byte{1})
	for _, size := range []int{0, 700, 16 << 10, 20_000, 100_000, 300_000, 600_000, 900_000, 3_000_000, 9_000_000} {
		for _, dense := range []bool{false, true} {
			plain := bytes.Repeat([]byte("A line that is like others.\r\n"), size/29+1)[:size]
			if dense {
				_, _ = random.Read(plain) // it never fails
			}
			store, key := memory.New(), blobstore.NewObject().Key(1)
			s := c.Spool(Header{})
			if _, err := s.Write(plain); err != nil {
				t.Fatal(err)
			}
			object, length, ext, err := s.Finish()
			if err == nil {
				_, err = store.Put(t.Context(), key, object, length)
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, step := range []int64{10_000, 100_000, int64(size)} {
				for _, ahead := range []bool{false, true} {
					what := fmt.Sprintf("%d octets, %d in the store, by %d, ahead %v", size, length, step, ahead)
					b := c.Open(store, key, ext)
					b.ReadAhead(ahead)
					may, most := b.Holds(step, ahead), int64(0)
					for off := int64(0); off < int64(size); off += step {
						if err := b.ReadRange(t.Context(), io.Discard, off, min(step, int64(size)-off)); err != nil {
							t.Fatalf("%s: %v", what, err)
						}
						most = max(most, b.held())
					}
					if most > may {
						t.Errorf("%s: it held %d, more than the %d that it says", what, most, may)
					}
					if inOrder := step < int64(size); (inOrder || !ahead) && may > 2*most+storeKeeps+smallFrame {
						t.Errorf("%s: it held %d and says %d", what, most, may)
					}
					b.Close()
				}
			}
			if err := s.Discard(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
