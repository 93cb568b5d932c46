package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"starling/blobstore"
)

const (
	// BlockSize is the number of bytes in a block, which is what is fetched and kept as one.
	BlockSize = 256 << 10
	// MaxRange is the length of the largest range, in bytes, that is looked up in the cache.
	MaxRange = 1 << 20

	// maxPut is the size of the largest mail, in bytes, that is kept when it is put. To keep 5 KB costs 10 µs, a GET that is
	// saved 200 µs and a wait, so it pays if one in twenty is read on the node that took it in; beyond this size it would not.
	maxPut = 64 << 10

	// maxOffset is where a range may end: no object is larger.
	maxOffset = 5 << 30
)

// Config says how much is kept, and where.
type Config struct {
	// Memory is the number of bytes kept in memory; 0: none.
	Memory int64
	// Dir is a folder on a local disk, which is made if it is missing; "": none is used. All in it is forgotten when the
	// process ends.
	Dir string
	// Disk is the number of bytes kept there.
	Disk int64
	// Log hears of a disk that fails, and of bugs. Default: nobody does.
	Log *zap.Logger
	// Metrics is where the figures are registered; nil: nowhere.
	Metrics prometheus.Registerer
}

// Store is a blobstore.Store that answers what it can from what it keeps. Close ends it.
type Store struct {
	inner   blobstore.Store
	memory  *memory // nil: none
	disk    *disk   // nil: none
	metrics *metrics
	log     *zap.Logger

	mu      sync.Mutex
	flights map[objectID][]*flight // what is being fetched
	flying  sync.WaitGroup         // their goroutines
}

// objectID is a mail's key.
type objectID struct {
	account int64
	object  blobstore.Object
}

// New returns a Store around inner. A folder that cannot be used is logged and counted, and then there is none.
func New(inner blobstore.Store, conf Config) *Store {
	if conf.Log == nil {
		conf.Log = zap.NewNop()
	}
	s := &Store{inner: inner, flights: make(map[objectID][]*flight), metrics: newMetrics(conf.Metrics), log: conf.Log}
	if conf.Memory > 0 {
		s.memory = newMemory(conf.Memory, s.metrics)
	}
	if conf.Dir != "" && conf.Disk > 0 {
		s.disk = openDisk(conf.Dir, conf.Disk, conf.Log, s.metrics)
	}
	registerSizes(conf.Metrics, s.memory, s.disk)
	return s
}

// Close waits for what nobody waits for any more to end, and frees the disk. The Store must not be used then.
func (s *Store) Close() {
	s.flying.Wait()
	s.disk.close()
}

// Put implements blobstore.Store. What was put is kept in memory if it is small: the clients that hear of a new mail read
// it next.
func (s *Store) Put(ctx context.Context, key blobstore.Key, body io.ReadSeeker, size int64) (blobstore.PutResult, error) {
	id, ok := idOf(key)
	if !ok {
		return s.inner.Put(ctx, key, body, size)
	}
	keep := s.memory != nil && size > 0 && size <= maxPut
	var start int64
	if keep {
		var err error
		start, err = body.Seek(0, io.SeekCurrent)
		keep = err == nil // else the store says what is wrong
	}
	res, err := s.inner.Put(ctx, key, body, size)
	s.drop(id) // a key is never put twice; if it is, what was there is gone
	if err == nil && keep {
		if data, ok := readAgain(body, start, size); ok {
			s.memory.add(id, []block{{index: 0, data: data}})
		}
	}
	return res, err
}

// readAgain reads a body that has been put; false if it cannot be read a second time.
func readAgain(body io.ReadSeeker, start, size int64) ([]byte, bool) {
	if _, err := body.Seek(start, io.SeekStart); err != nil {
		return nil, false
	}
	data := make([]byte, size)
	_, err := io.ReadFull(body, data)
	return data, err == nil
}

// Upload implements blobstore.Uploader. Nothing of it is kept: what is worth it is put.
func (s *Store) Upload(ctx context.Context, key blobstore.Key, source io.ReaderAt) blobstore.Upload {
	return upload{blobstore.NewUpload(ctx, s.inner, key, source), s, key}
}

