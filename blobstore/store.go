package blobstore

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// Store keeps objects under keys. Every method may be called by any number of goroutines and, where several
// processes share what is behind the store, by all of them at once.
//
// An invalid key is [ErrKey], and nothing is sent or touched. When ctx ends, the call returns soon with an error that
// is ctx's own; if it was a deadline, the error is [ErrUnavailable] too. Whatever else keeps a store from answering is
// [ErrUnavailable].
type Store interface {
	// Put stores size bytes of body, from where it stands, under key, and replaces what was there. When Put returns nil
	// the object is as durable as the store makes it. When it returns an error, the object that was there before
	// still is, or the new one is, whole: never a part, never an empty one in place of a body that could not be read.
	// A try that failed is repeated from body's first byte, so body must be able to seek back. body must end after size
	// bytes, or the error is ErrBody. Put does not read body once it has returned.
	Put(ctx context.Context, key Key, body io.ReadSeeker, size int64) (PutResult, error)

	// Get reads length bytes from offset, or to the end if length is negative. The object must have a byte at offset,
	// or the error is ErrRange; an empty object can be read only as a whole (0, -1). A length of 0 is ErrRange. The
	// reader gives exactly length bytes before io.EOF; if the object ends before, it is io.ErrUnexpectedEOF, and if the
	// connection does, ErrUnavailable, never a silent end. The reader belongs to one goroutine, is bound to ctx and must
	// be closed. An absent object is ErrNotFound.
	Get(ctx context.Context, key Key, offset, length int64) (io.ReadCloser, error)

	// Delete removes the object. An absent one is no error.
	Delete(ctx context.Context, key Key) error

	// List yields the objects whose keys begin with prefix and come after the key after, in the order of their keys'
	// bytes. It reads as it goes: objects written or deleted meanwhile may or may not be seen, all others are, once.
	// An error is yielded last.
	List(ctx context.Context, prefix, after string) iter.Seq2[Info, error]
}

// A Forgetter is a Store that may answer Get with bytes that it has kept from before. Who finds that they cannot be right
// has it forget them, and reads anew.
type Forgetter interface {
	Forget(key Key)
}

// PutResult tells what the store said of an object that it has stored.
type PutResult struct {
	// Date is the store's clock when it answered (S3: the Date header, whole seconds). Ages of objects are measured
	// against it, never against the clock of the node that asked. It is never later than the time that List tells of
	// the object, by more than those seconds: of an [Upload] it is when that began, if List tells that.
	Date time.Time
}

// Info is an object in a listing.
type Info struct {
	Key      Key
	Size     int64     // in bytes
	Modified time.Time // by the store's clock
}

// The ways in which a store says no. Errors wrap them; ask with errors.Is.
var (
	// ErrNotFound: there is no object under this key.
	ErrNotFound = errors.New("object not found")
	// ErrRange: the object has no byte at that offset, or the range is empty.
	ErrRange = errors.New("range outside the object")
	// ErrUnavailable: the store is away, refuses, is too slow, or is full; the same call may work later.
	ErrUnavailable = errors.New("blob store unavailable")
	// ErrCorrupt: what the store holds is not what was put.
	ErrCorrupt = errors.New("object corrupt")
	// ErrKey: the key does not have the form that Key describes.
	ErrKey = errors.New("invalid key")
	// ErrBody: the body given to Put cannot be read or rewound, or does not have the size that was said.
	ErrBody = errors.New("unusable body")
)
