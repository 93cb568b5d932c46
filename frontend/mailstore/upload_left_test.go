package mailstore_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"

	"starling/blobstore/s3"
	"starling/blobstore/s3/s3test"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// line is the way from a node to its S3 server. It can be cut, as if the node had died: nothing that it
// does from then on arrives.
type line struct {
	conf  s3.Config // of a store at its end
	front *httptest.Server
	parts chan struct{} // closed once a part of an object was stored
}

func newLine(t *testing.T, conf s3.Config) *line {
	t.Helper()
	target, err := url.Parse(conf.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	l := &line{conf: conf, parts: make(chan struct{})}
	var first sync.Once
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host }, // the signature covers the Host
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode == http.StatusOK && r.Request.URL.Query().Has("partNumber") {
				first.Do(func() { close(l.parts) })
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	l.front = httptest.NewServer(proxy)
	t.Cleanup(l.front.Close)
	l.conf.Endpoint, l.conf.Attempts = l.front.URL, 1
	return l
}

func (l *line) cut() {
	l.front.CloseClientConnections()
	l.front.Close()
}

func openS3(t *testing.T, conf s3.Config) *s3.Store {
	t.Helper()
	store, err := s3.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store
}

// largeMail does not get smaller by compressing it, and is of several parts.
func largeMail(t *testing.T) string {
	t.Helper()
	b := make([]byte, 12<<20)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return "From: a@example.org\r\nSubject: large\r\n\r\n" + base64.StdEncoding.EncodeToString(b) + "\r\n"
}

// begin takes in most of a message, until the object store has a part of it.
func begin(t *testing.T, a *mailstore.Account, text string, parts <-chan struct{}) *mailstore.Upload {
	t.Helper()
	u, err := a.Upload(t.Context(), mailstore.Incoming{Mailbox: "INBOX"}, int64(len(text)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Discard)
	if _, err := io.WriteString(u, text[:len(text)-100]); err != nil {
		t.Fatal(err)
	}
	select {
	case <-parts:
	case <-time.After(time.Minute):
		t.Fatal("no part of the message was stored")
	}
	return u
}

// Two nodes take in a large message each, and one dies: what the object store has of its message goes when
// the time is over after which nothing can come of it, and not before. The other's is not touched.
func TestUploadsLeftBehindAreEnded(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{})
	conf := s3test.New(t)
	direct, dying, living := openS3(t, conf), newLine(t, conf), newLine(t, conf)
	node := func(l *line) *mailstore.Account {
		a, _ := s.open(s.store(func(c *mailstore.Config) { c.Blobs = openS3(t, l.conf) }), "INBOX", func() {})
		return a
	}
	collect := func(grace time.Duration) mailstore.CollectReport {
		t.Helper()
		return s.collect(s.store(func(c *mailstore.Config) { c.Blobs, c.OrphanGrace = direct, grace }), s.account.ID)
	}
	text := largeMail(t)
	begin(t, node(dying), text, dying.parts)
	dying.cut()
	survivor := node(living)
	u := begin(t, survivor, text, living.parts)

	if got, want := collect(72*time.Hour), (mailstore.CollectReport{Scanned: 1}); got != want {
		t.Errorf("while it may still become a message: collected %+v, want %+v", got, want)
	}
	if _, err := io.WriteString(u, text[len(text)-100:]); err != nil {
		t.Fatal(err)
	}
	if done, err := u.Append(t.Context(), nil); err != nil || done.UID != 1 {
		t.Fatalf("the other node's message: %+v, %v", done, err)
	}
	if got, want := collect(time.Nanosecond), (mailstore.CollectReport{Scanned: 1, Uploads: 1}); got != want {
		t.Errorf("after its time: collected %+v, want %+v", got, want)
	}
	if got, want := collect(time.Nanosecond), (mailstore.CollectReport{Scanned: 1}); got != want {
		t.Errorf("once more: collected %+v, want %+v", got, want)
	}
	if n, err := direct.EndUploads(t.Context(), "", time.Time{}); err != nil || n > 0 {
		t.Errorf("%d uploads are left, %v", n, err)
	}
	s.readsAs(survivor, 1, text)
}

// readsAs reads a message of INBOX and compares it.
func (s *site) readsAs(a *mailstore.Account, uid uint32, text string) {
	s.t.Helper()
	box, err := a.Open(s.t.Context(), "INBOX", func() {})
	if err != nil {
		s.t.Fatal(err)
	}
	defer box.Close()
	var got bytes.Buffer
	ctx := context.WithoutCancel(s.t.Context())
	err = box.Messages(ctx, uids(uid, uid), metadata.ColBlob|metadata.ColSize, func(m *metadata.Message) error {
		body, err := box.Body(m)
		if err != nil {
			return err
		}
		defer body.Close()
		return body.ReadRange(ctx, &got, 0, body.Size())
	})
	if err != nil || got.String() != text {
		s.t.Errorf("message %d has %d octets that are not what was sent, %d; %v", uid, got.Len(), len(text), err)
	}
}
