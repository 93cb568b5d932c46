// Package cache is a blobstore.Store around another one, which keeps what was read at hand: in memory and, if it is given
// a folder, on a local disk. Both are bounded and disposable; the store below is the truth.
//
// Objects are cut into aligned blocks of [BlockSize]. A Get of a range fetches the blocks that it touches, and those that
// wait for the same block wait for one request: whoever reads a large mail in slices causes a request for each block and not
// for each slice, and a small mail is one block. What mails' keys name never changes, so nothing grows old; only Delete,
// Put and Forget drop something. A range of more than [MaxRange], a read without a given end, and objects with names are
// passed on as they are: large bodies stream past the cache, and do not push out what is in it.
//
//   - cache.go    the methods
//   - flight.go   fetching a block once for all who want it
//   - memory.go   the tier in memory: otter decides what is worth keeping
//   - disk.go     the tier on disk: a file without a name, written round and round
//   - metrics.go  hits and misses
//
// The bytes given out are those that the store below gave: a block on disk has a checksum, and one that does not match is
// a miss. A block that was not read to its end is given to who waits for it, if it is enough, and never kept. Nothing
// that goes wrong with the disk reaches the caller.
package cache
