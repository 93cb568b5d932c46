package auth

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"starling/metadata"
)

// observed is a fixture with its log and its figures.
func observed(t *testing.T, config Config) (*fixture, *observer.ObservedLogs, *prometheus.Registry) {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	reg := prometheus.NewRegistry()
	config.Metrics = reg
	f := newFixture(t, config)
	f.refusals = bounded(zap.New(core))
	return f, logs, reg
}

// Every kind of end is counted, and each but the good one tells who, from where and why;
// never the password.
func TestEndsOfLoginsAreCountedAndTold(t *testing.T) {
	t.Parallel()
	f, logs, reg := observed(t, Config{Hashers: 1, HashWait: time.Millisecond})
	f.db.set("carol@example.org", 3, "{PLAIN}"+horse, metadata.Suspended)
	f.want(t, nil, "alice@example.org", horse, home)
	f.want(t, ErrSuspended, "carol@example.org", horse, home)
	f.want(t, ErrInvalid, "bob@example.org", "secret-1", away)
	f.want(t, ErrInvalid, "bob@example.org", "secret-2", away)
	f.slots <- struct{}{} // nobody can hash
	f.want(t, ErrThrottled, "bob@example.org", "secret-3", away)
	<-f.slots
	f.db.err = metadata.ErrUnavailable
	f.want(t, metadata.ErrUnavailable, "alice@example.org", horse, home)
	f.db.err = nil
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	f.db.err = gone.Err()
	if _, err := f.Login(gone, Attempt{Address: "alice@example.org", Password: horse, Remote: home}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	want := `
# HELP starling_auth_logins_total Logins, by how they ended.
# TYPE starling_auth_logins_total counter
starling_auth_logins_total{result="invalid"} 2
starling_auth_logins_total{result="ok"} 1
starling_auth_logins_total{result="refused"} 1
starling_auth_logins_total{result="throttled"} 1
starling_auth_logins_total{result="unavailable"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "starling_auth_logins_total"); err != nil {
		t.Error(err)
	}
	reasons := map[string]int{}
	for _, line := range logs.All() {
		fields := line.ContextMap()
		reasons[fields["reason"].(string)]++
		if fields["name"] == "" || fields["remote"] == "" {
			t.Errorf("%s: %v", line.Message, fields)
		}
		for name, value := range fields {
			if s, ok := value.(string); ok && (strings.Contains(s, "secret") || strings.Contains(s, horse)) {
				t.Errorf("%s: the password is in %s", line.Message, name)
			}
		}
	}
	if reasons["invalid"] != 2 || reasons["throttled"] != 1 || reasons["refused"] != 1 || reasons["unavailable"] != 1 || len(reasons) != 4 {
		t.Errorf("the log tells of %v", reasons)
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

// Who guesses fast does not fill the log, and does not hide what else happens.
func TestLogOfRefusalsIsBounded(t *testing.T) {
	t.Parallel()
	f, logs, _ := observed(t, Config{})
	f.db.set("carol@example.org", 3, "{PLAIN}"+horse, metadata.Suspended)
	const guesses = 100 * maxLines
	began := time.Now()
	f.want(t, ErrInvalid, "alice@example.org", "wrong", home)
	for range guesses - 1 {
		f.want(t, ErrInvalid, "alice@example.org", "wrong", home) // the same is not slowed down
	}
	most := maxLines * (int(time.Since(began)/time.Second) + 2)
	f.want(t, ErrSuspended, "carol@example.org", horse, away)
	if n := logs.FilterMessage("login refused").Len(); n < maxLines || n > most {
		t.Errorf("%d guesses left %d lines, want %d to %d", guesses, n, maxLines, most)
	}
	if n := logs.FilterField(zap.String("reason", "refused")).Len(); n != 1 {
		t.Errorf("%d lines tell of the suspended account", n)
	}
	if n := f.Stats().Failures; n != guesses {
		t.Errorf("%d failures were counted, want %d", n, guesses)
	}
}

func TestHashWaitIsMeasured(t *testing.T) {
	t.Parallel()
	f, _, reg := observed(t, Config{Hashers: 1, HashWait: time.Millisecond})
	f.slots <- struct{}{}
	f.want(t, ErrThrottled, "alice@example.org", horse, home)
	<-f.slots
	f.want(t, nil, "alice@example.org", horse, home)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "starling_auth_hash_wait_seconds" {
			if n := family.GetMetric()[0].GetHistogram().GetSampleCount(); n != 2 {
				t.Errorf("%d waits were measured, want 2", n)
			}
			return
		}
	}
	t.Error("there is no starling_auth_hash_wait_seconds")
}
