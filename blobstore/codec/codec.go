package codec

import (
	"cmp"
	"fmt"
	"hash/crc32"
	"math/bits"
	"os"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Options are a Codec's settings; the zero value of each is a sound default.
type Options struct {
	// Dir is where a Spool keeps what it does not keep in memory, in files without a name. Default: the system's.
	Dir string
	// Memory is how many compressed bytes a Spool keeps in memory. Default 1 MiB.
	Memory int
	// FrameSize is the number of plain bytes in a frame, 4 KiB to 1 MiB. Default 128 KiB. Objects tell their own: it can be
	// changed at any time.
	FrameSize int
	// Whole is the size in bytes up to which a Body fetches all of an object at the first read, and keeps it. Default 512 KiB.
	Whole int
	// ReadAhead is how many compressed bytes beyond what is asked for a Body fetches, at most, while a larger object is read
	// in order. Default 2 MiB.
	ReadAhead int
	// Concurrency is how many frames are compressed or decompressed at the same time. Default GOMAXPROCS.
	Concurrency int
	// Corrupt is called when the bytes of an object are not those that were stored, read for the second time. Default: nothing.
	Corrupt func()
}

const (
	minFrame   = 4 << 10
	maxFrame   = 1 << 20
	smallFrame = 16 << 10 // the buffer that most mails need
	smallOut   = 64 << 10 // the largest buffer of an object that is kept for another, which may be small
)

// Codec compresses and decompresses for all messages of a node. It may be used by many goroutines.
type Codec struct {
	opts   Options
	enc    *zstd.Encoder
	dec    *zstd.Decoder
	small  sync.Pool // of *[]byte with smallFrame
	frames sync.Pool // of *[]byte with opts.FrameSize
	outs   sync.Pool // of *[]byte with smallFrame to smallOut, for objects that are made
}

// New makes a Codec.
func New(opts Options) (*Codec, error) {
	opts.Dir = cmp.Or(opts.Dir, os.TempDir())
	opts.Memory = cmp.Or(opts.Memory, 1<<20)
	opts.FrameSize = cmp.Or(opts.FrameSize, 128<<10)
	opts.Whole = cmp.Or(opts.Whole, 512<<10)
	opts.ReadAhead = cmp.Or(opts.ReadAhead, 2<<20)
	opts.Concurrency = cmp.Or(opts.Concurrency, runtime.GOMAXPROCS(0))
	if opts.Corrupt == nil {
		opts.Corrupt = func() {}
	}
	if opts.FrameSize < minFrame || opts.FrameSize > maxFrame {
		return nil, fmt.Errorf("codec: frame size %d is not between %d and %d", opts.FrameSize, minFrame, maxFrame)
	}
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedFastest), // half the time of the next level, which makes mail 4 % smaller
		zstd.WithEncoderCRC(true),
		zstd.WithWindowSize(1<<bits.Len(uint(opts.FrameSize-1))), // no frame refers back to another
		zstd.WithEncoderConcurrency(opts.Concurrency),
		zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("codec: %w", err)
	}
	dec, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(opts.Concurrency),
		zstd.WithDecoderMaxMemory(maxFrame),
		zstd.WithDecodeAllCapLimit(true)) // a frame that claims more than its extent says is corrupt
	if err != nil {
		return nil, fmt.Errorf("codec: %w", err)
	}
	return &Codec{opts: opts, enc: enc, dec: dec}, nil
}

// buffer returns a buffer of at least n bytes.
func (c *Codec) buffer(n int) *[]byte {
	pool, size := &c.frames, max(n, c.opts.FrameSize)
	if n <= smallFrame {
		pool, size = &c.small, smallFrame
	}
	if b, ok := pool.Get().(*[]byte); ok && cap(*b) >= n {
		*b = (*b)[:cap(*b)]
		return b
	}
	b := make([]byte, size)
	return &b
}

// release takes a buffer back; nil is none. One of another size is not kept: who gets it would hold
// more than it says.
func (c *Codec) release(b *[]byte) {
	switch {
	case b == nil:
	case cap(*b) == c.opts.FrameSize:
		c.frames.Put(b)
	case cap(*b) == smallFrame:
		c.small.Put(b)
	}
}

// out returns an empty buffer for an object.
func (c *Codec) out() []byte {
	if b, ok := c.outs.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, smallFrame)
}

func (c *Codec) releaseOut(b []byte) {
	if cap(b) <= smallOut {
		c.outs.Put(&b)
	}
}

// castagnoli is the polynomial of CRC-32C, for which processors have an instruction.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)
