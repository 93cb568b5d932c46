package s3

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"starling/blobstore"
)

// pageSize is the number of objects that one request of a listing asks for; no server gives more.
const pageSize = 1000

// Store keeps objects in a bucket.
type Store struct {
	core  minio.Core
	conf  Config
	http  *transport
	retry retry

	secure bool // the endpoint is https
}

// New makes a Store. It reads files that conf names, but sends nothing: see CheckBucket.
func New(conf Config) (*Store, error) {
	if err := conf.Validate(); err != nil {
		return nil, fmt.Errorf("S3: %w", err)
	}
	conf = conf.withDefaults()
	endpoint, err := conf.endpoint()
	if err != nil {
		return nil, fmt.Errorf("S3: %w", err)
	}
	tlsConf, err := conf.tls()
	if err != nil {
		return nil, fmt.Errorf("S3: %w", err)
	}
	keys, err := conf.credentials()
	if err != nil {
		return nil, fmt.Errorf("S3: %w", err)
	}
	t := newTransport(conf, tlsConf)
	client, err := minio.New(endpoint.Host, &minio.Options{
		Creds:        keys,
		Secure:       endpoint.Scheme == "https",
		Transport:    t,
		Region:       conf.Region,
		BucketLookup: conf.lookup(),
		MaxRetries:   1, // tries are repeated here, where the body is known
	})
	if err != nil {
		return nil, fmt.Errorf("S3: %w", err)
	}
	return &Store{
		core: minio.Core{Client: client}, conf: conf, http: t, retry: retry{conf.Attempts, conf.RetryDelay},
		secure: endpoint.Scheme == "https",
	}, nil
}

// Close closes idle connections. Nothing else is held between calls.
func (s *Store) Close() { s.http.http.CloseIdleConnections() }

// CheckBucket lists one object: it fails when the server, the keys, the bucket or the right to list it is missing.
func (s *Store) CheckBucket(ctx context.Context) error {
	if _, err := s.page(ctx, "", "", 1); err != nil {
		return fmt.Errorf("S3 bucket %q at %s: %w", s.conf.Bucket, s.conf.Endpoint, err)
	}
	return nil
}

// CreateBucket makes the bucket. It is no error if it is there and ours.
func (s *Store) CreateBucket(ctx context.Context) error {
	err := s.core.MakeBucket(ctx, s.conf.Bucket, minio.MakeBucketOptions{Region: s.conf.Region})
	var answer minio.ErrorResponse
	if err == nil || (errors.As(err, &answer) && answer.Code == "BucketAlreadyOwnedByYou") {
		return nil
	}
	return fmt.Errorf("create S3 bucket %q: %w", s.conf.Bucket, classify(err))
}

// Delete implements blobstore.Store.
func (s *Store) Delete(ctx context.Context, key blobstore.Key) error {
	if err := key.Check(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.conf.Deadline)
	defer cancel()
	err := s.retry.do(ctx, func() error {
		return classify(s.core.RemoveObject(ctx, s.conf.Bucket, s.name(key), minio.RemoveObjectOptions{}))
	})
	if err != nil && !errors.Is(err, blobstore.ErrNotFound) {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}

// List implements blobstore.Store.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[blobstore.Info, error] {
	return func(yield func(blobstore.Info, error) bool) {
		for {
			infos, err := s.page(ctx, prefix, after, pageSize)
			if err != nil {
				yield(blobstore.Info{}, fmt.Errorf("list %q: %w", prefix, err))
				return
			}
			for _, info := range infos {
				after = string(info.Key)
				// What lies in the bucket under our prefix and is no key is not ours.
				if info.Key.Check() == nil && !yield(info, nil) {
					return
				}
			}
			if len(infos) == 0 {
				return
			}
		}
	}
}

// page returns up to n objects after a name; none if there are no more. The last page of a listing is an empty one: servers
// may give less than they were asked for, and a request more is little beside a listing.
func (s *Store) page(ctx context.Context, prefix, after string, n int) (infos []blobstore.Info, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.conf.Deadline)
	defer cancel()
	opts := minio.ListObjectsOptions{Prefix: s.conf.Prefix + prefix, Recursive: true, MaxKeys: n}
	if after != "" {
		opts.StartAfter = s.conf.Prefix + after
	}
	err = s.retry.do(ctx, func() error {
		infos = infos[:0]
		for object := range s.core.ListObjectsIter(ctx, s.conf.Bucket, opts) {
			if object.Err != nil {
				return classify(object.Err)
			}
			key := blobstore.Key(strings.TrimPrefix(object.Key, s.conf.Prefix))
			infos = append(infos, blobstore.Info{Key: key, Size: object.Size, Modified: object.LastModified})
			if len(infos) == n {
				return nil
			}
		}
		return ctx.Err() // the iterator just ends when the context does
	})
	return infos, err
}

func (s *Store) name(key blobstore.Key) string { return s.conf.Prefix + string(key) }

// retry repeats what failed for a temporary reason.
type retry struct {
	attempts int
	delay    time.Duration
}

// do calls try until it succeeds, fails for good, or has been called often enough. When ctx has ended, that is the error.
func (r retry) do(ctx context.Context, try func() error) error {
	for n := 1; ; n++ {
		if err := blobstore.ContextError(ctx); err != nil {
			return err
		}
		err := try()
		if err == nil {
			return nil
		}
		if ctxErr := blobstore.ContextError(ctx); ctxErr != nil && !errors.Is(err, blobstore.ErrBody) {
			return fmt.Errorf("%w (last: %s)", ctxErr, err.Error()) // only told: an ended context is no other error
		}
		if !temporary(err) || n >= r.attempts {
			return err
		}
		if err := r.pause(ctx, n); err != nil {
			return err
		}
	}
}

// pause waits before the try after the nth: between a half and the whole of a delay that doubles.
func (r retry) pause(ctx context.Context, n int) error {
	d := r.delay << min(n-1, 5)
	t := time.NewTimer(d/2 + rand.N(d/2+1))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return blobstore.ContextError(ctx)
	}
}
