package memory_test

import (
	"testing"

	"starling/blobstore"
	"starling/blobstore/blobtest"
	"starling/blobstore/memory"
)

func TestStore(t *testing.T) {
	t.Parallel()
	blobtest.Run(t, func(*testing.T) blobstore.Store { return memory.New() })
}
