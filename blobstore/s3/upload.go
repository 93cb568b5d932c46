package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"starling/blobstore"
)

const (
	// partSize is the number of bytes in a part but the last: the least that servers take. What arrives is sent
	// soonest with small parts, and what is not larger than one is a plain PUT.
	partSize = 5 << 20
	// partsAtOnce is how many parts of one object are sent at the same time, at most.
	partsAtOnce = 3
	// partsShare is the part of all connections, one in so many, that may send parts.
	partsShare = 8
)

// upload sends an object as a multipart upload, part by part as they are there. A part is read from source each time that
// it is sent, so none is in memory. Whatever goes wrong with that is not the end: Finish then puts the whole, which is
// as safe to repeat as any PUT.
type upload struct {
	s      *Store
	key    blobstore.Key
	source io.ReaderAt
	ctx    context.Context //nolint:containedctx // of the requests before Finish, which have no caller that waits
	cancel context.CancelFunc

	running sync.WaitGroup // goroutines that send parts
	begin   sync.Once      // of the upload, by the first of them

	mu     sync.Mutex
	grown  int64 // bytes that source holds
	last   bool  // and it will hold no more
	next   int64 // bytes that are in a part
	active int   // of running
	parts  []minio.CompletePart
	err    error // the first; no part is begun after it
	ended  bool

	// Set in begin, and read after running has ended, or in it.
	id   string
	date time.Time
}

// Upload implements blobstore.Uploader.
func (s *Store) Upload(ctx context.Context, key blobstore.Key, source io.ReaderAt) blobstore.Upload {
	u := &upload{s: s, key: key, source: source, err: key.Check()}
	u.ctx, u.cancel = context.WithCancel(ctx)
	return u
}

// Grown implements blobstore.Upload.
func (u *upload) Grown(size int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.grown = size
	u.start()
}

// start has goroutines send the parts that are there; mu is held.
func (u *upload) start() {
	for parts := u.ready(); parts > 0 && u.active < partsAtOnce; parts-- {
		u.active++
		u.running.Go(u.sendParts)
	}
}

// ready is how many parts are there and not begun; mu is held.
func (u *upload) ready() int64 {
	left := u.grown - u.next
	switch {
	case u.err != nil || u.ended:
		return 0
	case u.last:
		return (left + partSize - 1) / partSize
	}
	return left / partSize
}

// sendParts sends one part after another until none is left.
func (u *upload) sendParts() {
	for {
		number, off, size := u.take()
		if size == 0 {
			return
		}
		part, err := u.sendPart(number, off, size)
		u.mu.Lock()
		if err == nil {
			u.parts[number-1] = part
		} else if u.err == nil {
			u.err = fmt.Errorf("part %d: %w", number, err)
		}
		u.mu.Unlock()
	}
}

// take takes up the next part. A size of 0 says that there is none, and that the goroutine is not counted any more.
func (u *upload) take() (number int, off, size int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ready() == 0 {
		u.active--
		return 0, 0, 0
	}
	off, size = u.next, min(partSize, u.grown-u.next)
	u.next += size
	u.parts = append(u.parts, minio.CompletePart{})
	return len(u.parts), off, size
}

func (u *upload) sendPart(number int, off, size int64) (minio.CompletePart, error) {
	u.begin.Do(func() {
		if err := u.create(); err != nil {
			u.fail(err)
		}
	})
	if u.id == "" {
		return minio.CompletePart{}, errors.New("not begun")
	}
	select {
	case u.s.parts <- struct{}{}:
		defer func() { <-u.s.parts }()
	case <-u.ctx.Done():
		return minio.CompletePart{}, blobstore.ContextError(u.ctx)
	}
	body, err := blobstore.NewBody(io.NewSectionReader(u.source, off, size), size)
	if err != nil {
		return minio.CompletePart{}, err
	}
	sha, err := u.s.hash(body)
	if err != nil {
		return minio.CompletePart{}, err
	}
	part := minio.CompletePart{PartNumber: number}
	err = u.request(u.ctx, opPart, func(ctx context.Context) error {
		return u.s.send(ctx, body, func(try io.Reader) error {
			opts := minio.PutObjectPartOptions{Sha256Hex: sha, DisableContentSha256: sha != ""}
			done, err := u.s.core.PutObjectPart(ctx, u.s.conf.Bucket, u.s.name(u.key), u.id, number, try, size, opts)
			part.ETag = done.ETag
			return err
		})
	})
	return part, err
}

