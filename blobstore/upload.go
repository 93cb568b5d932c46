package blobstore

import (
	"context"
	"io"
	"time"
)

// An Uploader is a Store that can send an object while its bytes still come in. Who does not know whether a Store is one
// uses [NewUpload] and [EndUploads].
type Uploader interface {
	// Upload begins an object whose bytes come to be in source. It sends nothing by itself, and so cannot fail: what is
	// wrong, the key included, is told by Finish. ctx bounds what is sent until then.
	Upload(ctx context.Context, key Key, source io.ReaderAt) Upload

	// EndUploads ends the uploads of objects whose keys begin with prefix, that were begun before a time of the store's
	// clock, whenever if it is zero, and neither finished nor aborted: they are of processes that have died. It returns
	// how many those were.
	EndUploads(ctx context.Context, prefix string, before time.Time) (int, error)
}

// Upload is an object that is sent while it comes in. It belongs to one goroutine. One of Finish and Abort must be called;
// source is read until that has returned, by any number of goroutines at a time, and no longer.
type Upload interface {
	// Grown says that source holds size bytes by now, which do not change any more. It does not wait for the store. What
	// is sent too early to be of use costs nothing: a small object is sent by Finish, as Put does it.
	Grown(size int64)

	// Finish stores the object: the first size bytes of source. It promises what Put promises; before it is called
	// there is nothing under the key. What could not be sent while the object came in is sent again.
	Finish(ctx context.Context, size int64) (PutResult, error)

	// Abort gives up. There is nothing under the key then, and what the store has of the object is removed in the
	// background. After Finish it does nothing.
	Abort()
}

// NewUpload begins an upload to any Store: to one that is no Uploader, Finish puts the whole.
func NewUpload(ctx context.Context, store Store, key Key, source io.ReaderAt) Upload {
	if u, ok := store.(Uploader); ok {
		return u.Upload(ctx, key, source)
	}
	return wholeUpload{store, key, source}
}

// EndUploads is that of the store, if it is an Uploader; any other has nothing to end.
func EndUploads(ctx context.Context, store Store, prefix string, before time.Time) (int, error) {
	if u, ok := store.(Uploader); ok {
		return u.EndUploads(ctx, prefix, before)
	}
	return 0, nil
}

// wholeUpload sends nothing before its end.
type wholeUpload struct {
	store  Store
	key    Key
	source io.ReaderAt
}

func (wholeUpload) Grown(int64) {}

func (u wholeUpload) Finish(ctx context.Context, size int64) (PutResult, error) {
	return u.store.Put(ctx, u.key, io.NewSectionReader(u.source, 0, size), size)
}

func (wholeUpload) Abort() {}
