package codec

import (
	"context"
	"fmt"
	"io"
	"sort"

	"starling/blobstore"
)

// source is where an object's bytes come from; offsets count from the message's header frame.
type source interface {
	get(ctx context.Context, off, n int64) (io.ReadCloser, error)
	// forget has a cache ask for the object anew.
	forget()
}

type storeSource struct {
	store blobstore.Store
	key   blobstore.Key
	base  int64
}

func (s storeSource) get(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	return s.store.Get(ctx, s.key, s.base+off, n)
}

func (s storeSource) forget() {
	if f, ok := s.store.(blobstore.Forgetter); ok {
		f.Forget(s.key)
	}
}

type sourceAt struct{ r io.ReaderAt }

func (s sourceAt) get(_ context.Context, off, n int64) (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(s.r, off, n)), nil
}

func (sourceAt) forget() {}

// firstAhead is how far ahead is read when a large object has been read in order for the first time; it doubles
// each time that this has been used up.
const firstAhead = 256 << 10

// window gives out compressed frames: from memory, from the one GET of this range, or by starting it. Which frames that
// GET covers beyond the range is what makes it cheap to read a message in slices.
type window struct {
	src    source
	starts []int64 // where each frame begins; one more at the end
	c      *Codec

	// What is kept from one range to the next.
	kept      []byte
	keptFirst int
	keptEnd   int // one after the last

	end   int64 // where the last range ended in the message
	ahead int64 // how far to read ahead, in bytes; 0 until ranges have come in order
	most  int64 // of ahead

	last       int // the last frame of this range
	sequential bool

	stream     io.ReadCloser // the GET of this range
	streamNext int           // the frame that it gives next
	streamEnd  int           // one after its last
	frameBuf   *[]byte       // the codec's if it is small; nil: none is needed yet
}

func newWindow(src source, ext *Extent, c *Codec) window {
	starts := make([]int64, ext.frames()+1)
	at := int64(ext.Header)
	for i := range starts {
		starts[i] = at
		if i < len(ext.Frames) {
			at += int64(ext.Frames[i])
		} else {
			at = ext.Length
		}
	}
	return window{src: src, starts: starts, c: c, end: -1, most: int64(c.opts.ReadAhead)}
}

// plan is told of each range before its frames are asked for.
func (w *window) plan(first, last int, off int64) {
	w.last, w.sequential = last, off == w.end
	if !w.sequential {
		w.ahead = 0
	}
	if w.keptEnd <= first { // passed by
		w.forget()
	}
}

// frame returns the bytes of frame i, valid until the next call.
func (w *window) frame(ctx context.Context, i int) ([]byte, error) {
	if w.keptFirst <= i && i < w.keptEnd {
		base := w.starts[w.keptFirst]
		return w.kept[w.starts[i]-base : w.starts[i+1]-base], nil
	}
	if w.stream != nil && w.streamNext != i {
		w.closeStream()
	}
	if w.stream == nil {
		if err := w.fetch(ctx, i); err != nil {
			return nil, err
		}
		if w.keptEnd > 0 {
			return w.frame(ctx, i)
		}
	}
	n := int(w.starts[i+1] - w.starts[i])
	if w.frameBuf == nil || len(*w.frameBuf) < n {
		w.dropFrame()
		if n <= smallFrame {
			w.frameBuf = w.c.buffer(n)
		} else {
			buf := make([]byte, n+n/8)
			w.frameBuf = &buf
		}
	}
	buf := (*w.frameBuf)[:n]
	if _, err := io.ReadFull(w.stream, buf); err != nil {
		return nil, fmt.Errorf("frame %d: %w", i, unexpected(err))
	}
	w.streamNext++
	return buf, nil
}

// fetch starts the GET that begins with frame i, or, of a small object, fetches and keeps all frames.
func (w *window) fetch(ctx context.Context, i int) error {
	w.forget()
	count := len(w.starts) - 1
	if count > 1 && w.starts[count]-w.starts[0] <= int64(w.c.opts.Whole) {
		return w.keep(ctx, 0, count)
	}
	if w.sequential {
		w.ahead = min(max(firstAhead, 2*w.ahead), w.most)
	}
	limit := w.starts[w.last+1] + w.ahead
	end := max(w.last+1, sort.Search(count, func(j int) bool { return w.starts[j+1] > limit }))
	r, err := w.src.get(ctx, w.starts[i], w.starts[end]-w.starts[i])
	if err != nil {
		return err
	}
	w.stream, w.streamNext, w.streamEnd = r, i, end
	return nil
}

// keep fetches the frames from first up to end.
func (w *window) keep(ctx context.Context, first, end int) error {
	n := w.starts[end] - w.starts[first]
	r, err := w.src.get(ctx, w.starts[first], n)
	if err != nil {
		return err
	}
	w.stream, w.streamNext, w.streamEnd = r, first, end
	err = w.keepStream()
	w.closeStream()
	return err
}

// keepStream reads what the stream still has, and keeps it instead of what was kept before.
func (w *window) keepStream() error {
	n := int(w.starts[w.streamEnd] - w.starts[w.streamNext])
	if cap(w.kept) < n {
		w.kept = make([]byte, n)
	}
	w.kept, w.keptFirst, w.keptEnd = w.kept[:n], w.streamNext, w.streamEnd
	if _, err := io.ReadFull(w.stream, w.kept); err != nil {
		w.forget()
		return unexpected(err)
	}
	w.streamNext = w.streamEnd
	return nil
}

// readAhead keeps the frames that the range's GET covers beyond the range. If they cannot be read, then the range that
// needs them will ask for them again, and report it.
func (w *window) readAhead() {
	if w.stream != nil && w.streamNext < w.streamEnd {
		_ = w.keepStream()
	}
}

// closeStream ends the GET of this range. Its bytes have been read and checked, or are not wanted any more: an error of
// closing says nothing about them.
func (w *window) closeStream() {
	if w.stream != nil {
		_ = w.stream.Close()
		w.stream = nil
	}
}

// forget marks what is kept as gone; its memory is used again.
func (w *window) forget() { w.kept, w.keptFirst, w.keptEnd = w.kept[:0], 0, 0 }

// drop gives up all that was fetched.
func (w *window) drop() {
	w.closeStream()
	w.dropFrame()
	w.kept, w.keptFirst, w.keptEnd = nil, 0, 0
}

// dropFrame gives back what a frame was read into.
func (w *window) dropFrame() {
	if w.frameBuf != nil && cap(*w.frameBuf) == smallFrame {
		w.c.release(w.frameBuf)
	}
	w.frameBuf = nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
