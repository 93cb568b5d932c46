package cache

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"go.uber.org/zap"

	"starling/blobstore"
)

// block is a block of an object: BlockSize bytes, or fewer where the object ends.
type block struct {
	index int
	data  []byte
}

// A flight fetches blocks that follow each other, for all who want one of them. It ends when it has them, or when nobody
// waits any more: it does not hang on the context of the one who began it.
type flight struct {
	id         objectID
	key        blobstore.Key
	first, end int
	cancel     context.CancelFunc

	// Under Store.mu.
	waiters int
	dropped bool // nothing of it is to be kept

	// Set before done is closed, and never changed after.
	done   chan struct{}
	blocks [][]byte // of the same length; short or nil where something is missing
	kept   []block  // of those, what is whole and not on the disk
	read   []block  // of those, what was on the disk
	missed bool     // the store below was asked
	err    error    // why something is missing; nil if the object has no more
}

// blocks returns the blocks from first up to end. Where the object ends they are short or nil; with an error, also where
// nothing could be had.
func (s *Store) blocks(ctx context.Context, id objectID, key blobstore.Key, first, end int) ([][]byte, error) {
	blocks := make([][]byte, end-first)
	if s.memory.fill(id, first, blocks) {
		s.metrics.memoryHits.Inc()
		return blocks, nil
	}
	flights := s.join(ctx, id, key, first, blocks)
	defer s.leave(flights)
	missed := false
	var err error
	for _, f := range flights {
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("get %s: %w", key, blobstore.ContextError(ctx))
		}
		for i, data := range f.blocks {
			if at := f.first + i - first; at >= 0 && at < len(blocks) && blocks[at] == nil {
				blocks[at] = data
			}
		}
		missed = missed || f.missed
		if err == nil {
			err = f.err
		}
	}
	s.metrics.count(len(flights) > 0, missed)
	return blocks, err
}

// join finds who fetches the blocks that are nil, and lets fetch those that nobody does.
func (s *Store) join(ctx context.Context, id objectID, key blobstore.Key, first int, blocks [][]byte) []*flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.memory.fill(id, first, blocks) {
		return nil // a flight has ended since the last look
	}
	var flights []*flight
	for i := 0; i < len(blocks); {
		if blocks[i] != nil {
			i++
			continue
		}
		f := s.flight(id, first+i)
		if f == nil {
			end := i + 1
			for end < len(blocks) && blocks[end] == nil && s.flight(id, first+end) == nil {
				end++
			}
			f = s.start(ctx, id, key, first+i, first+end)
		}
		f.waiters++
		flights = append(flights, f)
		i = f.end - first
	}
	return flights
}

// flight is the one that fetches a block; nil if there is none.
func (s *Store) flight(id objectID, index int) *flight {
	for _, f := range s.flights[id] {
		if f.first <= index && index < f.end {
			return f
		}
	}
	return nil
}

func (s *Store) start(ctx context.Context, id objectID, key blobstore.Key, first, end int) *flight {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight{id: id, key: key, first: first, end: end, cancel: cancel, done: make(chan struct{}), blocks: make([][]byte, end-first)}
	s.flights[id] = append(s.flights[id], f)
	s.flying.Go(func() {
		defer cancel()
		defer s.land(f)
		defer s.recoverInto(f)
		s.fly(ctx, f)
	})
	return f
}

// recoverInto makes an error for those who wait of a panic, which would end the process: each of them would have lost no
// more than his connection if he had called the store below himself.
func (s *Store) recoverInto(f *flight) {
	if p := recover(); p != nil {
		s.log.Error("panic while an object was fetched", zap.Any("panic", p), zap.Stack("stack"))
		f.kept, f.err = nil, fmt.Errorf("get %s: panic: %v", f.key, p)
	}
}

// leave is called once by each who has joined. The last one to leave ends what is not done.
func (s *Store) leave(flights []*flight) {
	if len(flights) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range flights {
		f.waiters--
		if f.waiters == 0 {
			f.dropped = true
			s.remove(f)
			f.cancel()
		}
	}
}

// land keeps what was fetched, and lets those who wait go on.
func (s *Store) land(f *flight) {
	s.mu.Lock()
	if !f.dropped {
		s.memory.add(f.id, f.read)
		s.memory.add(f.id, f.kept)
		s.disk.add(f.id, f.kept)
		s.remove(f)
	}
	s.mu.Unlock()
	close(f.done)
}

// remove takes a flight from the table. It may be gone already.
func (s *Store) remove(f *flight) {
	rest := slices.DeleteFunc(s.flights[f.id], func(g *flight) bool { return g == f })
	if len(rest) == 0 {
		delete(s.flights, f.id)
		return
	}
	s.flights[f.id] = rest
}

// fly takes from the disk what is there, and asks the store below for each run of blocks that is not.
func (s *Store) fly(ctx context.Context, f *flight) {
	for i := range f.blocks {
		if f.blocks[i] = s.disk.get(f.id, f.first+i); f.blocks[i] != nil {
			f.read = append(f.read, block{f.first + i, f.blocks[i]})
		}
	}
	for i := 0; i < len(f.blocks); {
		end := i
		for end < len(f.blocks) && f.blocks[end] == nil {
			end++
		}
		if end == i {
			i++
			continue
		}
		f.missed = true
		if err := s.fetch(ctx, f, i, end); err != nil {
			if !ended(err) {
				f.err = err
			}
			return
		}
		i = end
	}
}

// buffers are of BlockSize. Most objects are smaller, and kept in no more memory than they need.
var buffers = sync.Pool{New: func() any { return new([BlockSize]byte) }}

// fetch gets the blocks of a flight from i up to end with one request. Its error says why they are not all there.
func (s *Store) fetch(ctx context.Context, f *flight, i, end int) (err error) {
	r, err := s.inner.Get(ctx, f.key, int64(f.first+i)*BlockSize, int64(end-i)*BlockSize)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // what was read is right, or its error is known
	for ; i < end; i++ {
		buf := buffers.Get().(*[BlockSize]byte)
		n, err := io.ReadFull(r, buf[:])
		if n == BlockSize {
			f.blocks[i] = buf[:]
		} else {
			f.blocks[i] = slices.Clone(buf[:n])
			buffers.Put(buf)
		}
		if n > 0 && (err == nil || ended(err)) {
			f.kept = append(f.kept, block{f.first + i, f.blocks[i]})
		}
		if err != nil {
			return err
		}
	}
	return nil
}
