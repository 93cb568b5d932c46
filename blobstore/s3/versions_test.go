package s3_test

import (
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"starling/blobstore"
	"starling/blobstore/s3/s3test"
)

// In a bucket that keeps versions nothing is left of a prefix either.
func TestDeletingVersionsEndsInNothing(t *testing.T) {
	t.Parallel()
	conf := s3test.New(t)
	client, err := minio.New(strings.TrimPrefix(conf.Endpoint, "http://"), &minio.Options{Creds: credentials.NewStaticV4(conf.AccessKey, conf.SecretKey, "")})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.EnableVersioning(t.Context(), conf.Bucket); err != nil {
		t.Fatal(err)
	}
	s, key := open(t, conf), blobstore.NewKey(1)
	for _, data := range []string{"first", "second"} {
		if err := putBytes(t, s, key, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	count := func(remove bool) (n int) {
		for v, err := range s.Versions(t.Context(), blobstore.AccountPrefix(1)) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; remove {
				if err := s.DeleteVersion(t.Context(), v); err != nil {
					t.Fatal(err)
				}
			}
		}
		return n
	}
	if n := count(true); n != 3 { // two, and the mark that they were deleted
		t.Errorf("%d versions, want 3", n)
	}
	if n := count(false); n != 0 {
		t.Errorf("%d versions were left", n)
	}
}
