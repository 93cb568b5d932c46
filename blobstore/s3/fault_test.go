package s3_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"starling/blobstore"
	"starling/blobstore/blobtest"
	"starling/blobstore/s3"
	"starling/blobstore/s3/s3test"
)

// network stands between a store and a real server. Its fault sees every request, and may answer it, or break it off, in the
// server's place.
type network struct {
	conf s3.Config // of a store behind this network

	mu    sync.Mutex
	seen  []string // "PUT", "GET bytes=0-9", …
	fault fault
}

// fault is called with the number of requests before this one. It returns false if the request is to go its way.
type fault func(n int, w http.ResponseWriter, r *http.Request, server http.Handler) bool

func newNetwork(t *testing.T, serve func(http.Handler) *httptest.Server) *network {
	t.Helper()
	n := &network{conf: s3test.New(t)}
	target, err := url.Parse(n.conf.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host }, // the signature covers the Host
		Transport: &http.Transport{DisableCompression: true},
		// A request that a test breaks off is no news.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	front := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		count, fault := len(n.seen), n.fault
		n.seen = append(n.seen, strings.TrimSpace(r.Method+" "+r.Header.Get("Range")))
		n.mu.Unlock()
		if fault == nil || !fault(count, w, r, proxy) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(front.Close)
	n.conf.Endpoint = front.URL
	return n
}

// set counts requests anew from here on, and sends them through f.
func (n *network) set(f fault) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen, n.fault = nil, f
}

func (n *network) want(t *testing.T, seen ...string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if !slices.Equal(n.seen, seen) {
		t.Errorf("requests: %q, want %q", n.seen, seen)
	}
}

// times makes a fault of f that strikes the first n requests.
func times(n int, f func(w http.ResponseWriter, r *http.Request, server http.Handler)) fault {
	return func(count int, w http.ResponseWriter, r *http.Request, server http.Handler) bool {
		if count >= n {
			return false
		}
		f(w, r, server)
		return true
	}
}

// status answers without a look at the request's body.
func status(code int, name string) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(code)
		io.WriteString(w, "<Error><Code>"+name+"</Code><Message>as the test wants it</Message></Error>")
	}
}

// lostAnswer does the request, and then breaks the connection.
func lostAnswer(_ http.ResponseWriter, r *http.Request, server http.Handler) {
	server.ServeHTTP(httptest.NewRecorder(), r)
	panic(http.ErrAbortHandler)
}

// halfRequest reads some of the request, and then breaks the connection.
func halfRequest(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
	io.CopyN(io.Discard, r.Body, r.ContentLength/2)
	panic(http.ErrAbortHandler)
}

// cutAt lets n bytes of the answer's body through, and then calls end.
func cutAt(n int, end func(r *http.Request)) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, server http.Handler) {
		rec := httptest.NewRecorder()
		server.ServeHTTP(rec, r)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
		w.WriteHeader(rec.Code)
		w.Write(rec.Body.Bytes()[:min(n, rec.Body.Len())])
		http.NewResponseController(w).Flush()
		end(r)
		panic(http.ErrAbortHandler)
	}
}

func broken(*http.Request) {}

