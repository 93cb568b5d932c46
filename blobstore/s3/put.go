package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"starling/blobstore"
)

// maxSingle is what one PUT can carry: Amazon's limit, which others have too. It is far above any mail.
const maxSingle = 5 << 30

// copyBuffers are for hashing.
var copyBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// Put implements blobstore.Store. It is always one PUT: a multipart upload would cost three requests and leave parts behind
// when a node dies. What pays for that is only to send while the object still comes in: see upload.
func (s *Store) Put(ctx context.Context, key blobstore.Key, r io.ReadSeeker, size int64) (blobstore.PutResult, error) {
	if err := key.Check(); err != nil {
		return blobstore.PutResult{}, err
	}
	if size > maxSingle {
		return blobstore.PutResult{}, fmt.Errorf("put %s: %w: %d bytes are more than one PUT can carry", key, blobstore.ErrBody, size)
	}
	body, err := blobstore.NewBody(r, size)
	if err != nil {
		return blobstore.PutResult{}, fmt.Errorf("put %s: %w", key, err)
	}
	sha, err := s.hash(body)
	if err != nil {
		return blobstore.PutResult{}, fmt.Errorf("put %s: %w", key, err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.conf.Deadline)
	defer cancel()
	var date time.Time
	err = s.doRequest(ctx, opPut, s.name(key), func(ctx context.Context) (err error) {
		date, err = s.putOnce(ctx, key, body, sha)
		return err
	})
	if err != nil {
		return blobstore.PutResult{}, fmt.Errorf("put %s: %w", key, err)
	}
	return blobstore.PutResult{Date: date}, nil
}

// hash returns the SHA-256 with which a request without TLS is signed, in hex. It is "" with TLS, which protects the body
// on its way by itself. The body is read once more for it: the library would else sign it in chunks while it sends them,
// which costs half as much processor time again, and eight times the memory; and of an empty body signed so, versitygw
// leaves the last chunk unread and takes it for the next request.
func (s *Store) hash(body *blobstore.Body) (string, error) {
	if s.secure {
		return "", nil
	}
	sum := sha256.New()
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	if _, err := io.CopyBuffer(sum, body, buf[:]); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// errNoDate is not temporary: a server that leaves the header out will do so again.
var errNoDate = errors.New("the answer to the PUT has no Date header")

func (s *Store) putOnce(ctx context.Context, key blobstore.Key, body *blobstore.Body, sha string) (date time.Time, err error) {
	err = s.send(ctx, body, func(try io.Reader) error {
		opts := minio.PutObjectOptions{DisableContentSha256: sha != ""}
		_, err := s.core.PutObject(context.WithValue(ctx, dateKey{}, &date), s.conf.Bucket, s.name(key), try, body.Size(), "", sha, opts)
		return err
	})
	if err == nil && date.IsZero() {
		err = &failure{blobstore.ErrUnavailable, errNoDate, false}
	}
	return date, err
}

// send sends a body with one request, from its first byte.
func (s *Store) send(ctx context.Context, body *blobstore.Body, request func(try io.Reader) error) error {
	if err := body.Rewind(); err != nil {
		return err
	}
	try := &attempt{ctx: ctx, body: body}
	err := request(try)
	bodyErr := try.end()
	switch {
	case bodyErr != nil:
		return bodyErr
	case err != nil:
		return classify(err)
	case !body.Done():
		return &failure{blobstore.ErrUnavailable, errors.New("the server answered before it had the whole body"), true}
	}
	return nil
}

// attempt is the body of one request. A request that has failed may still be read from by the connection's goroutine;
// once end has returned, it gets nothing more, so that the next attempt has the body for itself. It cannot seek: the client
// library would otherwise rewind on its own.
type attempt struct {
	ctx context.Context // ends the reading with the request, before more is sent

	mu    sync.Mutex
	body  *blobstore.Body
	ended bool
	err   error
}

var errEnded = errors.New("request has ended")

func (a *attempt) Read(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return 0, errEnded
	}
	n, err := a.body.Read(p)
	if err != nil && err != io.EOF {
		a.err = err
	}
	if ctxErr := a.ctx.Err(); ctxErr != nil {
		return 0, ctxErr
	}
	return n, err
}

// end takes the body away from the request and returns the error with which reading it failed.
func (a *attempt) end() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	return a.err
}
