package cache_test

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"starling/blobstore"
	"starling/blobstore/blobtest"
	"starling/blobstore/cache"
)

func TestMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, reg := newBelow(), prometheus.NewPedanticRegistry()
		s := open(t, b, cache.Config{Memory: 300_000, Dir: t.TempDir(), Disk: 500_000, Metrics: reg})
		data := blobtest.Bytes(100_000)
		var keys []blobstore.Key
		for range 10 {
			keys = append(keys, b.put(t, data))
		}
		for range 2 {
			for _, key := range keys {
				wantRange(t, s, key, data, 0, 100)
				wantRange(t, s, key, data, 1000, 100)
				synctest.Wait() // it is on the disk
			}
		}
		if _, err := get(t.Context(), s, keys[0], 0, -1); err != nil {
			t.Fatal(err)
		}
		hits := figure(t, reg, "starling_cache_hits_total", "memory") + figure(t, reg, "starling_cache_hits_total", "disk")
		misses := figure(t, reg, "starling_cache_misses_total", "")
		if hits+misses != 40 || misses != float64(b.gets.Load()-1) || misses < 10 {
			t.Errorf("%v hits and %v misses of 40 reads, with %d GETs", hits, misses, b.gets.Load())
		}
		if n := figure(t, reg, "starling_cache_bypasses_total", ""); n != 1 {
			t.Errorf("%v bypasses, want 1", n)
		}
		for tier, most := range map[string]float64{"memory": 300_000, "disk": 500_000} {
			if n := figure(t, reg, "starling_cache_bytes", tier); n < 100_000 || n > most {
				t.Errorf("%v bytes in %s, want at most %v", n, tier, most)
			}
			if n := figure(t, reg, "starling_cache_evictions_total", tier); n < 1 {
				t.Errorf("%v evictions in %s", n, tier)
			}
		}
		if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
			t.Errorf("%v, %v", problems, err)
		}
	})
}

// figure is the value of a counter or gauge; tier is "" where there is none.
func figure(t *testing.T, reg *prometheus.Registry, name, tier string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (tier == "" || m.GetLabel()[0].GetValue() == tier) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("no %s{tier=%q}", name, tier)
	return 0
}

// A small mail is in memory as soon as it is put; a large one is not read a second time.
func TestPutKeepsSmallMails(t *testing.T) {
	t.Parallel()
	b := newBelow()
	s := open(t, b, cache.Config{Memory: 16 << 20})
	for size, gets := range map[int]int64{1: 0, 5000: 0, 64 << 10: 0, 64<<10 + 1: 1} {
		b.gets.Store(0)
		data, key := blobtest.Bytes(size), blobstore.NewKey(1)
		body := strings.NewReader("before" + string(data))
		if _, err := body.Seek(6, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Put(t.Context(), key, body, int64(size)); err != nil {
			t.Fatal(err)
		}
		wantRange(t, s, key, data, 0, size)
		b.wantGets(t, gets)
	}
}

// What has failed to be put is not kept.
func TestPutThatFailsKeepsNothing(t *testing.T) {
	t.Parallel()
	b := newBelow()
	s := open(t, b, cache.Config{Memory: 16 << 20})
	key := blobstore.NewKey(1)
	if _, err := s.Put(t.Context(), key, bytes.NewReader([]byte("12345")), 6); err == nil {
		t.Fatal("no error")
	}
	if got, err := get(t.Context(), s, key, 0, 5); err == nil {
		t.Errorf("got %q", got)
	}
}
