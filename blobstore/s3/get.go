package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/minio/minio-go/v7"

	"starling/blobstore"
)

// Get implements blobstore.Store.
func (s *Store) Get(ctx context.Context, key blobstore.Key, offset, length int64) (io.ReadCloser, error) {
	if err := key.Check(); err != nil {
		return nil, err
	}
	if err := blobstore.CheckRange(offset, length); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	r := &reader{s: s, ctx: ctx, key: key, at: offset, want: math.MaxInt64}
	if length > 0 && length < math.MaxInt64-offset {
		r.want = offset + length
	}
	r.short = length > 0
	r.mu.Lock()
	defer r.mu.Unlock()
	err := s.do(ctx, r.open)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return r, nil
}

// reader reads from at to the smaller of want and total. It opens the object anew when a connection breaks, and insists on
// the same ETag then.
type reader struct {
	s     *Store
	ctx   context.Context
	key   blobstore.Key
	at    int64 // offset in the object of the next byte
	want  int64 // offset after the last byte asked for; math.MaxInt64: the end
	short bool  // an object that ends before want is io.ErrUnexpectedEOF

	body  io.ReadCloser // nil after a break
	total int64         // the object's size
	etag  string
	tries int // in a row, without a byte

	closed bool

	mu   sync.Mutex   // held while the fields above are used, by a call or by suspend
	used atomic.Int64 // when the last call ended, in nanoseconds of the clock of answers
}

// touch notes that a call ends.
func (r *reader) touch() { r.used.Store(int64(r.s.http.answers.clock())) }

// suspend ends the answer that is being read, unless somebody reads from it now. The
// next Read asks for the rest.
func (r *reader) suspend() {
	if !r.mu.TryLock() {
		return
	}
	defer r.mu.Unlock()
	_ = r.end() // the bytes that were read of it are right
}

// end closes the answer, if there is one.
func (r *reader) end() error {
	if r.body == nil {
		return nil
	}
	r.s.http.answers.remove(r)
	body := r.body
	r.body = nil
	return body.Close()
}

// open asks for what is missing. before is how many requests of this call have failed.
func (r *reader) open(ctx context.Context, before int) error {
	q := question{name: r.s.name(r.key), at: r.at, ranged: r.at > 0 || r.want < math.MaxInt64}
	switch {
	case r.want < math.MaxInt64:
		q.opts.Set("Range", fmt.Sprintf("bytes=%d-%d", r.at, r.want-1))
	case q.ranged:
		q.opts.Set("Range", fmt.Sprintf("bytes=%d-", r.at))
	}
	if r.etag != "" {
		q.opts.Set("If-Match", `"`+r.etag+`"`)
	}
	a, err := r.s.hedged(ctx, func(ctx context.Context) (a answer, err error) {
		err = r.s.request(ctx, opGet, q.name, before, func(ctx context.Context) (err error) {
			a, err = r.s.ask(ctx, q)
			return err
		})
		return a, err
	})
	if err != nil {
		return err
	}
	r.body, r.total, r.etag = a.body, a.total, a.etag
	r.touch()
	r.s.http.answers.add(r)
	return nil
}

// question is what a GET asks for. It does not change: the GET may be under way twice at the same time.
type question struct {
	name   string
	opts   minio.GetObjectOptions
	at     int64
	ranged bool
}

// answer is what a GET gave.
type answer struct {
	body  io.ReadCloser
	total int64 // the object's size
	etag  string
}

// ask sends one GET.
func (s *Store) ask(ctx context.Context, q question) (answer, error) {
	body, info, header, err := s.core.GetObject(ctx, s.conf.Bucket, q.name, q.opts)
	if err != nil {
		return answer{}, classify(err)
	}
	total := info.Size
	if q.ranged {
		total, err = checkRange(header, q.at)
	}
	if err == nil && total < 0 {
		err = &failure{blobstore.ErrUnavailable, errors.New("the answer does not say how long it is"), true}
	}
	if err != nil {
		return answer{}, errors.Join(err, body.Close())
	}
	return answer{body, total, info.ETag}, nil
}

// checkRange returns the object's size from an answer that must be the range from offset: a server or a proxy that
// ignores Range sends the whole object, whose bytes would be taken for others.
func checkRange(header http.Header, offset int64) (total int64, err error) {
	v := header.Get("Content-Range")
	span, size, ok := strings.Cut(strings.TrimPrefix(v, "bytes "), "/")
	first, _, ok2 := strings.Cut(span, "-")
	from, err1 := strconv.ParseInt(first, 10, 64)
	total, err2 := strconv.ParseInt(size, 10, 64)
	if !ok || !ok2 || err1 != nil || err2 != nil || from != offset {
		return 0, &failure{blobstore.ErrUnavailable, fmt.Errorf("asked for the range from %d, the answer is %q", offset, v), false}
	}
	return total, nil
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.touch()
	if r.closed {
		return 0, fs.ErrClosed
	}
	for {
		if err := blobstore.ContextError(r.ctx); err != nil {
			return 0, fmt.Errorf("get %s: %w", r.key, err)
		}
		end := min(r.want, r.total)
		switch {
		case r.at < end:
		case r.short && r.total < r.want:
			return 0, io.ErrUnexpectedEOF
		default:
			return 0, io.EOF
		}
		n, err := r.readOn(p[:min(int64(len(p)), end-r.at)])
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// readOn reads from the connection that is open, or opens one. It returns 0, nil when a connection broke and another try
// is due.
func (r *reader) readOn(p []byte) (int, error) {
	var err error
	if r.body == nil {
		err = r.open(r.ctx, r.tries)
	}
	if err == nil {
		var n int
		n, err = r.body.Read(p)
		r.at += int64(n)
		if n > 0 {
			r.tries = 0
		}
		if n > 0 || err == nil {
			return n, nil
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		err = errors.Join(err, r.end())
		err = &failure{blobstore.ErrUnavailable, err, true}
		if r.ctx.Err() == nil {
			r.s.broke(r.s.name(r.key), err)
		}
	}
	if ctxErr := blobstore.ContextError(r.ctx); ctxErr != nil {
		return 0, fmt.Errorf("get %s: %w", r.key, ctxErr)
	}
	r.tries++
	again, ctxErr := r.s.repeat(r.ctx, r.tries, err)
	if !again {
		return 0, fmt.Errorf("get %s from offset %d: %w", r.key, r.at, err)
	}
	return 0, ctxErr
}

// Close implements io.Closer.
func (r *reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return r.end()
}
