package message

import (
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// A stored summary is a version byte, the number of its dictionary (0: not compressed), and a payload; a compressed
// payload is a zstd frame without the magic number that all frames begin with. Versions and dictionaries are only ever
// added: what is stored stays readable.
//
// The payload is a run of unsigned varints and bytes: the set of cut fields, Header, Preview, the number of parts, and
// the parts before their children. Offsets are distances, texts that many mails have are numbers of the
// table words. Envelopes are not in it: they are read again from the header fields, which are there.
const (
	formatVersion = 1
	dictPlain     = 0
	dictFirst     = 1

	// maxPayload is more than any has. Of headers 128 KiB are kept of the message's own, and 384 KiB of those of parts,
	// of which parameters in pieces may take three times as much when they are joined.
	maxPayload = 2 << 20
)

// ErrCorrupt says that stored bytes are no summary.
var ErrCorrupt = errors.New("corrupt summary")

//go:embed summary-1.dict
var firstDict []byte

const zstdMagic = "\x28\xb5\x2f\xfd"

// encoder and decoder are made when first used; both may be used concurrently. The fastest level takes a fifth of the
// time of the one that would save 18 of 268 octets of a summary, and every message that comes in pays for it.
var encoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderDict(firstDict), zstd.WithEncoderCRC(false),
		zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithNoEntropyCompression(true), zstd.WithEncoderConcurrency(2), zstd.WithWindowSize(128<<10))
	if err != nil {
		panic(fmt.Sprintf("message: embedded dictionary: %v", err))
	}
	return e
})

var decoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderDicts(firstDict), zstd.WithDecoderConcurrency(0),
		zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxPayload))
	if err != nil {
		panic(fmt.Sprintf("message: embedded dictionary: %v", err))
	}
	return d
})

// Presence of what a part may have, in the order in which it is written.
const (
	hasKind        = 3      // the two lowest bits: kind
	hasHeader      = 1 << 2 // the envelope's fields of a message inside
	hasID          = 1 << 3
	hasDescription = 1 << 4
	hasDisposition = 1 << 5
	hasRare        = 1 << 6 // a second set follows

	hasMD5      = 1 << 0
	hasLanguage = 1 << 1
	hasLocation = 1 << 2
)

// AppendBinary appends the stored form of the summary. It implements
// [encoding.BinaryAppender]; the error is always nil.
func (s *Summary) AppendBinary(dst []byte) ([]byte, error) {
	payload := s.appendPayload(nil)
	start := len(dst)
	dst = append(dst, formatVersion, dictFirst)
	frame := encoder().EncodeAll(payload, nil)
	if string(frame[:len(zstdMagic)]) == zstdMagic {
		dst = appendFrame(dst, frame[len(zstdMagic):])
	}
	if n := len(dst) - start - 2; n == 0 || n >= len(payload) {
		return append(append(dst[:start], formatVersion, dictPlain), payload...), nil
	}
	return dst, nil
}

func (s *Summary) appendPayload(b []byte) []byte {
	b = binary.AppendUvarint(b, s.cut)
	b = appendBytes(b, s.Header)
	b = appendBytes(b, s.Preview)
	b = binary.AppendUvarint(b, uint64(len(s.Parts)))
	at := int64(0)
	for i := range s.Parts {
		b = s.Parts[i].appendTo(b, at)
		if at = s.Parts[i].End; s.Parts[i].Children > 0 {
			at = s.Parts[i].BodyStart
		}
	}
	return b
}

