package blobstore

import (
	"context"
	"iter"
)

// A Versioner is a Store that may keep what was deleted or replaced, as a bucket with versioning does. Who does not know
// whether a Store is one uses [Versions] and [DeleteVersion].
type Versioner interface {
	// Versions yields all that there is under the keys that begin with prefix: what List shows, and what was deleted or
	// replaced and is still kept. It reads as it goes; an error is yielded last.
	Versions(ctx context.Context, prefix string) iter.Seq2[Version, error]

	// DeleteVersion removes one of them for good. An absent one is no error.
	DeleteVersion(ctx context.Context, v Version) error
}

// Version is one of the objects that were put under a key, or the mark that they were deleted.
type Version struct {
	Key Key
	ID  string // the store's name for it; "": the store keeps no more than one
}

// Versions is that of the store, if it is a Versioner; of any other it is what List shows.
func Versions(ctx context.Context, store Store, prefix string) iter.Seq2[Version, error] {
	if v, ok := store.(Versioner); ok {
		return v.Versions(ctx, prefix)
	}
	return func(yield func(Version, error) bool) {
		for info, err := range store.List(ctx, prefix, "") {
			if !yield(Version{Key: info.Key}, err) {
				return
			}
		}
	}
}

// DeleteVersion is that of the store, if it is a Versioner, and else Delete.
func DeleteVersion(ctx context.Context, store Store, v Version) error {
	if versioner, ok := store.(Versioner); ok {
		return versioner.DeleteVersion(ctx, v)
	}
	return store.Delete(ctx, v.Key)
}