// hangs keeps the connection until the other side gives up, which a server sees only once it has read the request.
func hangs(r *http.Request) {
	io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

func putBytes(t *testing.T, s *s3.Store, key blobstore.Key, data []byte) error {
	t.Helper()
	_, err := s.Put(t.Context(), key, bytes.NewReader(data), int64(len(data)))
	return err
}

func getBytes(ctx context.Context, s *s3.Store, key blobstore.Key, offset, length int64) ([]byte, error) {
	r, err := s.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

func wantUnavailable(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, blobstore.ErrUnavailable) {
		t.Errorf("error %v, want ErrUnavailable", err)
	}
}

func TestEachCallIsOneRequest(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	s, key, data := open(t, n.conf), blobstore.NewKey(1), blobtest.Bytes(10_000)
	if err := putBytes(t, s, key, data); err != nil {
		t.Fatal(err)
	}
	if _, err := getBytes(t.Context(), s, key, 0, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := getBytes(t.Context(), s, key, 100, 50); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	n.want(t, "PUT", "GET", "GET bytes=100-149", "DELETE")
}

func TestPutIsRepeatedFromTheFirstByte(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	s := open(t, n.conf)
	for name, strike := range map[string]func(http.ResponseWriter, *http.Request, http.Handler){
		"503 SlowDown":      status(503, "SlowDown"),
		"500 InternalError": status(500, "InternalError"),
		"429":               status(429, "TooManyRequests"),
		"400 BadDigest":     status(400, "BadDigest"),
		"lost answer":       lostAnswer,
		"half a request":    halfRequest,
	} {
		for _, size := range []int{0, 3000, 3_000_000} {
			key, data := blobstore.NewKey(1), blobtest.Bytes(size)
			n.set(times(2, strike))
			if err := putBytes(t, s, key, data); err != nil {
				t.Errorf("%s, %d bytes: %v", name, size, err)
				continue
			}
			n.want(t, "PUT", "PUT", "PUT")
			if got, err := getBytes(t.Context(), s, key, 0, -1); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: got %d of %d bytes, %v", name, len(got), size, err)
			}
		}
	}
}

// tired can be rewound once after it has been read, for the hash and the first try, and never again.
type tired struct {
	*bytes.Reader
	read    bool
	rewinds int
}

func (r *tired) Read(p []byte) (int, error) {
	r.read = true
	return r.Reader.Read(p)
}

func (r *tired) Seek(offset int64, whence int) (int64, error) {
	if r.read {
		r.rewinds++
	}
	if r.rewinds > 1 {
		return 0, errors.New("read already")
	}
	return r.Reader.Seek(offset, whence)
}

func TestBodyThatCannotBeRewoundIsNeverAnEmptyObject(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	s, key := open(t, n.conf), blobstore.NewKey(1)
	n.set(times(1, halfRequest))
	_, err := s.Put(t.Context(), key, &tired{Reader: bytes.NewReader(blobtest.Bytes(300_000))}, 300_000)
	if !errors.Is(err, blobstore.ErrBody) {
		t.Errorf("error %v, want ErrBody", err)
	}
	n.want(t, "PUT")
	if _, err := s.Get(t.Context(), key, 0, -1); !errors.Is(err, blobstore.ErrNotFound) {
		t.Errorf("Get: %v, want ErrNotFound", err)
	}
}

func TestGetGoesOnWhereItBroke(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	n.conf.StallTimeout = 500 * time.Millisecond
	s, key, data := open(t, n.conf), blobstore.NewKey(1), blobtest.Bytes(200_000)
	if err := putBytes(t, s, key, data); err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(*http.Request){"broken": broken, "hangs": hangs} {
		n.set(times(2, cutAt(50_000, end)))
		if got, err := getBytes(t.Context(), s, key, 0, -1); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: got %d bytes, %v", name, len(got), err)
		}
		n.want(t, "GET", "GET bytes=50000-", "GET bytes=100000-")
		n.set(times(1, cutAt(50_000, end)))
		if got, err := getBytes(t.Context(), s, key, 1000, 100_000); err != nil || !bytes.Equal(got, data[1000:101_000]) {
			t.Errorf("%s: got %d bytes of a range, %v", name, len(got), err)
		}
		n.want(t, "GET bytes=1000-100999", "GET bytes=51000-100999")
	}
}

func TestGetThatCannotGoOnIsAnError(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	s, key, data := open(t, n.conf), blobstore.NewKey(1), blobtest.Bytes(200_000)
	if err := putBytes(t, s, key, data); err != nil {
		t.Fatal(err)
	}
	n.set(func(count int, w http.ResponseWriter, r *http.Request, server http.Handler) bool {
		cutAt(max(0, 50_000*(1-count)), broken)(w, r, server)
		return true
	})
	got, err := getBytes(t.Context(), s, key, 0, -1)
	wantUnavailable(t, err)
	if !bytes.Equal(got, data[:50_000]) {
		t.Errorf("got %d bytes, want the first 50,000", len(got))
	}
}

func TestGetNeverMixesTwoObjects(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	s := open(t, n.conf)
	key, err := blobstore.NameKey(1, "mailboxes")
	if err != nil {
		t.Fatal(err)
	}
	if err := putBytes(t, s, key, bytes.Repeat([]byte("a"), 200_000)); err != nil {
		t.Fatal(err)
	}
	n.set(times(1, cutAt(50_000, func(*http.Request) {
		if err := putBytes(t, s, key, bytes.Repeat([]byte("b"), 200_000)); err != nil {
			t.Error(err)
		}
	})))
	got, err := getBytes(t.Context(), s, key, 0, -1)
	wantUnavailable(t, err)
	if bytes.Contains(got, []byte("b")) {
		t.Error("bytes of the second object follow those of the first")
	}
}

