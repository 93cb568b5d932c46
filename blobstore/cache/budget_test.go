package cache_test

import (
	"sync"
	"testing"

	"starling/blobstore"
	"starling/blobstore/blobtest"
	"starling/blobstore/cache"
)

const (
	mail  = 10 << 20 // a large mail
	slice = 10 << 10 // what a phone reads of it at a time
)

// blocks is how many blocks a large mail has: so many GETs it may cost, and no more.
const blocks = mail / cache.BlockSize

func TestSlicesCostAGetForEachBlock(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"memory", "disk", "both"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, data := newBelow(), blobtest.Bytes(mail)
			s, key := open(t, b, shapes[name](t)), b.put(t, data)
			for at := 0; at < mail; at += slice {
				wantRange(t, s, key, data, at, slice)
			}
			if name == "disk" {
				return // what waits to be written is not found yet: how many GETs that costs is up to the disk
			}
			b.wantGets(t, blocks)
		})
	}
}

// A cache that is full of what is read often takes in a large mail that is read in slices, if not at the first GET.
func TestSlicesInAFullCache(t *testing.T) {
	t.Parallel()
	b := newBelow()
	s := open(t, b, cache.Config{Memory: 8 << 20})
	small := blobtest.Bytes(50_000)
	var often []blobstore.Key
	for range 200 {
		often = append(often, b.put(t, small))
	}
	for range 20 {
		for _, key := range often {
			wantRange(t, s, key, small, 100, 100)
		}
	}
	data := blobtest.Bytes(mail)
	key := b.put(t, data)
	b.gets.Store(0)
	for at := 0; at < mail; at += slice {
		wantRange(t, s, key, data, at, slice)
	}
	if got := b.gets.Load(); got > 2*blocks {
		t.Errorf("%d GETs of %d blocks", got, blocks)
	}
}

func TestConcurrentSlicesCostAGetForEachBlock(t *testing.T) {
	t.Parallel()
	b, data := newBelow(), blobtest.Bytes(mail)
	s, key := open(t, b, cache.Config{Memory: 128 << 20}), b.put(t, data)
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for at := 0; at < mail; at += slice {
				wantRange(t, s, key, data, at, slice)
			}
		})
	}
	clients.Wait()
	if got := b.gets.Load(); got != blocks {
		t.Errorf("%d GETs of %d blocks by 8 readers", got, blocks)
	}
}
