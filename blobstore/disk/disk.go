package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"starling/blobstore"
)

const (
	tmpName = ".tmp"
	// tmpAge is the age at which a file in .tmp cannot be one that is still being written.
	tmpAge = 24 * time.Hour
	// copyChunk is how much is written between two looks at the context.
	copyChunk = 256 << 10
)

// Store keeps objects as files below a root. It holds nothing open between calls, and has no Close.
type Store struct {
	root string
}

// Open makes root a store, if it is not one yet, and removes what killed processes left half-written.
func Open(root string) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open blob folder: %w", err)
	}
	s := &Store{root: root}
	if err := os.MkdirAll(filepath.Join(root, tmpName), 0o700); err != nil {
		return nil, fmt.Errorf("open blob folder: %w", err)
	}
	if err := syncDir(root); err != nil {
		return nil, fmt.Errorf("open blob folder: %w", err)
	}
	if err := s.sweep(time.Now().Add(-tmpAge)); err != nil {
		return nil, fmt.Errorf("open blob folder: %w", err)
	}
	return s, nil
}

// sweep removes the unfinished files that were last written before the time given.
func (s *Store) sweep(before time.Time) error {
	entries, err := os.ReadDir(filepath.Join(s.root, tmpName))
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // its writer has just finished
		}
		if err != nil {
			return err
		}
		if info.ModTime().After(before) {
			continue
		}
		if err := os.Remove(filepath.Join(s.root, tmpName, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Put implements blobstore.Store.
func (s *Store) Put(ctx context.Context, key blobstore.Key, r io.ReadSeeker, size int64) (blobstore.PutResult, error) {
	if err := key.Check(); err != nil {
		return blobstore.PutResult{}, err
	}
	body, err := blobstore.NewBody(r, size)
	if err != nil {
		return blobstore.PutResult{}, fmt.Errorf("put %s: %w", key, err)
	}
	date, err := s.put(ctx, key, body)
	if err != nil {
		return blobstore.PutResult{}, s.wrap(ctx, "put", key, err)
	}
	return blobstore.PutResult{Date: date}, nil
}

func (s *Store) put(ctx context.Context, key blobstore.Key, body *blobstore.Body) (time.Time, error) {
	f, err := os.CreateTemp(filepath.Join(s.root, tmpName), "")
	if err != nil {
		return time.Time{}, err
	}
	tmp := f.Name()
	date, err := writeSynced(ctx, f, body)
	if err == nil {
		err = s.publish(ctx, tmp, s.path(key))
	}
	if err != nil {
		return time.Time{}, errors.Join(err, ignoreAbsent(os.Remove(tmp)))
	}
	return date, nil
}

// writeSynced fills f and closes it; the time is the file's own.
func writeSynced(ctx context.Context, f *os.File, body *blobstore.Body) (date time.Time, err error) {
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, min(body.Size(), copyChunk))
	for !body.Done() {
		if err := ctx.Err(); err != nil {
			return date, err
		}
		n, err := body.Read(buf)
		if err != nil {
			return date, err
		}
		if _, err := f.Write(buf[:n]); err != nil {
			return date, err
		}
	}
	if err := f.Sync(); err != nil {
		return date, err
	}
	info, err := f.Stat()
	if err != nil {
		return date, err
	}
	return info.ModTime(), nil
}

// publish moves a finished file to its place, and makes the account's folder for the first of its objects.
func (s *Store) publish(ctx context.Context, tmp, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	err := os.Rename(tmp, path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := syncDir(s.root); err != nil {
			return err
		}
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}

// Get implements blobstore.Store.
func (s *Store) Get(ctx context.Context, key blobstore.Key, offset, length int64) (io.ReadCloser, error) {
	if err := key.Check(); err != nil {
		return nil, err
	}
	if err := blobstore.CheckRange(offset, length); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, s.wrap(ctx, "get", key, err)
	}
	f, err := s.openAt(key, offset, length)
	if err != nil {
		return nil, s.wrap(ctx, "get", key, err)
	}
	return &reader{blobstore.RangeReader{Ctx: ctx, R: f, Want: length}, key}, nil
}

func (s *Store) openAt(key blobstore.Key, offset, length int64) (*os.File, error) {
	f, err := os.Open(s.path(key))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = blobstore.CheckOffset(offset, length, info.Size())
	}
	if err == nil && offset > 0 {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// reader says ErrUnavailable where the file system says that it cannot read.
type reader struct {
	blobstore.RangeReader
	key blobstore.Key
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.RangeReader.Read(p)
	var path *fs.PathError
	if errors.As(err, &path) {
		err = fmt.Errorf("get %s: %w: %w", r.key, blobstore.ErrUnavailable, err)
	}
	return n, err
}

// Delete implements blobstore.Store. The folder is not synced: an object that a loss of power brings back is an orphan,
// which is what the next listing finds.
func (s *Store) Delete(ctx context.Context, key blobstore.Key) error {
	if err := key.Check(); err != nil {
		return err
	}
	err := ctx.Err()
	if err == nil {
		err = os.Remove(s.path(key))
	}
	if err = s.wrap(ctx, "delete", key, err); errors.Is(err, blobstore.ErrNotFound) {
		return nil
	}
	return err
}

func (s *Store) path(key blobstore.Key) string {
	return filepath.Join(s.root, filepath.FromSlash(string(key)))
}

// wrap makes one of blobstore's errors of err. A missing file is ErrNotFound only while the root is a store.
func (s *Store) wrap(ctx context.Context, what string, key blobstore.Key, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s %s: %w", what, key, blobstore.ContextError(ctx))
	case errors.Is(err, blobstore.ErrBody), errors.Is(err, blobstore.ErrRange):
		return fmt.Errorf("%s %s: %w", what, key, err)
	case what != "put" && errors.Is(err, fs.ErrNotExist) && s.mounted():
		return fmt.Errorf("%s %s: %w", what, key, blobstore.ErrNotFound)
	}
	return fmt.Errorf("%s %s: %w: %w", what, key, blobstore.ErrUnavailable, err)
}

func (s *Store) mounted() bool {
	info, err := os.Stat(filepath.Join(s.root, tmpName))
	return err == nil && info.IsDir()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
