package s3_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"starling/blobstore"
	"starling/blobstore/blobtest"
	"starling/blobstore/s3"
	"starling/blobstore/s3/s3test"
)

func open(t testing.TB, conf s3.Config) *s3.Store {
	t.Helper()
	s, err := s3.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestStore(t *testing.T) {
	t.Parallel()
	conf := s3test.New(t)
	var n atomic.Int32
	blobtest.Run(t, func(t *testing.T) blobstore.Store {
		conf := conf
		conf.Prefix = fmt.Sprintf("test-%d", n.Add(1))
		return open(t, conf)
	})
}

func TestCheckBucket(t *testing.T) {
	t.Parallel()
	conf := s3test.New(t)
	if err := open(t, conf).CheckBucket(t.Context()); err != nil {
		t.Errorf("a bucket that is there: %v", err)
	}
	if err := open(t, conf).CreateBucket(t.Context()); err != nil {
		t.Errorf("a bucket that is there already: %v", err)
	}
	absent, refused, away := conf, conf, conf
	absent.Bucket = "no-such-bucket"
	refused.SecretKey = "wrong"
	away.Endpoint = "http://127.0.0.1:1"
	for want, conf := range map[string]s3.Config{"NoSuchBucket": absent, "SignatureDoesNotMatch": refused, "refused": away} {
		err := open(t, conf).CheckBucket(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that says %q", err, want)
		}
	}
}

func TestConfigErrorsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	good := s3.Config{Endpoint: "https://s3.example.org", Bucket: "mail"}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(c *s3.Config){
		"endpoint":   func(c *s3.Config) { c.Endpoint = "s3.example.org:9000" },
		"http://":    func(c *s3.Config) { c.Endpoint = "ftp://s3.example.org" },
		"https://":   func(c *s3.Config) { c.Endpoint = "https://s3.example.org/mail" },
		"bucket":     func(c *s3.Config) { c.Bucket = "" },
		"addressing": func(c *s3.Config) { c.Addressing = "dns" },
		"without":    func(c *s3.Config) { c.AccessKey = "a" },
		"one of":     func(c *s3.Config) { c.AccessKey, c.SecretKey, c.AccessKeyFile, c.SecretKeyFile = "a", "b", "c", "d" },
		"file":       func(c *s3.Config) { c.SecretKeyFile = "d" },
		"negative":   func(c *s3.Config) { c.Attempts = -1 },
		"CA file":    func(c *s3.Config) { c.CAFile = "/no/such/file" },
		"S3 key":     func(c *s3.Config) { c.AccessKeyFile, c.SecretKeyFile = "/no/such/file", "/no/such/file" },
	} {
		conf := good
		change(&conf)
		if _, err := s3.New(conf); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that says %q", err, want)
		}
	}
}

func TestKeysFromFiles(t *testing.T) {
	t.Parallel()
	conf := s3test.New(t)
	if conf.AccessKey == "" {
		t.Skip("the server's keys are in the environment only")
	}
	dir := t.TempDir()
	write := func(name, data string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(data+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	conf.AccessKeyFile, conf.SecretKeyFile = write("access", conf.AccessKey), write("secret", conf.SecretKey)
	conf.AccessKey, conf.SecretKey = "", ""
	if err := open(t, conf).CheckBucket(t.Context()); err != nil {
		t.Error(err)
	}
	write("secret", "wrong")
	if err := open(t, conf).CheckBucket(t.Context()); err == nil {
		t.Error("the file's wrong key was not used")
	}
}

// One connection shows whether what follows an empty body is taken for the next request.
func TestEmptyObjectsOnOneConnection(t *testing.T) {
	t.Parallel()
	conf := s3test.New(t)
	conf.MaxConns, conf.Attempts = 1, 1
	s := open(t, conf)
	for range 20 {
		for _, size := range []int{0, 10} {
			key := blobstore.NewKey(1)
			if err := putBytes(t, s, key, blobtest.Bytes(size)); err != nil {
				t.Fatal(err)
			}
			if got, err := getBytes(t.Context(), s, key, 0, -1); err != nil || len(got) != size {
				t.Fatalf("got %d of %d bytes, %v", len(got), size, err)
			}
		}
	}
}
