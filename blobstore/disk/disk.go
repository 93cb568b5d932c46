package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

// copyBuffers are for objects of no less than copyChunk.
var copyBuffers = sync.Pool{New: func() any { return new([copyChunk]byte) }}

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
	if _, err := s.sweep("", time.Now().Add(-tmpAge)); err != nil {
		return nil, fmt.Errorf("open blob folder: %w", err)
	}
	return s, nil
}

// create makes a file for an object that is not finished. Its name begins with the account.
func (s *Store) create(key blobstore.Key) (*os.File, error) {
	account, _, _ := strings.Cut(string(key), "/")
	return os.CreateTemp(filepath.Join(s.root, tmpName), account+"-")
}

// sweep removes the unfinished files of objects with a prefix that were last written before the time given, if one is, and
// says how many.
func (s *Store) sweep(prefix string, before time.Time) (removed int, err error) {
	entries, err := os.ReadDir(filepath.Join(s.root, tmpName))
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		account, _, _ := strings.Cut(e.Name(), "-")
		if !overlaps(account+"/", prefix) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // its writer has just finished
		}
		if err != nil {
			return removed, err
		}
		if !before.IsZero() && !info.ModTime().Before(before) {
			continue
		}
		if err := os.Remove(filepath.Join(s.root, tmpName, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, err
		}
		removed++
	}
	return removed, nil
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
	f, err := s.create(key)
	if err != nil {
		return time.Time{}, err
	}
	return s.finish(ctx, f, write(ctx, f, body), key)
}

// finish syncs and closes a file that has been filled, and makes it the object; the time is the file's own. Of an error,
// that of filling it included, nothing is left.
func (s *Store) finish(ctx context.Context, f *os.File, err error, key blobstore.Key) (date time.Time, _ error) {
	if err == nil {
		date, err = synced(f)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.publish(ctx, f.Name(), s.path(key))
	}
	if err != nil {
		return time.Time{}, errors.Join(err, ignoreAbsent(os.Remove(f.Name())))
	}
	return date, nil
}

// write appends a body to f.
func write(ctx context.Context, f *os.File, body *blobstore.Body) error {
	var buf []byte
	if body.Size() < copyChunk {
		buf = make([]byte, body.Size())
	} else {
		chunk := copyBuffers.Get().(*[copyChunk]byte)
		defer copyBuffers.Put(chunk)
		buf = chunk[:]
	}
	for !body.Done() {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := body.Read(buf)
		if err != nil {
			return err
		}
		if _, err := f.Write(buf[:n]); err != nil {
			return err
		}
	}
	return nil
}

func synced(f *os.File) (time.Time, error) {
	if err := f.Sync(); err != nil {
		return time.Time{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return time.Time{}, err
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
	case ctx.Err() == nil && what != "put" && errors.Is(err, fs.ErrNotExist) && s.mounted():
		return fmt.Errorf("%s %s: %w", what, key, blobstore.ErrNotFound)
	}
	return failed(ctx, what+" "+string(key), err)
}

// failed is what went wrong, as one of blobstore's errors or the context's.
func failed(ctx context.Context, what string, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", what, blobstore.ContextError(ctx))
	case errors.Is(err, blobstore.ErrBody), errors.Is(err, blobstore.ErrRange):
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w: %w", what, blobstore.ErrUnavailable, err)
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
