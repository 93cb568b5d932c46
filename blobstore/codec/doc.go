// Package codec makes an object of a message and reads it again, whole or by ranges, streaming both ways.
//
//	object = header frame · data frame …
//
// The header frame is a zstd skippable frame of at most 4 KiB: what is needed to bring the mail back when nothing but the
// bucket is left ([Header], header.go). Each data frame is a zstd frame with a checksum, and holds the same number of plain
// bytes (the last one fewer), so any byte is found without what comes before its frame; the zstd program reads an object as
// it is. Where the frames lie is in the message's row ([Extent], extent.go), never in the object, so one ranged GET reads
// any range.
//
// A [Codec] holds the settings, the compressors and the buffers. Its [Spool] (spool.go) takes a message as it arrives; its
// [Body] (body.go, window.go) reads one. Bytes are given out only when their frame's checksum is right, and a
// whole message only when the CRC-32C in the row is: what does not match is read once more, and is then
// blobstore.ErrCorrupt.
package codec
