package lmtp

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"starling/blobstore"
	"starling/frontend/mailstore"
)

// When there is no memory for mail that comes in, it is to be tried again, by each recipient,
// and what is on its way already is taken in. All is well when there is some again.
func TestMemoryShort(t *testing.T) {
	t.Parallel()
	var stores []*prometheus.Registry
	w := newWorld(t, func(cfg *mailstore.Config) {
		cfg.Inflight = 1 // for one message
		stores = append(stores, prometheus.NewRegistry())
		cfg.Metrics = stores[len(stores)-1]
	})
	watched(t, w)
	m := w.servers[0].metrics
	first, second := w.dial(0), w.dial(0)
	first.begin("a@example.org")
	first.write("Subject: on its way\r\n")
	for deadline := time.Now().Add(time.Minute); figureOf(t, stores[0], "starling_mailstore_inflight_bytes") == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is on its way")
		}
	}
	second.send(letter, []string{"b@example.org"}, "451 4.3.0")
	second.send(letter, []string{"a@example.org", "b@example.org"}, "451 4.3.0", "451 4.3.0")
	if got := figureOf(t, stores[0], "starling_mailstore_memory_refused_total"); got != 3 {
		t.Errorf("%v were refused for want of memory", got)
	}
	first.write("\r\nText\r\n.\r\n")
	first.want("250")
	second.send(letter, []string{"b@example.org"}, "250")
	w.count("a@example.org", "INBOX", 1)
	w.count("b@example.org", "INBOX", 1)
	if late, kept := testutil.ToFloat64(m.deliveries[deferred]), testutil.ToFloat64(m.deliveries[delivered]); late != 3 || kept != 2 {
		t.Errorf("%v deferred, %v delivered", late, kept)
	}
}

// figureOf is a figure, summed over its labels.
func figureOf(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// Deliveries that are to be tried again do not fill the log; those that are refused for good
// are all there.
func TestRefusalsInTheLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, _, logs := watched(t, w)
	a := w.dial(0)
	a.say("MAIL FROM:<sender@example.net>", "250")
	for range 50 {
		a.say("RCPT TO:<nobody@example.org>", "550")
	}
	if n := logs.FilterMessage("refused").Len(); n != 50 {
		t.Errorf("%d of 50 lines in the log", n)
	}
	a.say("RSET", "250")
	w.blobs.onPut(func(context.Context) error { return blobstore.ErrUnavailable })
	for range 50 {
		a.send(letter, []string{"a@example.org"}, "451")
	}
	if n := logs.FilterMessage("deferred").Len(); n < 1 || n > 30 { // ten in ten seconds
		t.Errorf("%d of 50 lines in the log", n)
	}
}
