package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"starling/blobstore"
)

// List implements blobstore.Store. It holds the names of one account's folder at a time.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[blobstore.Info, error] {
	return func(yield func(blobstore.Info, error) bool) {
		if err := s.list(ctx, prefix, after, yield); err != nil && !errors.Is(err, errStop) {
			switch {
			case ctx.Err() != nil:
				err = blobstore.ContextError(ctx)
			default:
				err = fmt.Errorf("%w: %w", blobstore.ErrUnavailable, err)
			}
			yield(blobstore.Info{}, fmt.Errorf("list %q: %w", prefix, err))
		}
	}
}

// errStop ends the walk when the consumer has seen enough.
var errStop = errors.New("stop")

func (s *Store) list(ctx context.Context, prefix, after string, yield func(blobstore.Info, error) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(s.root, tmpName)); err != nil {
		return err
	}
	accounts, err := os.ReadDir(s.root) // sorted by name, which is the keys' order: all accounts have the same length
	if err != nil {
		return err
	}
	for _, a := range accounts {
		if !a.IsDir() || !overlaps(a.Name()+"/", prefix) || pastAll(a.Name()+"/", after) {
			continue
		}
		if err := s.listAccount(ctx, a.Name(), prefix, after, yield); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) listAccount(ctx context.Context, account, prefix, after string, yield func(blobstore.Info, error) bool) error {
	entries, err := os.ReadDir(filepath.Join(s.root, account))
	if err != nil {
		return ignoreAbsent(err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		key := blobstore.Key(account + "/" + e.Name())
		if key.Check() != nil || !strings.HasPrefix(string(key), prefix) || string(key) <= after {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted since the folder was read
		}
		if err != nil {
			return err
		}
		if !yield(blobstore.Info{Key: key, Size: info.Size(), Modified: info.ModTime()}, nil) {
			return errStop
		}
	}
	return nil
}

// overlaps says whether a key in folder may begin with prefix.
func overlaps(folder, prefix string) bool {
	return strings.HasPrefix(folder, prefix) || strings.HasPrefix(prefix, folder)
}

// pastAll says whether every key in folder comes at or before after.
func pastAll(folder, after string) bool {
	return folder < after && !strings.HasPrefix(after, folder)
}