// upload forgets what was under its key, as Put does.
type upload struct {
	blobstore.Upload
	s   *Store
	key blobstore.Key
}

// Finish implements blobstore.Upload.
func (u upload) Finish(ctx context.Context, size int64) (blobstore.PutResult, error) {
	defer u.s.Forget(u.key)
	return u.Upload.Finish(ctx, size)
}

// EndUploads implements blobstore.Uploader.
func (s *Store) EndUploads(ctx context.Context, prefix string, before time.Time) (int, error) {
	return blobstore.EndUploads(ctx, s.inner, prefix, before)
}

// Versions implements blobstore.Versioner.
func (s *Store) Versions(ctx context.Context, prefix string) iter.Seq2[blobstore.Version, error] {
	return blobstore.Versions(ctx, s.inner, prefix)
}

// DeleteVersion implements blobstore.Versioner.
func (s *Store) DeleteVersion(ctx context.Context, v blobstore.Version) error {
	err := blobstore.DeleteVersion(ctx, s.inner, v)
	s.Forget(v.Key)
	return err
}

// Get implements blobstore.Store.
func (s *Store) Get(ctx context.Context, key blobstore.Key, offset, length int64) (io.ReadCloser, error) {
	id, ok := idOf(key)
	if !ok || length <= 0 || length > MaxRange || offset < 0 || offset > maxOffset-length || (s.memory == nil && s.disk == nil) {
		s.metrics.bypasses.Inc()
		return s.inner.Get(ctx, key, offset, length)
	}
	if err := blobstore.ContextError(ctx); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	first, end := int(offset/BlockSize), int((offset+length-1)/BlockSize)+1
	blocks, err := s.blocks(ctx, id, key, first, end)
	if r := cut(blocks, offset-int64(first)*BlockSize, length); r != nil {
		return &blobstore.RangeReader{Ctx: ctx, R: io.NopCloser(r), Want: length}, nil
	}
	if err != nil {
		return nil, err
	}
	// The range reaches beyond the object's end, of which the store knows better what to say.
	return s.inner.Get(ctx, key, offset, length)
}

// cut returns a reader of length bytes from offset; nil if the blocks do not have them all.
func cut(blocks [][]byte, offset, length int64) io.Reader {
	readers := make([]io.Reader, 0, len(blocks))
	for i, data := range blocks {
		from := int64(0)
		if i == 0 {
			from = offset
		}
		want := min(length, BlockSize-from)
		if from+want > int64(len(data)) {
			return nil
		}
		readers = append(readers, bytes.NewReader(data[from:from+want]))
		length -= want
	}
	if len(readers) == 1 {
		return readers[0]
	}
	return io.MultiReader(readers...)
}

// Delete implements blobstore.Store.
func (s *Store) Delete(ctx context.Context, key blobstore.Key) error {
	err := s.inner.Delete(ctx, key)
	s.Forget(key)
	return err
}

// List implements blobstore.Store.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[blobstore.Info, error] {
	return s.inner.List(ctx, prefix, after)
}

// Forget implements blobstore.Forgetter.
func (s *Store) Forget(key blobstore.Key) {
	if id, ok := idOf(key); ok {
		s.drop(id)
	}
}

// drop forgets an object, what is being fetched of it included.
func (s *Store) drop(id objectID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.flights[id] {
		f.dropped = true
	}
	delete(s.flights, id) // who comes now must not get what was fetched before
	s.memory.drop(id)
	s.disk.drop(id)
}

// idOf is false for a key that is not a mail's: an object with a name is written again.
func idOf(key blobstore.Key) (objectID, bool) {
	object, ok := key.Object()
	if !ok {
		return objectID{}, false
	}
	account, ok := key.Account()
	return objectID{account, object}, ok
}

// ended says whether err is that of an object that ends, and not of a connection that broke.
func ended(err error) bool {
	return (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, blobstore.ErrRange)) && !errors.Is(err, blobstore.ErrUnavailable)
}
