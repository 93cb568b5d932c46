package message

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/huff0"
	"github.com/klauspost/compress/zstd"
)

// The literals of a frame are coded by the dictionary's own Huffman table (in RFC 8878 a
// Treeless_Literals_Block). The encoder would give each frame a table of its own, which takes a
// tenth of a summary's octets and, to be read again, half of the time of decompressing it. So it is
// told to leave literals as they are, and they are coded here. Every zstd decoder reads that. A frame
// of several blocks, which is a payload of more than 64 KiB, stays as it is.

const (
	frameBlock      = 3       // octets of a block's header
	compressedBlock = 2       // its type
	rawLiterals     = 0       // type of a literals section
	treeless        = 3       // another
	oneStream       = 1 << 10 // literals from which on there are four streams
)

// literalTable has the dictionary's table; it is only copied from.
var literalTable = sync.OnceValue(func() *huff0.Scratch {
	dict, err := zstd.InspectDictionary(firstDict)
	if err != nil {
		panic(fmt.Sprintf("message: embedded dictionary: %v", err))
	}
	return dict.LitEncoder()
})

var literalCoders = sync.Pool{New: func() any {
	s := &huff0.Scratch{Reuse: huff0.ReusePolicyMust}
	s.TransferCTable(literalTable())
	return s
}}

// appendFrame appends a frame without magic number, with its literals coded where that makes it
// shorter.
func appendFrame(dst, frame []byte) []byte {
	start := frameHeader(frame[0]) + frameBlock
	if len(frame) < start+frameBlock {
		return append(dst, frame...)
	}
	block := int(frame[start-3]) | int(frame[start-2])<<8 | int(frame[start-1])<<16
	from, to := literals(frame[start:])
	if block>>1&3 != compressedBlock || start+block>>3 != len(frame) || frame[start]&3 != rawLiterals {
		return append(dst, frame...)
	}
	plain, rest := frame[start+from:start+to], frame[start+to:]
	s := literalCoders.Get().(*huff0.Scratch)
	defer literalCoders.Put(s)
	code, format, bits := huff0.Compress1X, 0, 10 // bits of each of two lengths
	switch {
	case len(plain) >= 1<<14:
		code, format, bits = huff0.Compress4X, 3, 18
	case len(plain) >= oneStream:
		code, format, bits = huff0.Compress4X, 2, 14
	}
	coded, _, err := code(plain, s)
	header := (4 + 2*bits) / 8
	if size := header + len(coded) + len(rest); err == nil && size < len(frame)-start {
		dst = append(dst, frame[:start-frameBlock]...)
		dst = appendLittle(dst, block&7|size<<3, frameBlock)
		dst = appendLittle(dst, treeless|format<<2|len(plain)<<4|len(coded)<<(4+bits), header)
		return append(append(dst, coded...), rest...)
	}
	return append(dst, frame...) // as it is: too short, or with octets that the table has no code for
}

func appendLittle(dst []byte, v, octets int) []byte {
	for range octets {
		dst = append(dst, byte(v))
		v >>= 8
	}
	return dst
}

// frameHeader is the length of a frame's header by its descriptor, which it begins with (RFC 8878,
// Frame_Header).
func frameHeader(descriptor byte) int {
	n := 1 + [4]int{0, 1, 2, 4}[descriptor&3] + [4]int{0, 2, 4, 8}[descriptor>>6]
	if single := descriptor >> 5 & 1; single == 0 || descriptor>>6 == 0 {
		n++ // the window, or an octet for the size of the content
	}
	return n
}

// literals is where the literals of a section lie that are not coded (RFC 8878, Literals_Section).
func literals(section []byte) (from, to int) {
	b := int(section[0]) | int(section[1])<<8 | int(section[2])<<16
	switch b >> 2 & 3 {
	case 1:
		return 2, 2 + b>>4&0xfff
	case 3:
		return 3, 3 + b>>4
	default:
		return 1, 1 + b>>3&0x1f
	}
}
