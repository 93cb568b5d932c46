package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"starling/blobstore"
)

// upload fills the object's file while the object comes in, and has the system write it to the disk meanwhile, so that
// the sync at its end has little left to do. What goes wrong with that is not told: Finish puts the whole then, and tells
// what it finds.
type upload struct {
	s      *Store
	key    blobstore.Key
	source io.ReaderAt
	ctx    context.Context //nolint:containedctx // of the writing before Finish, which has no caller that asks
	file   *os.File        // nil: not begun, or over
	size   int64           // what is in file
	failed bool
}

// Upload implements blobstore.Uploader.
func (s *Store) Upload(ctx context.Context, key blobstore.Key, source io.ReaderAt) blobstore.Upload {
	return &upload{s: s, key: key, source: source, ctx: ctx, failed: key.Check() != nil}
}

// Grown implements blobstore.Upload. Writing is waiting for memory at most: it is the system that writes to the disk.
func (u *upload) Grown(size int64) {
	if u.failed || size-u.size < copyChunk {
		return
	}
	from := u.size
	if err := u.write(u.ctx, size); err != nil {
		u.failed = true
		u.Abort()
		return
	}
	beginWriting(u.file, from, size-from)
}

// write fills the file up to size.
func (u *upload) write(ctx context.Context, size int64) (err error) {
	if u.file == nil {
		if u.file, err = u.s.create(u.key); err != nil {
			return err
		}
	}
	body, err := blobstore.NewBody(io.NewSectionReader(u.source, u.size, size-u.size), size-u.size)
	if err == nil {
		err = write(ctx, u.file, body)
	}
	u.size = size
	return err
}

// Finish implements blobstore.Upload.
func (u *upload) Finish(ctx context.Context, size int64) (blobstore.PutResult, error) {
	defer u.Abort()
	if u.file == nil {
		return u.s.Put(ctx, u.key, io.NewSectionReader(u.source, 0, size), size)
	}
	date, err := u.finish(ctx, size)
	if err != nil {
		return blobstore.PutResult{}, u.s.wrap(ctx, "put", u.key, err)
	}
	return blobstore.PutResult{Date: date}, nil
}

func (u *upload) finish(ctx context.Context, size int64) (time.Time, error) {
	if size < u.size {
		return time.Time{}, fmt.Errorf("%w: it had %d bytes, and now %d", blobstore.ErrBody, u.size, size)
	}
	err := u.write(ctx, size)
	file := u.file
	u.file = nil
	return u.s.finish(ctx, file, err, u.key)
}

// Abort implements blobstore.Upload.
func (u *upload) Abort() {
	if u.file == nil {
		return
	}
	file := u.file
	u.file = nil
	// What cannot be removed is removed by EndUploads.
	_ = errors.Join(file.Close(), os.Remove(file.Name()))
}

// EndUploads implements blobstore.Uploader. Of its key a file that is not finished tells the account.
func (s *Store) EndUploads(ctx context.Context, prefix string, before time.Time) (int, error) {
	ended, err := s.sweep(prefix, before)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return ended, failed(ctx, "end uploads", err)
	}
	return ended, nil
}
