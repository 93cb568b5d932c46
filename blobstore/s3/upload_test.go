package s3_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"starling/blobstore"
	"starling/blobstore/blobtest"
	"starling/blobstore/s3"
)

// multipart tells the requests of a multipart upload apart from others.
func multipart(r *http.Request) string {
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodPost && q.Has("uploads"):
		return "create"
	case r.Method == http.MethodPost && q.Has("uploadId"):
		return "complete"
	case r.Method == http.MethodPut && q.Has("partNumber"):
		return "part " + q.Get("partNumber")
	case r.Method == http.MethodDelete && q.Has("uploadId"):
		return "abort"
	}
	return r.Method
}

// seen collects what requests of which kind there were. It lets all pass but those that strike is told to break.
type seen struct {
	mu    sync.Mutex
	kinds map[string]int
	first chan string // each kind, when it came for the first time
}

func watch(n *network, strike map[string]fault) *seen {
	s := &seen{kinds: make(map[string]int), first: make(chan string, 100)}
	n.set(func(_ int, w http.ResponseWriter, r *http.Request, server http.Handler) bool {
		kind := multipart(r)
		s.mu.Lock()
		count := s.kinds[kind]
		s.kinds[kind]++
		s.mu.Unlock()
		if count == 0 {
			s.first <- kind
		}
		f := strike[kind]
		return f != nil && f(count, w, r, server)
	})
	return s
}

// await waits until a request of that kind has come.
func (s *seen) await(kind string) {
	for k := range s.first {
		if k == kind {
			return
		}
	}
}

func (s *seen) want(t *testing.T, kinds map[string]int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got, want := fmt.Sprint(s.kinds), fmt.Sprint(kinds); got != want {
		t.Errorf("requests: %s, want %s", got, want)
	}
}

const mib = 1 << 20

// wantNoUploads waits for what goes on in the background, and looks for uploads that were not ended.
func wantNoUploads(t *testing.T, s *s3.Store) {
	t.Helper()
	s.Close()
	if n, err := s.EndUploads(t.Context(), "", time.Now().Add(time.Hour)); n != 0 || err != nil {
		t.Errorf("%d uploads were left, %v", n, err)
	}
}

func TestPartsAreSentWhileTheObjectComesIn(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	s, key, data := open(t, n.conf), blobstore.NewKey(1), blobtest.Bytes(12*mib)
	w := watch(n, nil)
	u := s.Upload(t.Context(), key, bytes.NewReader(data))
	u.Grown(5*mib - 1)
	u.Grown(5 * mib)
	w.await("part 1") // the rest has not come yet
	u.Grown(11 * mib)
	w.await("part 2")
	w.want(t, map[string]int{"create": 1, "part 1": 1, "part 2": 1})
	if _, err := u.Finish(t.Context(), 12*mib); err != nil {
		t.Fatal(err)
	}
	w.want(t, map[string]int{"create": 1, "part 1": 1, "part 2": 1, "part 3": 1, "complete": 1})
	if got, err := getBytes(t.Context(), s, key, 0, -1); err != nil || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	wantNoUploads(t, s)
}

func TestSmallUploadIsOnePut(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	s, key, data := open(t, n.conf), blobstore.NewKey(1), blobtest.Bytes(5*mib-1)
	u := s.Upload(t.Context(), key, bytes.NewReader(data))
	u.Grown(4 * mib)
	u.Grown(5*mib - 1)
	if _, err := u.Finish(t.Context(), 5*mib-1); err != nil {
		t.Fatal(err)
	}
	n.want(t, "PUT")
}

func TestAbortedUploadLeavesNothing(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	s, key, data := open(t, n.conf), blobstore.NewKey(1), blobtest.Bytes(11*mib)
	stored, held := make(chan struct{}), make(chan struct{})
	w := watch(n, map[string]fault{
		"part 1": func(_ int, w http.ResponseWriter, r *http.Request, next http.Handler) bool {
			next.ServeHTTP(w, r)
			close(stored)
			return true
		},
		"part 2": func(_ int, _ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			close(held)
			hangs(r)
			return true
		},
	})
	u := s.Upload(t.Context(), key, bytes.NewReader(data))
	u.Grown(11 * mib)
	<-stored // a part that a server is taking in may be there after the upload has ended
	<-held
	u.Abort()
	u.Abort()
	wantNoUploads(t, s)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.kinds["abort"] != 1 || w.kinds["complete"] != 0 {
		t.Errorf("requests: %v", w.kinds)
	}
}

