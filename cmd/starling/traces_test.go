package main_test

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// span is what a collector was told of one.
type span struct {
	trace, id, parent string
	name, service     string
	kind              otlp.Span_SpanKind
	attributes        map[string]string
}

// spans is a collector for OpenTelemetry.
type spans struct {
	url string

	mu      sync.Mutex
	all     []span
	bad     error
	changed chan struct{}
}

func collectSpans(t *testing.T) *spans {
	t.Helper()
	s := &spans{changed: make(chan struct{})}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.take(r); err != nil {
			s.mu.Lock()
			s.bad = err
			s.mu.Unlock()
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *spans) take(r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if r.URL.Path != "/v1/traces" {
		return fmt.Errorf("spans are sent to %s", r.URL.Path)
	}
	var request collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(body, &request); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range request.ResourceSpans {
		service := ""
		for _, a := range resource.Resource.Attributes {
			if a.Key == "service.name" {
				service = a.Value.GetStringValue()
			}
		}
		for _, scope := range resource.ScopeSpans {
			for _, one := range scope.Spans {
				got := span{
					trace: hex.EncodeToString(one.TraceId), id: hex.EncodeToString(one.SpanId), parent: hex.EncodeToString(one.ParentSpanId),
					name: one.Name, service: service, kind: one.Kind, attributes: make(map[string]string),
				}
				for _, a := range one.Attributes {
					got.attributes[a.Key] = a.Value.String()
				}
				s.all = append(s.all, got)
			}
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// await waits until a trace has spans of these names, and returns its spans.
func (s *spans) await(t *testing.T, names ...string) []span {
	t.Helper()
	late := waitPatiently(t)
	for {
		s.mu.Lock()
		traces := make(map[string][]span)
		for _, one := range s.all {
			traces[one.trace] = append(traces[one.trace], one)
		}
		changed, bad := s.changed, s.bad
		s.mu.Unlock()
		if bad != nil {
			t.Fatal(bad)
		}
		for _, of := range traces {
			has := func(name string) bool {
				return slices.ContainsFunc(of, func(one span) bool { return strings.HasPrefix(one.name, name) })
			}
			if !slices.ContainsFunc(names, func(name string) bool { return !has(name) }) {
				return of
			}
		}
		select {
		case <-changed:
		case <-late:
			var all []string
			for _, of := range traces {
				for _, one := range of {
					all = append(all, one.trace[:6]+" "+one.name)
				}
			}
			slices.Sort(all)
			t.Fatalf("no trace has %q:\n%s", names, strings.Join(all, "\n"))
		}
	}
}

// A change on one node is one trace, up to the client that hears of it on another.
func TestTraces(t *testing.T) {
	t.Parallel()
	collected := collectSpans(t)
	c := newCluster(t, append(withS3(t), "STARLING_TRACES_ENDPOINT="+collected.url, "STARLING_TRACES_SAMPLE=1", "OTEL_BSP_SCHEDULE_DELAY=200")...)
	var talkers []*talker
	for _, n := range c.nodes {
		k := talk(t, n.imap)
		k.hear("* OK")
		k.say("a login " + testUser + ` "` + testPassword + "\"\r\n")
		k.hear("a OK")
		talkers = append(talkers, k)
	}
	here, there := talkers[0], talkers[1]
	mail := numberedMail(3)
	here.say(fmt.Sprintf("b append INBOX {%d+}\r\n%s\r\n", len(mail), mail))
	here.hear("b OK")
	of := collected.await(t, "IMAP APPEND", "s3 put", "mailstore commit", "postgres ")
	connected(t, of)

	here.say("c select INBOX\r\n")
	here.hear("c OK")
	there.say("c select INBOX\r\nd idle\r\n")
	there.hear("+ ")
	here.say("d store 1 +flags (Wichtig)\r\n")
	here.hear("d OK")
	there.hear("* 1 FETCH")
	of = collected.await(t, "IMAP STORE", "mailstore commit", "postgres ", "mailstore publish", "mailstore catch up", "IMAP notify")
	connected(t, of)
	c.deliver(0, testUser, numberedMail(4))
	connected(t, collected.await(t, "LMTP DATA", "s3 put", "postgres ", "mailstore publish", "IMAP notify"))
	for _, one := range of {
		if one.service != "starling" {
			t.Errorf("%s is of the service %q", one.name, one.service)
		}
		for key, value := range one.attributes {
			if strings.Contains(value, "Wichtig") || strings.Contains(value, "@") {
				t.Errorf("%s says %s=%s", one.name, key, value)
			}
		}
	}
}

// connected sees to it that all spans of a trace but one have a parent in it.
func connected(t *testing.T, of []span) {
	t.Helper()
	var roots []string
	for _, one := range of {
		if one.parent == "" {
			roots = append(roots, one.name)
		}
	}
	if len(roots) != 1 || !strings.HasPrefix(roots[0], "IMAP ") && roots[0] != "LMTP DATA" {
		t.Errorf("a trace begins with %q", roots)
	}
}