// create begins the upload. Its date is the object's: what was begun and never finished is as old as that, and so are,
// with Amazon, the objects that come of it.
func (u *upload) create() error {
	return u.request(u.ctx, opUpload, func(ctx context.Context) (err error) {
		ctx = context.WithValue(ctx, dateKey{}, &u.date)
		u.id, err = u.s.core.NewMultipartUpload(ctx, u.s.conf.Bucket, u.s.name(u.key), minio.PutObjectOptions{})
		return classify(err)
	})
}

func (u *upload) complete(ctx context.Context) error {
	if u.date.IsZero() {
		return errNoDate
	}
	return u.request(ctx, opUpload, func(ctx context.Context) error {
		_, err := u.s.core.CompleteMultipartUpload(ctx, u.s.conf.Bucket, u.s.name(u.key), u.id, u.parts, minio.PutObjectOptions{})
		return classify(err)
	})
}

// request sends a request until one succeeds or enough were sent.
func (u *upload) request(ctx context.Context, op operation, send func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, u.s.conf.Deadline)
	defer cancel()
	return u.s.doRequest(ctx, op, u.s.name(u.key), send)
}

func (u *upload) fail(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err == nil {
		u.err = err
	}
}

// Finish implements blobstore.Upload.
func (u *upload) Finish(ctx context.Context, size int64) (blobstore.PutResult, error) {
	defer u.Abort()
	u.mu.Lock()
	begun := u.next > 0 || u.active > 0
	if begun {
		u.grown, u.last = size, true
		u.start()
	}
	u.mu.Unlock()
	if begun {
		stop := context.AfterFunc(ctx, u.cancel)
		u.running.Wait()
		stop()
		err := u.err
		if err == nil {
			err = u.complete(ctx)
		}
		if err == nil {
			u.id = "" // nothing is left to abort
			return blobstore.PutResult{Date: u.date}, nil
		}
		u.s.metrics.wholeAgain.Inc()
	}
	return u.s.Put(ctx, u.key, io.NewSectionReader(u.source, 0, size), size)
}

// Abort implements blobstore.Upload.
func (u *upload) Abort() {
	u.mu.Lock()
	ended := u.ended
	u.ended = true
	u.mu.Unlock()
	u.cancel()
	u.running.Wait()
	if ended || u.id == "" {
		return
	}
	u.s.background.Go(func() {
		// What cannot be ended now is ended by EndUploads.
		_ = u.s.endUpload(context.WithoutCancel(u.ctx), u.s.name(u.key), u.id)
	})
}

// endUpload has the server forget the parts of an upload.
func (s *Store) endUpload(ctx context.Context, name, id string) error {
	ctx, cancel := context.WithTimeout(ctx, s.conf.Deadline)
	defer cancel()
	err := s.doRequest(ctx, opUpload, name, func(ctx context.Context) error {
		return classify(s.core.AbortMultipartUpload(ctx, s.conf.Bucket, name, id))
	})
	if errors.Is(err, blobstore.ErrNotFound) {
		return nil
	}
	return err
}

// EndUploads implements blobstore.Uploader. Some servers list only uploads of a whole name, MinIO's among them, and end
// what was left by themselves.
func (s *Store) EndUploads(ctx context.Context, prefix string, before time.Time) (ended int, err error) {
	for key, id := "", ""; ; {
		page, err := s.uploads(ctx, prefix, key, id)
		if err != nil {
			return ended, fmt.Errorf("list uploads of %q: %w", prefix, err)
		}
		for _, u := range page.Uploads {
			if !before.IsZero() && !u.Initiated.Before(before) {
				continue
			}
			if err := s.endUpload(ctx, u.Key, u.UploadID); err != nil {
				return ended, fmt.Errorf("end upload of %s: %w", u.Key, err)
			}
			ended++
		}
		if !page.IsTruncated || (page.NextKeyMarker == key && page.NextUploadIDMarker == id) {
			return ended, nil
		}
		key, id = page.NextKeyMarker, page.NextUploadIDMarker
	}
}

// uploads is a page of the uploads that were begun and not ended.
func (s *Store) uploads(ctx context.Context, prefix, key, id string) (page minio.ListMultipartUploadsResult, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.conf.Deadline)
	defer cancel()
	err = s.doRequest(ctx, opList, s.conf.Prefix+prefix, func(ctx context.Context) error {
		page, err = s.core.ListMultipartUploads(ctx, s.conf.Bucket, s.conf.Prefix+prefix, key, id, "", pageSize)
		return classify(err)
	})
	return page, err
}
