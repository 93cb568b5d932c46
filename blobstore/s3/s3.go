package s3

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"go.opentelemetry.io/otel/trace"

	"starling/blobstore"
)

// pageSize is the number of objects that one request of a listing asks for; no server gives more.
const pageSize = 1000

// Store keeps objects in a bucket.
type Store struct {
	core    minio.Core
	conf    Config
	http    *transport
	metrics *metrics
	tracer  trace.Tracer // nil: no traces
	hedger  hedger
	parts   chan struct{} // those that are being sent, of all uploads

	breaker *breaker
	retries retries

	background sync.WaitGroup // requests that nobody waits for, or may come to be so

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
	m := newMetrics(conf.Metrics)
	t := newTransport(conf, tlsConf, m)
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
	s := &Store{core: minio.Core{Client: client}, conf: conf, http: t, metrics: m, secure: endpoint.Scheme == "https"}
	s.breaker, s.retries = newBreaker(conf, m), retries{most: float64(conf.MaxConns), left: float64(conf.MaxConns)}
	s.parts = make(chan struct{}, max(1, conf.MaxConns/partsShare))
	if conf.Traces != nil {
		s.tracer = conf.Traces.Tracer("starling/blobstore/s3")
	}
	return s, nil
}

// Close waits for requests that nobody waits for any more to end, and closes idle connections. The Store must not be used
// then.
func (s *Store) Close() {
	s.background.Wait()
	s.http.http.CloseIdleConnections()
}

// CheckBucket lists one object: it fails when the server, the keys, the bucket or the right to list it is missing.
//
// It costs one LIST request and an answer of about a kilobyte, and is counted as a list; providers charge a LIST like a
// PUT, some ten times a GET. While the server is away it tries as often as any call does, so who asks again and again
// gives a context that ends after the few seconds in which an answer is of use.
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
	if err := s.remove(ctx, key, minio.RemoveObjectOptions{}); err != nil {
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
	err = s.doRequest(ctx, opList, opts.Prefix, func(ctx context.Context) error {
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

// doRequest sends a request until one succeeds or fails for good, or enough were sent.
func (s *Store) doRequest(ctx context.Context, op operation, object string, send func(context.Context) error) error {
	return s.do(ctx, func(ctx context.Context, before int) error { return s.request(ctx, op, object, before, send) })
}

// do calls try, with the number of calls before, until it succeeds or fails for good, or was called often enough. When ctx
// has ended, that is the error.
func (s *Store) do(ctx context.Context, try func(ctx context.Context, before int) error) error {
	s.retries.earn()
	for n := 0; ; {
		if err := blobstore.ContextError(ctx); err != nil {
			return err
		}
		err := try(ctx, n)
		if err == nil {
			return nil
		}
		if ctxErr := blobstore.ContextError(ctx); ctxErr != nil && !errors.Is(err, blobstore.ErrBody) {
			return fmt.Errorf("%w (last: %s)", ctxErr, err.Error()) // only told: an ended context is no other error
		}
		n++
		again, ctxErr := s.repeat(ctx, n, err)
		if ctxErr != nil {
			return ctxErr
		}
		if !again {
			return err
		}
	}
}

// throttledDelay is how many times longer the pause is when the server wants fewer requests.
const throttledDelay = 4

// pause waits between a half and the whole of d.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d/2 + rand.N(d/2+1))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return blobstore.ContextError(ctx)
	}
}
