package codec

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"sync"

	"starling/blobstore"
)

// Body reads one message. It fetches what it needs and keeps a little: all of a small object, the frames that it
// decompressed last, and, of a larger object that is read in order, what comes next. So it is worth keeping from one command
// to the next. It may be used by several goroutines, which wait for each other.
type Body struct {
	c    *Codec
	name string // for errors
	ext  Extent

	mu    sync.Mutex
	win   window
	slots [2]slot // decompressed frames, the one used last first
}

// slot is a decompressed frame.
type slot struct {
	index int
	plain []byte  // nil: the slot is empty
	buf   *[]byte // what plain lies in, if it is the codec's
}

// Open returns the message that the extent says is in the object under key. Nothing is fetched yet.
func (c *Codec) Open(store blobstore.Store, key blobstore.Key, ext Extent) *Body {
	return c.open(storeSource{store, key, ext.Offset}, string(key), ext)
}

func (c *Codec) open(src source, name string, ext Extent) *Body {
	return &Body{c: c, name: name, ext: ext, win: newWindow(src, &ext, c)}
}

// Size returns the number of bytes of the message.
func (b *Body) Size() int64 { return b.ext.Plain }

// ReadRange writes n bytes of the message from off to w, frame by frame: at most one GET, and one more if what came was
// corrupt. A range that is not within the message is blobstore.ErrRange. Errors of w are returned as they are.
//
// All bytes written are right. If the range is the whole message, its last frame is written only after the CRC of all has
// been checked.
func (b *Body) ReadRange(ctx context.Context, w io.Writer, off, n int64) error {
	if off < 0 || n < 0 || off > b.ext.Plain-n {
		return fmt.Errorf("read %s: %w: %d bytes from %d of %d", b.name, blobstore.ErrRange, n, off, b.ext.Plain)
	}
	if n == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.win.closeStream()
	size := b.ext.frameSize()
	first, last := int(off/size), int((off+n-1)/size)
	b.win.plan(first, last, off)
	whole, crc := n == b.ext.Plain, uint32(0)
	for i := first; i <= last; i++ {
		plain, err := b.frame(ctx, i)
		if err != nil {
			return fmt.Errorf("read %s: %w", b.name, err)
		}
		if whole {
			crc = crc32.Update(crc, castagnoli, plain)
			if i == last && crc != b.ext.CRC {
				b.c.opts.Corrupt()
				return fmt.Errorf("read %s: %w: CRC of the message", b.name, blobstore.ErrCorrupt)
			}
		}
		start := int64(i) * size
		from, to := max(0, off-start), min(int64(len(plain)), off+n-start)
		if _, err := w.Write(plain[from:to]); err != nil {
			return err
		}
	}
	b.win.end = off + n
	b.win.readAhead()
	return nil
}

// Holds returns how many bytes of memory it takes at most, about, to read ranges of the message of which none is longer than
// most bytes, and what is kept between them. With ahead that is what comes next too; see ReadAhead.
func (b *Body) Holds(most int64, ahead bool) int64 {
	plain := int64(smallFrame)
	if b.ext.frameSize() > smallFrame {
		plain = max(b.ext.frameSize(), int64(b.c.opts.FrameSize))
	}
	length := b.ext.Length - int64(b.ext.Header)
	switch whole := int64(b.c.opts.Whole); {
	case b.ext.frames() <= 1:
		return plain + max(smallFrame, length+length/8)
	case b.ext.Length <= whole:
		return 2*plain + length
	}
	frame := int64(slices.Max(b.ext.Frames))
	n := 2*plain + max(smallFrame, frame+frame/8)
	if got := min(length, most+2*plain); got <= storeKeeps {
		n += got
	}
	if ahead {
		n += min(length, int64(b.c.opts.ReadAhead))
	}
	return n
}

// storeKeeps is the longest range that a store may have in memory, as a cache has, until it was read.
const storeKeeps = 1 << 20

// ReadAhead says whether what comes next of a large message is fetched too, and kept, once ranges have come in order. It is,
// until somebody says that there is no memory for it.
func (b *Body) ReadAhead(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.win.most = 0
	if on {
		b.win.most = int64(b.c.opts.ReadAhead)
	}
}

// At returns the message as an io.ReaderAt whose reads are bound to ctx. A read that reaches beyond the message's end
// gives io.EOF with what there is.
func (b *Body) At(ctx context.Context) io.ReaderAt { return readerAt{ctx, b} }

// readerAt is the one place that keeps a context: io.ReaderAt has no room for one, and lives as long as its caller's.
type readerAt struct {
	ctx context.Context
	b   *Body
}

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read %s: %w: offset %d", r.b.name, blobstore.ErrRange, off)
	}
	n := min(int64(len(p)), max(0, r.b.ext.Plain-off))
	w := sliceWriter{p: p[:n]}
	if n > 0 {
		if err := r.b.ReadRange(r.ctx, &w, off, n); err != nil {
			return w.n, err
		}
	}
	if n < int64(len(p)) {
		return w.n, io.EOF
	}
	return w.n, nil
}

type sliceWriter struct {
	p []byte
	n int
}

func (w *sliceWriter) Write(p []byte) (int, error) {
	n := copy(w.p[w.n:], p)
	w.n += n
	return n, nil
}

// Close gives back what the Body keeps; a later read fetches anew.
func (b *Body) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.win.drop()
	for i := range b.slots {
		b.c.release(b.slots[i].buf)
		b.slots[i] = slot{}
	}
}

// frame returns the plain bytes of frame i, which are right. They are valid until the next call but one.
func (b *Body) frame(ctx context.Context, i int) ([]byte, error) {
	if s := &b.slots[0]; s.plain != nil && s.index == i {
		return s.plain, nil
	}
	b.slots[0], b.slots[1] = b.slots[1], b.slots[0]
	s := &b.slots[0]
	if s.plain != nil && s.index == i {
		return s.plain, nil
	}
	var err error
	for range 2 { // what does not match is read once more
		var data []byte
		data, err = b.win.frame(ctx, i)
		if err == nil {
			err = b.decode(s, i, data)
		}
		if err == nil {
			return s.plain, nil
		}
		b.win.drop()
		if !mismatch(err) {
			return nil, err
		}
		b.win.src.forget()
	}
	b.c.opts.Corrupt()
	return nil, fmt.Errorf("%w: frame %d: %w", blobstore.ErrCorrupt, i, err)
}

// errMismatch: a frame is not what the extent says. An object that is shorter than the extent says shows itself as
// ErrRange or io.ErrUnexpectedEOF.
var errMismatch = errors.New("bytes do not match their checksum or length")

func mismatch(err error) bool {
	if errors.Is(err, blobstore.ErrUnavailable) {
		return false
	}
	return errors.Is(err, errMismatch) || errors.Is(err, blobstore.ErrRange) || errors.Is(err, io.ErrUnexpectedEOF)
}

// decode decompresses frame i into the slot.
func (b *Body) decode(s *slot, i int, data []byte) error {
	n := b.ext.plain(i)
	if s.buf == nil || len(*s.buf) < n {
		b.c.release(s.buf)
		s.buf = b.c.buffer(n)
	}
	s.index, s.plain = i, nil
	plain, err := b.c.dec.DecodeAll(data, (*s.buf)[:0:n])
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errMismatch, err)
	case len(plain) != n:
		return fmt.Errorf("%w: %d bytes instead of %d", errMismatch, len(plain), n)
	case b.ext.frames() == 1 && crc32.Checksum(plain, castagnoli) != b.ext.CRC:
		return fmt.Errorf("%w: CRC of the message", errMismatch)
	}
	s.plain = plain
	return nil
}
