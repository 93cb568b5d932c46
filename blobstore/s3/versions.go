package s3

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/minio/minio-go/v7"

	"starling/blobstore"
)

// Versions implements blobstore.Versioner. A bucket that never had versioning has one version of each object.
func (s *Store) Versions(ctx context.Context, prefix string) iter.Seq2[blobstore.Version, error] {
	return func(yield func(blobstore.Version, error) bool) {
		for after := ""; ; {
			page, err := s.versions(ctx, prefix, after)
			if err != nil {
				yield(blobstore.Version{}, fmt.Errorf("list versions of %q: %w", prefix, err))
				return
			}
			for _, v := range page {
				after = string(v.Key)
				// What lies in the bucket under our prefix and is no key is not ours.
				if v.Key.Check() == nil && !yield(v, nil) {
					return
				}
			}
			if len(page) == 0 {
				return
			}
		}
	}
}

// versions returns all versions of some of the objects after a name; none if there are no more objects.
func (s *Store) versions(ctx context.Context, prefix, after string) (page []blobstore.Version, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.conf.Deadline)
	defer cancel()
	opts := minio.ListObjectsOptions{Prefix: s.conf.Prefix + prefix, Recursive: true, WithVersions: true, MaxKeys: pageSize}
	if after != "" {
		opts.StartAfter = s.conf.Prefix + after
	}
	err = s.doRequest(ctx, opList, opts.Prefix, func(ctx context.Context) error {
		page = page[:0]
		for object := range s.core.ListObjectsIter(ctx, s.conf.Bucket, opts) {
			if object.Err != nil {
				return classify(object.Err)
			}
			key := blobstore.Key(strings.TrimPrefix(object.Key, s.conf.Prefix))
			// The next page begins after a key: a page ends where one does.
			if n := len(page); n >= pageSize && page[n-1].Key != key {
				return nil
			}
			page = append(page, blobstore.Version{Key: key, ID: object.VersionID})
		}
		return ctx.Err() // the iterator just ends when the context does
	})
	return page, err
}

// DeleteVersion implements blobstore.Versioner.
func (s *Store) DeleteVersion(ctx context.Context, v blobstore.Version) error {
	if err := v.Key.Check(); err != nil {
		return err
	}
	if err := s.remove(ctx, v.Key, minio.RemoveObjectOptions{VersionID: v.ID}); err != nil {
		return fmt.Errorf("delete version %s of %s: %w", v.ID, v.Key, err)
	}
	return nil
}

// remove sends a DELETE; what is not there is removed.
func (s *Store) remove(ctx context.Context, key blobstore.Key, opts minio.RemoveObjectOptions) error {
	ctx, cancel := context.WithTimeout(ctx, s.conf.Deadline)
	defer cancel()
	err := s.doRequest(ctx, opDelete, s.name(key), func(ctx context.Context) error {
		return classify(s.core.RemoveObject(ctx, s.conf.Bucket, s.name(key), opts))
	})
	if errors.Is(err, blobstore.ErrNotFound) {
		return nil
	}
	return err
}