func TestRangeThatIsIgnoredIsAnError(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	s, key := open(t, n.conf), blobstore.NewKey(1)
	if err := putBytes(t, s, key, blobtest.Bytes(1000)); err != nil {
		t.Fatal(err)
	}
	n.set(times(1, func(w http.ResponseWriter, r *http.Request, server http.Handler) {
		r.Header.Del("Range")
		server.ServeHTTP(w, r)
	}))
	got, err := getBytes(t.Context(), s, key, 500, 10)
	wantUnavailable(t, err)
	if len(got) != 0 {
		t.Errorf("got %d bytes that were not asked for", len(got))
	}
}

func TestServerThatIsAwayIsUnavailable(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	n.conf.StallTimeout, n.conf.Attempts = 100*time.Millisecond, 2
	s := open(t, n.conf)
	for name, c := range map[string]struct {
		strike   func(http.ResponseWriter, *http.Request, http.Handler)
		attempts int
	}{
		"503":   {status(503, "SlowDown"), 2},
		"break": {halfRequest, 2},
		"hangs": {func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { hangs(r) }, 2},
		"403":   {status(403, "AccessDenied"), 1},
		"501":   {status(501, "NotImplemented"), 1},
	} {
		key := blobstore.NewKey(1)
		calls := map[string]func() error{
			"PUT": func() error { return putBytes(t, s, key, []byte("x")) },
			"GET": func() error { _, err := s.Get(t.Context(), key, 0, -1); return err },
			"DELETE": func() error {
				return s.Delete(t.Context(), key)
			},
		}
		for method, call := range calls {
			n.set(times(100, c.strike))
			err := call()
			if !errors.Is(err, blobstore.ErrUnavailable) {
				t.Errorf("%s, %s: %v, want ErrUnavailable", name, method, err)
			}
			if name == "break" && method == "GET" {
				// net/http itself sends a GET again if a connection that had served before breaks without an answer.
				n.mu.Lock()
				if got := len(n.seen); got < c.attempts || got > 2*c.attempts {
					t.Errorf("%d requests, want %d to %d", got, c.attempts, 2*c.attempts)
				}
				n.mu.Unlock()
				continue
			}
			n.want(t, slices.Repeat([]string{method}, c.attempts)...)
		}
	}
}

func TestDeadlineOfTheWholeCall(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	n.conf.Deadline, n.conf.Attempts = 300*time.Millisecond, 1000
	s := open(t, n.conf)
	n.set(times(1000, status(503, "SlowDown")))
	err := putBytes(t, s, blobstore.NewKey(1), []byte("x"))
	wantUnavailable(t, err)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want DeadlineExceeded", err)
	}
}

func TestListingGoesOnAfterAFault(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	s := open(t, n.conf)
	var want []blobstore.Key
	for range 20 {
		key := blobstore.NewKey(1)
		want = append(want, key)
		if err := putBytes(t, s, key, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	for name, strike := range map[string]func(http.ResponseWriter, *http.Request, http.Handler){
		"500": status(500, "InternalError"), "cut": cutAt(700, broken), "lost": lostAnswer,
	} {
		n.set(times(2, strike))
		var got []blobstore.Key
		for info, err := range s.List(t.Context(), "", "") {
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got = append(got, info.Key)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %d objects, want %d", name, len(got), len(want))
		}
	}
}

func TestAnswerWithoutDateIsRefused(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	s := open(t, n.conf)
	n.set(times(100, func(w http.ResponseWriter, r *http.Request, server http.Handler) {
		server.ServeHTTP(httptest.NewRecorder(), r)
		w.Header()["Date"] = nil
		w.WriteHeader(200)
	}))
	wantUnavailable(t, putBytes(t, s, blobstore.NewKey(1), []byte("x")))
	n.want(t, "PUT")
}

func TestTLS(t *testing.T) {
	t.Parallel()
	var cert *x509.Certificate
	n := newNetwork(t, func(h http.Handler) *httptest.Server {
		server := httptest.NewUnstartedServer(h)
		server.Config.ErrorLog = log.New(io.Discard, "", 0) // the handshakes that are meant to end
		server.StartTLS()
		cert = server.Certificate()
		return server
	})
	n.conf.Attempts = 2
	key, data := blobstore.NewKey(1), blobtest.Bytes(300_000)
	err := putBytes(t, open(t, n.conf), key, data)
	wantUnavailable(t, err)
	n.want(t)

	n.conf.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	if err := os.WriteFile(n.conf.CAFile, block, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, n.conf)
	n.set(times(1, halfRequest))
	if err := putBytes(t, s, key, data); err != nil {
		t.Fatal(err)
	}
	n.want(t, "PUT", "PUT")
	if got, err := getBytes(t.Context(), s, key, 0, -1); err != nil || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}