// appendTo writes a part. at is the end of what stands before it in the message.
func (p *Part) appendTo(b []byte, at int64) []byte {
	has, rare := byte(p.kind), byte(0)
	set := func(bits *byte, bit byte, on bool) {
		if on {
			*bits |= bit
		}
	}
	set(&has, hasHeader, p.header != nil)
	set(&has, hasID, p.ID != nil)
	set(&has, hasDescription, p.Description != nil)
	set(&has, hasDisposition, p.Disposition != nil)
	set(&rare, hasMD5, p.MD5 != nil)
	set(&rare, hasLanguage, p.Language != nil)
	set(&rare, hasLocation, p.Location != nil)
	set(&has, hasRare, rare != 0)
	b = append(b, has)
	if rare != 0 {
		b = append(b, rare)
	}
	if p.kind == kindMultipart {
		b = binary.AppendUvarint(b, uint64(p.Children))
	}
	b = binary.AppendUvarint(b, uint64(p.HeaderStart-at))
	b = binary.AppendUvarint(b, uint64(p.BodyStart-p.HeaderStart))
	b = binary.AppendUvarint(b, uint64(p.End-p.BodyStart))
	b = appendWord(b, p.Type)
	if p.kind == kindMessage || p.IsText() {
		b = binary.AppendUvarint(b, uint64(p.Lines))
	}
	b = appendWord(b, p.Subtype)
	b = appendParams(b, p.Params)
	b = appendWord(b, p.Encoding)
	if p.header != nil {
		b = appendBytes(b, p.header)
	}
	if p.ID != nil {
		b = appendBytes(b, p.ID)
	}
	if p.Description != nil {
		b = appendBytes(b, p.Description)
	}
	if p.Disposition != nil {
		b = appendWord(b, p.Disposition)
		b = appendParams(b, p.DispositionParams)
	}
	if p.MD5 != nil {
		b = appendBytes(b, p.MD5)
	}
	if p.Language != nil {
		b = binary.AppendUvarint(b, uint64(len(p.Language)))
		for _, l := range p.Language {
			b = appendWord(b, l)
		}
	}
	if p.Location != nil {
		b = appendBytes(b, p.Location)
	}
	return b
}

func appendParams(b []byte, params []Param) []byte {
	b = binary.AppendUvarint(b, uint64(len(params)))
	for i := range params {
		b = appendWord(b, params[i].Name)
		b = appendWord(b, params[i].Value)
	}
	return b
}

func appendBytes(b, v []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// appendWord writes the number of v in words, or its length above them and v itself.
func appendWord(b, v []byte) []byte {
	for i := range words {
		if string(v) == words[i] {
			return append(b, byte(i))
		}
	}
	b = binary.AppendUvarint(b, uint64(len(words)+len(v)))
	return append(b, v...)
}

// words are what many mails have in common. The table is part of the format's version: it never changes.
var words = [...]string{
	"text", "plain", "html", "multipart", "alternative", "mixed", "related", "signed", "report", "digest", "encrypted",
	"message", "rfc822", "delivery-status", "application", "octet-stream", "pdf", "zip", "pgp-signature", "pgp-encrypted",
	"pkcs7-signature", "x-pkcs7-signature", "pkcs7-mime", "ms-tnef", "msword", "vnd.ms-excel", "image", "jpeg", "jpg",
	"png", "gif", "svg+xml", "audio", "video", "mpeg", "mp4", "calendar", "csv", "xml", "rtf", "x-vcard",
	"vnd.openxmlformats-officedocument.wordprocessingml.document",
	"vnd.openxmlformats-officedocument.spreadsheetml.sheet",
	"charset", "us-ascii", "US-ASCII", "utf-8", "UTF-8", "iso-8859-1", "ISO-8859-1", "iso-8859-15", "windows-1252",
	"Windows-1252", "iso-8859-2", "koi8-r", "windows-1251", "gb2312", "iso-2022-jp", "big5", "boundary", "format",
	"flowed", "delsp", "yes", "name", "filename", "name*", "filename*", "type", "start", "micalg", "protocol",
	"report-type", "method", "REQUEST", "size", "creation-date", "modification-date", "x-unix-mode", "0644", "text/html",
	"multipart/alternative", "application/pgp-signature", "application/pkcs7-signature", "7bit", "8bit", "binary",
	"base64", "quoted-printable", "7Bit", "8Bit", "7BIT", "8BIT", "BASE64", "QUOTED-PRINTABLE", "Quoted-Printable",
	"attachment", "inline", "en", "image001.png", "signature.asc", "smime.p7s",
}

// wordBytes is words as the decoder hands them out.
var wordBytes = func() (w [len(words)][]byte) {
	for i := range words {
		w[i] = []byte(words[i])
	}
	return w
}()
