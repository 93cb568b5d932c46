package main_test

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"starling/blobstore/s3/s3test"
)

// metricNames are the figures for which there are alerts, graphs and a page in the
// runbook.
var metricNames = strings.Fields(`
starling_imap_commands_total starling_imap_command_duration_seconds starling_imap_sessions starling_imap_disconnects_total
starling_imap_refused_total starling_imap_notifications_total starling_imap_notification_latency_seconds
starling_imap_received_bytes_total starling_imap_sent_bytes_total starling_imap_panics_total
starling_lmtp_deliveries_total starling_lmtp_delivery_duration_seconds starling_lmtp_sessions
starling_lmtp_received_bytes_total starling_lmtp_refused_total
starling_auth_logins_total starling_auth_hashes_total starling_auth_hash_wait_seconds
starling_listener_connections starling_listener_max_connections starling_listener_accepted_total starling_listener_refused_total
starling_tls_handshakes_total starling_tls_handshakes_waiting starling_tls_reloads_total starling_tls_certificate_expiry_timestamp_seconds starling_tls_certificate_broken
starling_postgres_statement_duration_seconds starling_postgres_errors_total starling_postgres_retries_total
starling_postgres_round_trips_total starling_postgres_connections starling_postgres_max_connections
starling_postgres_acquires_total starling_postgres_acquire_waits_total starling_postgres_acquire_wait_seconds_total
starling_postgres_dials_total starling_postgres_epoch starling_postgres_past_refused_total starling_postgres_in_doubt_total starling_postgres_shed_total starling_postgres_acquires_waiting
starling_postgres_durability_warnings
starling_mailstore_commits_total starling_mailstore_conflicts_total starling_mailstore_group_size starling_mailstore_mailboxes
starling_mailstore_loads_total starling_mailstore_catch_ups_total starling_mailstore_sweep_duration_seconds
starling_mailstore_last_sweep_timestamp_seconds starling_mailstore_sweep_found_total starling_mailstore_hint_latency_seconds
starling_mailstore_over_quota_total starling_mailstore_inflight_bytes starling_mailstore_snapshot_bytes
starling_mailstore_rows_bytes starling_mailstore_read_bytes starling_mailstore_search_bytes starling_mailstore_change_bytes starling_mailstore_memory_limit_bytes
starling_mailstore_kept_rows_bytes starling_mailstore_rows_total starling_mailstore_read_group_size starling_mailstore_memory_refused_total starling_mailstore_corrupt_objects_total
starling_collector_runs_total starling_collector_last_run_timestamp_seconds starling_collector_removed_total starling_collector_backlog
starling_s3_requests_total starling_s3_request_duration_seconds starling_s3_retries_total starling_s3_bytes_total starling_s3_requests_in_flight
starling_s3_breaker_state starling_s3_breaker_refused_total starling_s3_retries_refused_total starling_s3_hedges_total starling_s3_uploads_put_whole_total
starling_cache_hits_total starling_cache_misses_total starling_cache_bytes starling_cache_evictions_total
starling_nats_connected starling_nats_peers starling_nats_published_total starling_nats_unpublished_total starling_nats_received_total
starling_nats_late_total starling_nats_doubled_total starling_nats_lost_total starling_nats_dropped_total starling_nats_overflows_total
starling_nats_suspects_total starling_nats_silences_total starling_nats_reconnects_total starling_nats_malformed_total
starling_build_info starling_ready starling_dependency_up starling_draining
go_goroutines process_cpu_seconds_total process_open_fds`)

// metricLabels are all labels: each has values from a table of ours, but for those of
// starling_build_info and certificate, which come from the build and the settings.
var metricLabels = strings.Fields(`command result state reason listener certificate statement class outcome operation kind cause
what direction tier dependency version go_version source`)

