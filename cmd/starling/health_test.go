package main_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// health says what the node's /readyz does, and its exit status is for those who only ask yes or no.
func TestHealth(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		code   int
		answer string
		status int
	}{
		"ready":     {http.StatusOK, "ok\n", 0},
		"not ready": {http.StatusServiceUnavailable, "postgres: away\n", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet || r.URL.Path != "/readyz" {
					http.NotFound(w, r)
					return
				}
				w.WriteHeader(c.code)
				_, _ = w.Write([]byte(c.answer)) // the test fails if it does not arrive
			}))
			t.Cleanup(node.Close)
			listen := strings.TrimPrefix(node.URL, "http://127.0.0.1")
			for _, host := range []string{"127.0.0.1", "", "0.0.0.0"} {
				stdout, stderr, status := run(t, invocation{args: []string{"health"}, env: []string{"STARLING_ADMIN_LISTEN=" + host + listen}})
				if stdout != c.answer || status != c.status {
					t.Errorf("%s%s: %q and status %d, want %q and %d\n%s", host, listen, stdout, status, c.answer, c.status, stderr)
				}
			}
		})
	}
	_, stderr, status := run(t, invocation{args: []string{"health"}, env: []string{"STARLING_ADMIN_LISTEN=127.0.0.1:1"}})
	if status != 1 || !strings.Contains(stderr, "is the node ready") {
		t.Errorf("nobody there: status %d and %q", status, stderr)
	}
}
