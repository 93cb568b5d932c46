package codec

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"starling/blobstore"
)

// Extent says where in an object a message lies and how it is coded. It is kept in the message's row, beside the object's
// id; without it an object can be read from front to back only.
type Extent struct {
	// Offset is where in the object the message's header frame begins: 0 unless messages are packed together.
	Offset int64
	// Length is the number of bytes of the header frame and the data frames.
	Length int64
	// Header is the number of bytes of the header frame.
	Header int
	// Plain is the number of bytes of the message.
	Plain int64
	// CRC is the CRC-32C of the message.
	CRC uint32
	// FrameSize is the number of plain bytes in each frame but the last. It is 0 if there is one frame or none.
	FrameSize int
	// Frames are the lengths of the frames in the object. It is nil if there is one frame or none.
	Frames []uint32
}

const (
	extentVersion = 1
	codecZstd     = 1 // zstd frames of fixed plain size

	maxPlain  = 1 << 40
	maxOffset = 1 << 50
)

// Append appends the extent's stored form to b: about 16 bytes for a message of one frame, two or three more for each of
// several frames.
//
//	version · codec · offset · length · plain size · header length · CRC (4 bytes, little endian) · number of frames
//	[ · frame size · length of each frame but the last ]
//
// Numbers are varints; what is in brackets is there if there are several frames.
func (e *Extent) Append(b []byte) []byte {
	b = append(b, extentVersion, codecZstd)
	b = binary.AppendUvarint(b, uint64(e.Offset))
	b = binary.AppendUvarint(b, uint64(e.Length))
	b = binary.AppendUvarint(b, uint64(e.Plain))
	b = binary.AppendUvarint(b, uint64(e.Header))
	b = binary.LittleEndian.AppendUint32(b, e.CRC)
	b = binary.AppendUvarint(b, uint64(e.frames()))
	if len(e.Frames) > 1 {
		b = binary.AppendUvarint(b, uint64(e.FrameSize))
		for _, n := range e.Frames[:len(e.Frames)-1] {
			b = binary.AppendUvarint(b, uint64(n))
		}
	}
	return b
}

// ParseExtent parses the stored form. Its error is blobstore.ErrCorrupt. What it accepts is consistent in itself: reading by
// it cannot ask for more memory than two frames of the largest size.
func ParseExtent(b []byte) (Extent, error) {
	var e Extent
	if len(b) < 2 || b[0] != extentVersion || b[1] != codecZstd {
		return e, fmt.Errorf("%w: extent of an unknown version or codec", blobstore.ErrCorrupt)
	}
	d := decoder{b: b[2:], ok: true}
	e.Offset = int64(d.uvarint(maxOffset))
	e.Length = int64(d.uvarint(2 * maxPlain))
	e.Plain = int64(d.uvarint(maxPlain))
	e.Header = int(d.uvarint(MaxHeader))
	e.CRC = d.uint32()
	data := e.Length - int64(e.Header)
	switch count := d.uvarint(maxPlain / minFrame); {
	case !d.ok:
	case count > 1:
		e.FrameSize = int(d.uvarint(maxFrame))
		e.Frames = d.frames(int64(count), e.Plain, e.FrameSize, data)
	case count == 1:
		d.ok = e.Plain > 0 && e.Plain <= maxFrame && data > 0 && data <= maxCompressed(int(e.Plain))
	default:
		d.ok = e.Plain == 0 && data == 0
	}
	if !d.ok || len(d.b) > 0 {
		return Extent{}, fmt.Errorf("%w: malformed extent of %d bytes", blobstore.ErrCorrupt, len(b))
	}
	return e, nil
}

// frames returns how many frames there are.
func (e *Extent) frames() int {
	switch {
	case e.Plain == 0:
		return 0
	case len(e.Frames) == 0:
		return 1
	}
	return len(e.Frames)
}

// frameSize is FrameSize, or Plain if there is one frame.
func (e *Extent) frameSize() int64 {
	if len(e.Frames) == 0 {
		return e.Plain
	}
	return int64(e.FrameSize)
}

// plain returns the number of plain bytes in frame i.
func (e *Extent) plain(i int) int {
	return int(min(e.frameSize(), e.Plain-int64(i)*e.frameSize()))
}

// maxCompressed bounds the size of a frame of n plain bytes: zstd stores what it cannot compress, with three bytes for a
// block, and some for the frame.
func maxCompressed(n int) int64 { return int64(n) + int64(n)/1024 + 64 }

// decoder reads numbers; ok becomes false with the first that is missing or too large.
type decoder struct {
	b  []byte
	ok bool
}

func (d *decoder) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > limit {
		d.ok, d.b = false, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) uint32() uint32 {
	if len(d.b) < crc32.Size {
		d.ok, d.b = false, nil
		return 0
	}
	v := binary.LittleEndian.Uint32(d.b)
	d.b = d.b[crc32.Size:]
	return v
}

// frames reads the lengths of count frames of plain bytes, which together have data bytes.
func (d *decoder) frames(count, plain int64, frameSize int, data int64) []uint32 {
	if frameSize < minFrame || count != (plain+int64(frameSize)-1)/int64(frameSize) || count-1 > int64(len(d.b)) { // each takes a byte at least
		d.ok = false
		return nil
	}
	lengths, limit := make([]uint32, count), maxCompressed(frameSize)
	for i := range lengths[:count-1] {
		n := int64(d.uvarint(uint64(limit)))
		d.ok = d.ok && n > 0
		lengths[i] = uint32(n)
		data -= n
	}
	d.ok = d.ok && data > 0 && data <= limit
	lengths[count-1] = uint32(data)
	return lengths
}
