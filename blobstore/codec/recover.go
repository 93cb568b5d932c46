package codec

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zstd"

	"starling/blobstore"
)

// Recover reads an object of one message from front to back, without its extent, writes the message to w frame by frame, and
// returns the header and the extent by which it can be read from now on. What it writes has been checked frame by frame. What
// is not such an object, or is damaged, is blobstore.ErrCorrupt; errors of w are returned as they are.
//
// An object that ends at the border of two frames cannot be told from a shorter message. A Store never gives a part for the whole.
func (c *Codec) Recover(ctx context.Context, store blobstore.Store, key blobstore.Key, w io.Writer) (Header, Extent, error) {
	r, err := store.Get(ctx, key, 0, -1)
	if err != nil {
		return Header{}, Extent{}, fmt.Errorf("recover %s: %w", key, err)
	}
	h, ext, err := c.recover(bufio.NewReaderSize(r, smallFrame), w)
	if err = errors.Join(err, r.Close()); err != nil {
		return Header{}, Extent{}, fmt.Errorf("recover %s: %w", key, err)
	}
	return h, ext, nil
}

func (c *Codec) recover(r *bufio.Reader, w io.Writer) (Header, Extent, error) {
	start, err := r.Peek(MaxHeader)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return Header{}, Extent{}, err
	}
	h, length, err := ParseHeader(start)
	if err != nil {
		return Header{}, Extent{}, err
	}
	if _, err := r.Discard(length); err != nil {
		return Header{}, Extent{}, err
	}
	ext := Extent{Length: int64(length), Header: length}
	buf := c.buffer(smallFrame)
	defer func() { c.release(buf) }()
	var frame []byte
	for {
		var room int
		frame, room, err = readFrame(r, frame[:0])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Header{}, Extent{}, err
		}
		if len(*buf) < room {
			c.release(buf)
			buf = c.buffer(room)
		}
		plain, err := c.dec.DecodeAll(frame, (*buf)[:0:room])
		if err != nil {
			return Header{}, Extent{}, fmt.Errorf("%w: frame %d: %w", blobstore.ErrCorrupt, len(ext.Frames), err)
		}
		if len(ext.Frames) == 0 {
			ext.FrameSize = len(plain)
		}
		ext.CRC = crc32.Update(ext.CRC, castagnoli, plain)
		ext.Plain += int64(len(plain))
		ext.Length += int64(len(frame))
		ext.Frames = append(ext.Frames, uint32(len(frame))) //nolint:gosec // at most that of a frame
		if _, err := w.Write(plain); err != nil {
			return Header{}, Extent{}, err
		}
	}
	if len(ext.Frames) < 2 {
		ext.FrameSize, ext.Frames = 0, nil
	}
	// What is consistent in itself is what can be read by it: all frames but the last of one size, for example.
	if _, err := ParseExtent(ext.Append(nil)); err != nil {
		return Header{}, Extent{}, err
	}
	return h, ext, nil
}

// The frames and blocks of RFC 8878 §3.1.1.
const (
	unsized   = 255 // what is in a frame that does not say how much, at most: as our encoder has it
	blockHead = 3
	blockRLE  = 1
	blockBad  = 3
)

// readFrame appends the next frame to b, and returns the room that what is in it takes at most. The error is io.EOF if
// there is none.
func readFrame(r *bufio.Reader, b []byte) ([]byte, int, error) {
	start, err := r.Peek(zstd.HeaderMaxSize)
	if len(start) == 0 {
		return b, 0, err
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return b, 0, err
	}
	var head zstd.Header
	if err := head.Decode(start); err != nil || head.Skippable || !head.HasCheckSum || head.FrameContentSize > maxFrame {
		return b, 0, fmt.Errorf("%w: not the header of a frame", blobstore.ErrCorrupt)
	}
	room := unsized
	if head.HasFCS {
		room = int(head.FrameContentSize) //nolint:gosec // at most maxFrame
	}
	if b, err = readMore(r, b, head.HeaderSize); err != nil {
		return b, 0, err
	}
	for last := false; !last; {
		if b, err = readMore(r, b, blockHead); err != nil {
			return b, 0, err
		}
		block := b[len(b)-blockHead:]
		bits := int(block[0]) | int(block[1])<<8 | int(block[2])<<16
		kind, length := bits>>1&3, bits>>3
		if kind == blockRLE {
			length = 1
		}
		last = bits&1 != 0
		if kind == blockBad || int64(len(b)+length) > maxCompressed(room) {
			return b, 0, fmt.Errorf("%w: not a block of a frame", blobstore.ErrCorrupt)
		}
		if b, err = readMore(r, b, length); err != nil {
			return b, 0, err
		}
	}
	b, err = readMore(r, b, crc32.Size)
	return b, room, err
}

// readMore appends n bytes to b. It is corrupt if the object ends before.
func readMore(r *bufio.Reader, b []byte, n int) ([]byte, error) {
	at := len(b)
	b = append(b, make([]byte, n)...)
	_, err := io.ReadFull(r, b[at:])
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: it ends within a frame", blobstore.ErrCorrupt)
	}
	return b, err
}
