package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/maphash"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// maxQueue is how many blocks may wait to be written; what comes while they do is not kept on disk.
	maxQueue = 32
	// diskPause is how long a disk that failed is left alone.
	diskPause = time.Minute
	// headSize is the length of what stands before a block: object, index, length, checksum.
	headSize = 24 + 4 + 4 + crc32.Size
)

// disk keeps blocks in one file, which is written from its beginning to its end and then again from its beginning: what
// was written first goes first. The file has no name, so it ends with the process, however that ends; where the blocks are
// is known in memory only. One goroutine writes. The methods may be called on nil, which keeps nothing.
type disk struct {
	size    int64
	file    *os.File
	seed    maphash.Seed
	log     *zap.Logger
	metrics *metrics
	wake    chan struct{} // has room for one
	done    chan struct{}
	buf     []byte // of the goroutine that writes

	mu      sync.Mutex
	places  map[uint64]place // by the hash of object and index; the record says whose it is
	records []record         // in the order in which they were written, from oldest
	oldest  int
	at      int64 // where the next is written
	used    int64 // bytes of records
	highest int   // index of any block kept
	queue   []queued
	writing *queued
	off     time.Time // until when the disk is left alone
	closed  bool
}

// place is where a record lies.
type place struct {
	at     int64
	length int
}

// record is a place and the hash by which it was found, if it still is.
type record struct {
	place
	hash uint64
}

// queued is a block to be written.
type queued struct {
	id objectID
	block
	dropped bool
}

// openDisk returns nil if there is no room to keep anything in dir.
func openDisk(dir string, size int64, log *zap.Logger, m *metrics) *disk {
	file, err := createFile(dir)
	if err != nil {
		m.diskErrors.Inc()
		log.Warn("cache folder cannot be used; nothing is kept on disk", zap.Error(err))
		return nil
	}
	d := newDisk(file, size, log, m)
	go d.write()
	return d
}

func newDisk(file *os.File, size int64, log *zap.Logger, m *metrics) *disk {
	return &disk{
		size: size, file: file, seed: maphash.MakeSeed(), log: log, metrics: m,
		wake: make(chan struct{}, 1), done: make(chan struct{}), places: make(map[uint64]place),
	}
}

