package blobtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"starling/blobstore"
)

// Open gives an empty store for one subtest.
type Open func(t *testing.T) blobstore.Store

// account is the account of all keys in the suite that do not say otherwise; its highest bit but one is set, as in a
// real one.
const account = 0x5a17_0000_0000_00ff

// Run runs the suite. Subtests run in parallel, each with a store of its own.
func Run(t *testing.T, open Open) {
	for _, group := range [][]subtest{putTests, uploadTests, getTests, deleteTests, listTests, versionTests, contextTests} {
		for _, s := range group {
			t.Run(s.sentence, func(t *testing.T) {
				t.Parallel()
				s.run(t, open(t))
			})
		}
	}
}

type subtest struct {
	sentence string
	run      func(t *testing.T, s blobstore.Store)
}

// Bytes returns n bytes that look random and are the same for the same n.
func Bytes(n int) []byte {
	b := make([]byte, n)
	seed := sha256.Sum256([]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
	rand.NewChaCha8(seed).Read(b)
	return b
}

func put(t *testing.T, s blobstore.Store, key blobstore.Key, data []byte) blobstore.PutResult {
	t.Helper()
	res, err := s.Put(t.Context(), key, bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatalf("Put(%s, %d bytes): %v", key, len(data), err)
	}
	return res
}

func get(ctx context.Context, s blobstore.Store, key blobstore.Key, offset, length int64) ([]byte, error) {
	r, err := s.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

func wantObject(t *testing.T, s blobstore.Store, key blobstore.Key, want []byte) {
	t.Helper()
	got, err := get(t.Context(), s, key, 0, -1)
	if err != nil {
		t.Fatalf("Get(%s): %v", key, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("Get(%s): %d bytes that are not the %d put", key, len(got), len(want))
	}
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: error %v, want %v", what, err, want)
	}
}

func wantAbsent(t *testing.T, s blobstore.Store, key blobstore.Key) {
	t.Helper()
	_, err := get(t.Context(), s, key, 0, -1)
	wantError(t, "Get of an object that must not be there", err, blobstore.ErrNotFound)
	if keys := list(t, s, string(key), ""); len(keys) != 0 {
		t.Fatalf("List shows %v, which must not be there", keys)
	}
}

func list(t *testing.T, s blobstore.Store, prefix, after string) []blobstore.Key {
	t.Helper()
	var keys []blobstore.Key
	for info, err := range s.List(t.Context(), prefix, after) {
		if err != nil {
			t.Fatalf("List(%q, %q): %v", prefix, after, err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

func named(t *testing.T, account int64, name string) blobstore.Key {
	t.Helper()
	key, err := blobstore.NameKey(account, name)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
