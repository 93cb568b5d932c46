package chaos

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// A gateway answers as it was told to, and otherwise as the server does.
func TestGateway(t *testing.T) {
	t.Parallel()
	object := bytes.Repeat([]byte("0123456789abcdef"), 1000)
	var done atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		done.Add(1)
		_, _ = w.Write(object) // or the gateway has gone
	}))
	defer server.Close()
	g, err := NewGateway(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close() //nolint:errcheck // it listens on its own
	ask := func(method string, wait time.Duration) (status int, body []byte, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, method, "http://"+g.Addr()+"/bucket/object", nil)
		if err != nil {
			return 0, nil, err
		}
		res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			return 0, nil, err
		}
		defer res.Body.Close()
		body, err = io.ReadAll(res.Body)
		return res.StatusCode, body, err
	}
	for _, c := range []struct {
		mischief Mischief
		method   string
		passes   bool // to the server
		holds    func(status int, body []byte, err error) bool
	}{
		{Honest, http.MethodGet, true, func(_ int, body []byte, err error) bool { return err == nil && bytes.Equal(body, object) }},
		{Fails, http.MethodGet, false, func(status int, _ []byte, _ error) bool { return status == http.StatusInternalServerError }},
		{Refuses, http.MethodPut, false, func(status int, _ []byte, _ error) bool { return status == http.StatusServiceUnavailable }},
		{Hangs, http.MethodPut, false, func(_ int, _ []byte, err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
		{Forgets, http.MethodPut, true, func(_ int, _ []byte, err error) bool { return err != nil && !errors.Is(err, context.DeadlineExceeded) }},
		{Dribbles, http.MethodGet, true, func(_ int, body []byte, err error) bool {
			return errors.Is(err, context.DeadlineExceeded) && len(body) > 0 && len(body) < len(object)
		}},
		{Shortens, http.MethodGet, true, func(_ int, body []byte, err error) bool { return err != nil && len(body) < len(object) }},
		{Garbles, http.MethodGet, true, func(_ int, body []byte, err error) bool {
			return err == nil && len(body) == len(object) && !bytes.Equal(body, object)
		}},
	} {
		g.Set(c.mischief, 100)
		before, counted := done.Load(), g.Count(c.mischief)
		wait := commandTime
		if c.mischief == Hangs || c.mischief == Dribbles {
			wait = 300 * time.Millisecond
		}
		status, body, err := ask(c.method, wait)
		if !c.holds(status, body, err) || (done.Load() > before) != c.passes || g.Count(c.mischief) != counted+1 {
			t.Errorf("%d: status %d, %d octets, %v; %d requests passed on, %d counted", c.mischief, status, len(body), err, done.Load()-before, g.Count(c.mischief)-counted)
		}
	}
}