func createFile(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(dir, "cache-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// close ends the writing, and with it the file. Nobody reads any more.
func (d *disk) close() {
	if d == nil {
		return
	}
	d.mu.Lock()
	d.closed = true
	close(d.wake)
	d.mu.Unlock()
	<-d.done
	if err := d.file.Close(); err != nil {
		d.log.Warn("close cache file", zap.Error(err))
	}
}

func (d *disk) hash(id objectID, index int) uint64 {
	return maphash.Comparable(d.seed, struct {
		id    objectID
		index int
	}{id, index})
}

// get returns a block; nil if it is not there.
func (d *disk) get(id objectID, index int) []byte {
	if d == nil {
		return nil
	}
	hash := d.hash(id, index)
	d.mu.Lock()
	p, ok := d.places[hash]
	ok = ok && time.Now().After(d.off)
	d.mu.Unlock()
	if !ok {
		return nil
	}
	buf := make([]byte, p.length)
	_, err := d.file.ReadAt(buf, p.at)
	if err == nil {
		err = checkRecord(buf, id, index)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.places[hash] != p {
		return nil // dropped, or written over while it was read
	}
	if err != nil {
		delete(d.places, hash)
		if !errors.Is(err, errOther) {
			d.fail("read", err)
		}
		return nil
	}
	return buf[headSize:]
}

// errOther: the record is sound, and of another block, whose hash is the same.
var errOther = errors.New("record of another block")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendRecord appends the record of a block to b, which is empty.
func appendRecord(b []byte, id objectID, index int, data []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(id.account))
	b = append(b, id.object[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(index))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	sum := crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, data)
	b = binary.LittleEndian.AppendUint32(b, sum)
	return append(b, data...)
}

// checkRecord says whether a record is that of a block, and as it was written.
func checkRecord(b []byte, id objectID, index int) error {
	const sumAt = headSize - crc32.Size
	sum := crc32.Update(crc32.Checksum(b[:sumAt], castagnoli), castagnoli, b[headSize:])
	if sum != binary.LittleEndian.Uint32(b[sumAt:]) || int(binary.LittleEndian.Uint32(b[sumAt-4:])) != len(b)-headSize {
		return errors.New("a block does not match its checksum")
	}
	if int64(binary.LittleEndian.Uint64(b)) != id.account || [16]byte(b[8:24]) != id.object || int(binary.LittleEndian.Uint32(b[24:])) != index {
		return errOther
	}
	return nil
}

// add has blocks written, soon.
func (d *disk) add(id objectID, blocks []block) {
	if d == nil || len(blocks) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range blocks {
		if d.closed || len(d.queue) == maxQueue || int64(headSize+len(b.data)) > d.size || time.Now().Before(d.off) {
			return
		}
		d.queue = append(d.queue, queued{id: id, block: b})
	}
	select {
	case d.wake <- struct{}{}:
	default: // it will look once more anyway
	}
}

// drop forgets an object, and what is to be written of it.
func (d *disk) drop(id objectID) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.queue {
		d.queue[i].dropped = d.queue[i].dropped || d.queue[i].id == id
	}
	if d.writing != nil && d.writing.id == id {
		d.writing.dropped = true
	}
	for index := range d.highest + 1 {
		delete(d.places, d.hash(id, index))
	}
}

func (d *disk) write() {
	defer close(d.done)
	for range d.wake {
		for d.writeNext() {
		}
	}
}

// writeNext writes a block of the queue; false if there is none.
func (d *disk) writeNext() bool {
	q, at, ok := d.next()
	if ok {
		d.buf = appendRecord(d.buf[:0], q.id, q.index, q.data)
		_, err := d.file.WriteAt(d.buf, at)
		d.wrote(q, at, err)
	}
	return ok
}

// next takes a block from the queue and makes room for it: what lay there is not found any more.
func (d *disk) next() (q *queued, at int64, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.queue) > 0 && (d.queue[0].dropped || d.closed) {
		d.queue = d.queue[1:]
	}
	if len(d.queue) == 0 {
		d.queue = nil
		return nil, 0, false
	}
	first := d.queue[0]
	d.queue[0] = queued{}
	d.queue = d.queue[1:]
	length := int64(headSize + len(first.data))
	if d.at+length > d.size {
		for d.oldest < len(d.records) && d.records[d.oldest].at >= d.at {
			d.evict()
		}
		d.at = 0
	}
	for d.oldest < len(d.records) && d.records[d.oldest].overlaps(d.at, length) {
		d.evict()
	}
	d.writing = &first
	return d.writing, d.at, true
}

func (p place) overlaps(at, length int64) bool {
	return p.at < at+length && at < p.at+int64(p.length)
}

// evict gives up the oldest record.
func (d *disk) evict() {
	r := d.records[d.oldest]
	d.oldest++
	if d.oldest > len(d.records)/2 {
		d.records, d.oldest = append(d.records[:0], d.records[d.oldest:]...), 0
	}
	d.used -= int64(r.length)
	if d.places[r.hash] == r.place {
		delete(d.places, r.hash)
		d.metrics.diskEvictions.Inc()
	}
}

// wrote notes where a block has been written.
func (d *disk) wrote(q *queued, at int64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writing = nil
	if err != nil {
		d.queue = nil
		d.fail("write", err)
		return
	}
	r := record{place{at, headSize + len(q.data)}, d.hash(q.id, q.index)}
	d.at += int64(r.length)
	d.used += int64(r.length)
	d.records = append(d.records, r)
	if !q.dropped {
		d.places[r.hash] = r.place
		d.highest = max(d.highest, q.index)
	}
}

// fail leaves the disk alone for a while. It is called under the lock.
func (d *disk) fail(what string, err error) {
	d.metrics.diskErrors.Inc()
	if now := time.Now(); now.After(d.off) {
		d.off = now.Add(diskPause)
		d.log.Warn("cache disk failed; it is left alone for a while", zap.Duration("pause", diskPause), zap.Error(fmt.Errorf("%s: %w", what, err)))
	}
}

// bytes is how much is kept.
func (d *disk) bytes() float64 {
	if d == nil {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return float64(d.used)
}
