package s3_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"starling/blobstore"
	"starling/blobstore/blobtest"
	"starling/blobstore/s3"
	"starling/blobstore/s3/s3test"
)

// BenchmarkRequest shows what a request costs this process: cpu-µs/op is its processor time. The servers are processes of
// their own: a real one, and one that only answers, without and with TLS.
func BenchmarkRequest(b *testing.B) {
	for _, server := range []struct {
		name string
		conf func(b *testing.B) s3.Config
	}{
		{"versitygw", func(b *testing.B) s3.Config { return s3test.New(b) }},
		{"answerer", func(b *testing.B) s3.Config { return answerer(b, "http") }},
		{"answerer-tls", func(b *testing.B) s3.Config { return answerer(b, "https") }},
	} {
		b.Run(server.name, func(b *testing.B) {
			s := open(b, server.conf(b))
			for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
				data, key := blobtest.Bytes(size), blobstore.NewKey(7)
				put := func() error {
					_, err := s.Put(b.Context(), key, bytes.NewReader(data), int64(size))
					return err
				}
				b.Run(fmt.Sprintf("put/%dKiB", size>>10), func(b *testing.B) { measure(b, size, put) })
				b.Run(fmt.Sprintf("get/%dKiB", size>>10), func(b *testing.B) {
					buf := make([]byte, size)
					measure(b, size, func() error {
						r, err := s.Get(b.Context(), key, 0, int64(size))
						if err != nil {
							return err
						}
						if _, err := io.ReadFull(r, buf); err != nil {
							return err
						}
						return r.Close()
					})
				})
			}
		})
	}
}

func measure(b *testing.B, size int, call func() error) {
	if err := call(); err != nil { // the connection is there, and the object
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(size))
	before := processorTime(b)
	for b.Loop() {
		if err := call(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

func processorTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// answererEnv has this program be a server that answers, with the scheme that it holds.
const answererEnv = "STARLING_TEST_S3_ANSWERER"

func TestMain(m *testing.M) {
	if scheme := os.Getenv(answererEnv); scheme != "" {
		answer(scheme)
		return
	}
	os.Exit(m.Run())
}

// answer tells where it listens, and answers until its input ends.
func answer(scheme string) {
	object := blobtest.Bytes(1 << 20)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("ETag", `"d41d8cd98f00b204e9800998ecf8427e"`)
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		if r.Method == http.MethodGet {
			last, _ := strconv.Atoi(strings.TrimPrefix(r.Header.Get("Range"), "bytes=0-"))
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", last, len(object)))
			w.Header().Set("Content-Length", strconv.Itoa(last+1))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(object[:last+1])
		}
	}))
	cert := ""
	if scheme == "https" {
		server.StartTLS()
		cert = base64.StdEncoding.EncodeToString(server.Certificate().Raw)
	} else {
		server.Start()
	}
	fmt.Println(server.URL, cert)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// answerer starts a server that only answers.
func answerer(b *testing.B, scheme string) s3.Config {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), answererEnv+"="+scheme)
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	url, cert, _ := strings.Cut(strings.TrimSpace(line), " ")
	conf := s3.Config{Endpoint: url, Bucket: "mail", AccessKey: "a", SecretKey: "b"}
	if cert != "" {
		der, err := base64.StdEncoding.DecodeString(cert)
		if err != nil {
			b.Fatal(err)
		}
		conf.CAFile = filepath.Join(b.TempDir(), "ca.pem")
		if err := os.WriteFile(conf.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return conf
}
