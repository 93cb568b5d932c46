package metadata

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// Flags are the flags of one message in one mailbox: 56 bits.
type Flags uint64

// The system flags of RFC 9051 §2.3.2, the two marks of a message that is
// gone, and behind them the mailbox's keywords.
const (
	Seen Flags = 1 << iota
	Answered
	Flagged
	Deleted
	Draft
	Expunged // no longer in the mailbox
	Moved    // expunged by MOVE: the object belongs to the target's row

	firstKeyword = iota
)

const (
	// MaxKeywords is how many keywords a mailbox can have.
	MaxKeywords = 49
	// SystemFlags are the flags that a client can set and that are not keywords.
	SystemFlags = Seen | Answered | Flagged | Deleted | Draft
	// AllKeywords are the bits of all keywords.
	AllKeywords = Flags(1<<MaxKeywords-1) << firstKeyword
)

// Keyword is the bit of the keyword at index i of Mailbox.Keywords.
func Keyword(i int) Flags { return 1 << (firstKeyword + i) }

// Keywords yields the indexes of the keywords in f, rising.
func (f Flags) Keywords(yield func(int) bool) {
	for k := uint64(f&AllKeywords) >> firstKeyword; k != 0; k &= k - 1 {
		if !yield(bits.TrailingZeros64(k)) {
			return
		}
	}
}

// Slot is what may change of one message: its flags, and the modseq of their
// last change. A slot whose modseq is 0 holds no message and never did.
type Slot struct {
	Flags  Flags
	ModSeq int64
}

// Live says that the slot holds a message that is not expunged.
func (s Slot) Live() bool { return s.ModSeq != 0 && s.Flags&Expunged == 0 }

// Sizes and the stored form of a chunk: a format byte, then slots of 7 bytes
// of flags and 6 bytes of modseq, both little-endian. The end is padded with
// empty slots to a multiple of 16, so that an append touches few bytes.
const (
	ChunkSlots  = 128 // UIDs to a chunk
	chunkShift  = 7
	slotSize    = 13
	chunkFormat = 1
	chunkPad    = 16
)

// ErrChunk says that flags are stored in a form that cannot be read.
var ErrChunk = errors.New("malformed chunk of flags")

// Chunk is an immutable image of the slots of 128 UIDs of a mailbox.
type Chunk struct {
	no     int32
	live   int32
	unseen int32
	max    int64
	stored []byte
	fresh  bool // it did not come from an image that was stored: it may have no row
}

// ChunkOf is the number of the chunk that holds uid.
func ChunkOf(uid uint32) int32 { return int32(uid >> chunkShift) } //nolint:gosec // 25 bits

// ParseChunk reads the stored form of chunk no. It keeps stored, which must
// not change any more.
func ParseChunk(no int32, stored []byte) (*Chunk, error) {
	n := len(stored) - 1
	if n < 0 || stored[0] != chunkFormat || n%slotSize != 0 || n > ChunkSlots*slotSize || no < 0 {
		return nil, fmt.Errorf("chunk %d of %d bytes: %w", no, len(stored), ErrChunk)
	}
	c := &Chunk{no: no, stored: stored}
	c.count()
	return c, nil
}

func (c *Chunk) count() {
	c.live, c.unseen, c.max = 0, 0, 0
	for i := range c.Len() {
		s := c.Slot(i)
		c.max = max(c.max, s.ModSeq)
		if s.Live() {
			c.live++
			if s.Flags&Seen == 0 {
				c.unseen++
			}
		}
	}
}

// No is the chunk's number: its first UID divided by ChunkSlots.
func (c *Chunk) No() int32 { return c.no }

// First is the UID of the chunk's first slot (0, which is no UID, in chunk 0).
func (c *Chunk) First() uint32 { return uint32(c.no) << chunkShift } //nolint:gosec // not negative

// Len is how many slots the chunk has, up to ChunkSlots; what lies behind is empty.
func (c *Chunk) Len() int { return (len(c.stored) - 1) / slotSize }

// Live is how many messages it holds that are not expunged.
func (c *Chunk) Live() int { return int(c.live) }

// Unseen is how many of those are without \Seen.
func (c *Chunk) Unseen() int { return int(c.unseen) }

// MaxModSeq is the greatest modseq of its slots.
func (c *Chunk) MaxModSeq() int64 { return c.max }

// Stored is the form in the database. It must not be changed.
func (c *Chunk) Stored() []byte { return c.stored }

// Slot is the i-th slot, 0 to ChunkSlots-1; empty at and above Len.
func (c *Chunk) Slot(i int) Slot {
	at := 1 + i*slotSize
	if at+slotSize > len(c.stored) {
		return Slot{}
	}
	b := c.stored[at : at+slotSize]
	return Slot{
		Flags:  Flags(binary.LittleEndian.Uint64(b) & (1<<56 - 1)),
		ModSeq: int64(binary.LittleEndian.Uint64(b[slotSize-8:]) >> 16), //nolint:gosec // 48 bits
	}
}

// Edit is a chunk being changed. It starts from a copy, so that the chunk it
// came from stays as it is.
type Edit struct {
	no     int32
	stored []byte
	fresh  bool
}

// NewEdit starts an empty chunk.
func NewEdit(no int32) *Edit { return &Edit{no: no, stored: []byte{chunkFormat}, fresh: true} }

// Edit starts from a copy of c.
func (c *Chunk) Edit() *Edit {
	stored := make([]byte, len(c.stored), min(len(c.stored)+chunkPad*slotSize, 1+ChunkSlots*slotSize))
	copy(stored, c.stored)
	return &Edit{no: c.no, stored: stored}
}

// Slot is the i-th slot as it stands now.
func (e *Edit) Slot(i int) Slot {
	c := Chunk{stored: e.stored}
	return c.Slot(i)
}

// Set writes the i-th slot, 0 to ChunkSlots-1. The modseq must fit 48 bits.
func (e *Edit) Set(i int, s Slot) {
	end := 1 + (i+1)*slotSize
	if end > len(e.stored) {
		padded := 1 + (i/chunkPad+1)*chunkPad*slotSize
		e.stored = append(e.stored, make([]byte, padded-len(e.stored))...)
	}
	b := e.stored[end-slotSize : end]
	low := uint64(s.Flags)&(1<<56-1) | uint64(s.ModSeq)<<56 //nolint:gosec // not negative
	binary.LittleEndian.PutUint64(b, low)
	binary.LittleEndian.PutUint32(b[8:], uint32(s.ModSeq>>8)) //nolint:gosec // cut on purpose
	b[12] = byte(s.ModSeq >> 40)
}

// Chunk ends the edit, which must not be used any more.
func (e *Edit) Chunk() *Chunk {
	c := &Chunk{no: e.no, stored: e.stored, fresh: e.fresh}
	c.count()
	return c
}