// scrape reads the figures of a node.
func scrape(t *testing.T, n *server) map[string]*dto.MetricFamily {
	t.Helper()
	status, text := askAdmin(t, http.MethodGet, n.admin, "/metrics")
	if status != http.StatusOK {
		t.Fatalf("/metrics: %d %s", status, text)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// figure is the sum of a figure, over the labels that have these values.
func figure(families map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	sum := 0.0
	for _, m := range families[name].GetMetric() {
		var values []string
		for _, pair := range m.GetLabel() {
			values = append(values, pair.GetValue())
		}
		if slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(values, l) }) {
			continue
		}
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	return sum
}

// withS3 are the settings by which a cluster keeps messages in S3.
func withS3(t *testing.T) []string {
	t.Helper()
	bucket := s3test.New(t)
	return []string{
		"STARLING_BLOBS_DISK=", "STARLING_BLOBS_S3_ENDPOINT=" + bucket.Endpoint, "STARLING_BLOBS_S3_BUCKET=" + bucket.Bucket,
		"STARLING_BLOBS_S3_PREFIX=" + bucket.Prefix, "STARLING_BLOBS_S3_ACCESS_KEY=" + bucket.AccessKey, "STARLING_BLOBS_S3_SECRET_KEY=" + bucket.SecretKey,
	}
}

// Every figure is there from the start, is called as Prometheus wants it, counts, and
// has no label that a client could fill.
func TestMetrics(t *testing.T) {
	t.Parallel()
	c := newCluster(t, append(withS3(t), "STARLING_BLOBS_CACHE_DIR="+filepath.Join(t.TempDir(), "cache"), "STARLING_MAIL_COLLECT=1s")...)
	n := c.nodes[0]
	before := scrape(t, n)
	for _, name := range metricNames {
		if before[name] == nil && before[name+"_count"] == nil {
			t.Errorf("%s is not there", name)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	k := talk(t, n.imap)
	k.hear("* OK")
	k.say("a login nobody@example.org secret1\r\n")
	k.hear("a NO")
	k.say("b login " + testUser + ` "` + testPassword + "\"\r\nc create Geheim\r\nd select INBOX\r\ne XYZZY\r\nf idle\r\n")
	k.hear("+ ")
	c.deliver(0, testUser, numberedMail(39))
	k.hear("* 1 EXISTS")
	k.say("done\r\ng fetch 1 (body[])\r\nh fetch 1 (body[])\r\ni store 1 +flags (Wichtig)\r\n")
	k.hear("i OK")
	login(t, n.imap, testUser, testPassword, nil)

	after := scrape(t, n)
	for _, grown := range [][]string{
		{"starling_imap_commands_total", "FETCH", "ok"},
		{"starling_imap_commands_total", "LOGIN", "no"},
		{"starling_imap_commands_total", "unknown", "bad"},
		{"starling_imap_command_duration_seconds", "STORE"},
		{"starling_imap_notifications_total"},
		{"starling_imap_notification_latency_seconds"},
		{"starling_imap_sessions", "selected"},
		{"starling_imap_received_bytes_total"},
		{"starling_imap_sent_bytes_total"},
		{"starling_lmtp_deliveries_total", "delivered"},
		{"starling_lmtp_delivery_duration_seconds"},
		{"starling_auth_logins_total", "ok"},
		{"starling_auth_logins_total", "invalid"},
		{"starling_auth_hashes_total"},
		{"starling_listener_accepted_total", "imap"},
		{"starling_listener_accepted_total", "lmtp"},
		{"starling_postgres_statement_duration_seconds"},
		{"starling_mailstore_commits_total"},
		{"starling_s3_requests_total", "put", "ok"},
		{"starling_s3_bytes_total", "sent"},
		{"starling_cache_hits_total", "memory"},
		{"starling_nats_published_total"},
	} {
		if was, is := figure(before, grown[0], grown[1:]...), figure(after, grown[0], grown[1:]...); is <= was {
			t.Errorf("%v was %v and is %v", grown, was, is)
		}
	}
	families := make([]*dto.MetricFamily, 0, len(after))
	for name, f := range after {
		if strings.HasPrefix(name, "starling_") {
			families = append(families, f)
			checkLabels(t, f)
		}
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// checkLabels sees to it that nothing of what clients sent is a label.
func checkLabels(t *testing.T, f *dto.MetricFamily) {
	t.Helper()
	for _, m := range f.GetMetric() {
		for _, pair := range m.GetLabel() {
			if !slices.Contains(metricLabels, pair.GetName()) {
				t.Errorf("%s has a label %s", f.GetName(), pair.GetName())
			}
			for _, input := range []string{"@", "nobody", "secret1", "Geheim", "Wichtig", "XYZZY", "127.0.0.1"} {
				if strings.Contains(pair.GetValue(), input) {
					t.Errorf("%s has the label %s=%q", f.GetName(), pair.GetName(), pair.GetValue())
				}
			}
		}
	}
}