// What fails while the object comes in is repeated, or the whole is put in the end: the object is right, and nothing is left.
func TestUploadSurvivesFaults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind   string
		strike fault
		puts   int
	}{
		"a part is repeated":         {"part 1", times(2, status(500, "InternalError")), 0},
		"a part breaks":              {"part 2", times(1, halfRequest), 0},
		"the answer to a part lost":  {"part 2", times(1, lostAnswer), 0},
		"a part is throttled":        {"part 3", times(2, status(503, "SlowDown")), 0},
		"create is repeated":         {"create", times(1, status(500, "InternalError")), 0},
		"create is not offered":      {"create", times(100, status(501, "NotImplemented")), 1},
		"a part never comes through": {"part 2", times(100, status(500, "InternalError")), 1},
		"complete is repeated":       {"complete", times(1, status(503, "SlowDown")), 0},
		"complete fails late":        {"complete", times(1, status(200, "InternalError")), 0},
		"the answer is lost":         {"complete", times(1, lostAnswer), 0}, // this server knows what it has completed
		"and the upload is gone": {"complete", func(count int, w http.ResponseWriter, r *http.Request, server http.Handler) bool {
			if count == 0 {
				lostAnswer(w, r, server)
			}
			status(404, "NoSuchUpload")(w, r, server)
			return true
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t, httptest.NewServer)
			s, key, data := open(t, n.conf), blobstore.NewKey(1), blobtest.Bytes(12*mib)
			w := watch(n, map[string]fault{c.kind: c.strike})
			u := s.Upload(t.Context(), key, bytes.NewReader(data))
			u.Grown(6 * mib)
			u.Grown(12 * mib)
			res, err := u.Finish(t.Context(), 12*mib)
			if err != nil || res.Date.IsZero() {
				t.Fatalf("%+v, %v", res, err)
			}
			if got, err := getBytes(t.Context(), s, key, 0, -1); err != nil || !bytes.Equal(got, data) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			s.Close()
			w.mu.Lock()
			if w.kinds["PUT"] != c.puts {
				t.Errorf("requests: %v", w.kinds)
			}
			w.mu.Unlock()
			n.set(nil)
			wantNoUploads(t, s)
		})
	}
}

// The age of an object is told from its Date, and of an upload some servers list the time at which it began.
func TestDateOfAnUploadIsThatOfItsBeginning(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	s, data := open(t, n.conf), blobtest.Bytes(6*mib)
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	watch(n, map[string]fault{"create": func(_ int, w http.ResponseWriter, r *http.Request, server http.Handler) bool {
		rec := httptest.NewRecorder()
		server.ServeHTTP(rec, r)
		w.Header().Set("Date", began.Format(http.TimeFormat))
		w.WriteHeader(rec.Code)
		io.Copy(w, rec.Body)
		return true
	}})
	u := s.Upload(t.Context(), blobstore.NewKey(1), bytes.NewReader(data))
	u.Grown(6 * mib)
	if res, err := u.Finish(t.Context(), 6*mib); err != nil || !res.Date.Equal(began) {
		t.Errorf("Date %v, %v, want %v", res.Date, err, began)
	}
}

func TestEndUploadsEndsWhatADeadNodeLeft(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	s, data := open(t, n.conf), blobtest.Bytes(6*mib)
	before := time.Now().Add(-time.Minute)
	for account := range int64(3) {
		w := watch(n, map[string]fault{"part 1": func(_ int, _ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			hangs(r)
			return true
		}})
		u := s.Upload(t.Context(), blobstore.NewKey(account), bytes.NewReader(data))
		defer u.Abort()
		u.Grown(6 * mib)
		w.await("part 1") // it has been begun then
	}
	n.set(nil)
	for _, c := range []struct {
		prefix string
		before time.Time
		want   int
	}{
		{"", before, 0},
		{blobstore.AccountPrefix(1), time.Now().Add(time.Hour), 1},
		{blobstore.AccountPrefix(1), time.Now().Add(time.Hour), 0},
		{"", time.Now().Add(time.Hour), 2},
	} {
		if n, err := s.EndUploads(t.Context(), c.prefix, c.before); n != c.want || err != nil {
			t.Errorf("%d ended of %q before %v, %v, want %d", n, c.prefix, c.before, err, c.want)
		}
	}
}

// A listing of uploads has pages, as one of objects has.
func TestEndUploadsReadsEveryPage(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	s := open(t, n.conf)
	var pages []string
	n.set(func(_ int, w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if r.Method == http.MethodDelete {
			pages = append(pages, "end "+r.URL.Query().Get("uploadId"))
			w.WriteHeader(http.StatusNoContent)
			return true
		}
		q := r.URL.Query()
		pages = append(pages, "list "+q.Get("key-marker")+" "+q.Get("upload-id-marker"))
		more := len(pages) == 1
		fmt.Fprintf(w, `<ListMultipartUploadsResult><IsTruncated>%v</IsTruncated><NextKeyMarker>k</NextKeyMarker>`+
			`<NextUploadIdMarker>i</NextUploadIdMarker><Upload><Key>k</Key><UploadId>i%d</UploadId>`+
			`<Initiated>2026-01-02T03:04:05Z</Initiated></Upload></ListMultipartUploadsResult>`, more, len(pages))
		return true
	})
	if ended, err := s.EndUploads(t.Context(), "", time.Now()); ended != 2 || err != nil {
		t.Errorf("%d ended, %v", ended, err)
	}
	if got, want := fmt.Sprintf("%q", pages), `["list  " "end i1" "list k i" "end i3"]`; got != want {
		t.Errorf("requests: %s, want %s", got, want)
	}
}
