package deploy_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// rule is one of starling.rules.yaml.
type rule struct {
	Record, Alert, Expr, For string
	Labels, Annotations      map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	var file struct {
		Groups []struct {
			Name, Interval string
			Rules          []rule
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(read(t, "prometheus/starling.rules.yaml")))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	var all []rule
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) < 30 {
		t.Fatalf("only %d rules", len(all))
	}
	return all
}

// target is a query of the dashboard.
type target struct{ panel, expr string }

func dashboard(t *testing.T) []target {
	t.Helper()
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "grafana/starling.json")), &board); err != nil {
		t.Fatal(err)
	}
	// The variables as Grafana fills them in when all is chosen.
	fill := strings.NewReplacer("$namespace", ".*", "$job", ".*", "$instance", ".*", "$__rate_interval", "1m")
	var all []target
	for _, p := range board.Panels {
		for _, q := range p.Targets {
			all = append(all, target{p.Title, fill.Replace(q.Expr)})
		}
	}
	if len(all) < 50 {
		t.Fatalf("only %d queries", len(all))
	}
	return all
}

// Prometheus accepts the rules and the example, its own unit tests of the alerts pass, and each
// alert has one of these and a section in the runbook.
func TestRules(t *testing.T) {
	t.Parallel()
	promtool := need(t, "promtool")
	run(t, promtool, "check", "rules", "--lint-fatal", "prometheus/starling.rules.yaml")
	run(t, promtool, "check", "config", "prometheus/prometheus.yaml")
	run(t, promtool, "test", "rules", "prometheus/starling.rules.test.yaml")
	tests, runbook := read(t, "prometheus/starling.rules.test.yaml"), read(t, "runbook.md")
	var alerts []string
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		alerts = append(alerts, r.Alert)
		if !strings.Contains(tests, `alertname="`+r.Alert+`"`) {
			t.Errorf("%s has no test", r.Alert)
		}
		if !strings.Contains(runbook, "\n### "+r.Alert+"\n") {
			t.Errorf("%s has no section in the runbook", r.Alert)
		}
		if got, want := r.Annotations["runbook_url"], "runbook.md#"+strings.ToLower(r.Alert); got != want {
			t.Errorf("%s: runbook_url is %s, want %s", r.Alert, got, want)
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || !slices.Contains([]string{"warning", "critical"}, r.Labels["severity"]) {
			t.Errorf("%s: %v %v", r.Alert, r.Labels, r.Annotations)
		}
	}
	for _, section := range regexp.MustCompile(`(?m)^### (Starling\w+)$`).FindAllStringSubmatch(runbook, -1) {
		if !slices.Contains(alerts, section[1]) {
			t.Errorf("the runbook has a section %s, which is no alert", section[1])
		}
	}
}

// prometheus is one that watches a cluster.
type prometheus struct {
	*process
	url string
}

// startPrometheus starts Prometheus with the example, in which only addresses and times are others.
func startPrometheus(t *testing.T, c *cluster) *prometheus {
	t.Helper()
	config := replace(t, read(t, "prometheus/prometheus.yaml"), "[node1:8080, node2:8080]", fmt.Sprintf("[%q, %q]", c.nodes[0].at["HTTP"], c.nodes[1].at["HTTP"]))
	config = replace(t, config, "[haproxy:8404]", fmt.Sprintf("[%q]", c.metrics))
	config = replace(t, config, "[alertmanager:9093]", "[]")
	config = replace(t, config, "interval: 15s", "interval: 1s")
	put(t, filepath.Join(c.dir, "starling.rules.yaml"), replace(t, read(t, "prometheus/starling.rules.yaml"), "interval: 30s", "interval: 1s"))
	file := put(t, filepath.Join(c.dir, "prometheus.yaml"), config)
	address := freeAddress(t)
	p := &prometheus{url: "http://" + address}
	p.process = start(t, exec.Command(need(t, "prometheus"), "--config.file="+file, "--storage.tsdb.path="+filepath.Join(c.dir, "prometheus"),
		"--web.listen-address="+address, "--log.level=warn"))
	eventually(t, "Prometheus has asked both nodes and HAProxy twice", func() bool {
		status, _ := get(t, p.url+"/-/ready")
		return status == 200 && p.value(t, `count(count_over_time(up[1m]) >= 2 and up == 1)`) == 3
	})
	return p
}

// sample is one of a query's results.
type sample struct {
	Metric map[string]string
	Value  [2]any
}

// query runs a query now.
func (p *prometheus) query(t *testing.T, expr string) []sample {
	t.Helper()
	status, body := get(t, p.url+"/api/v1/query?query="+url.QueryEscape(expr))
	var answer struct {
		Error string
		Data  struct{ Result []sample }
	}
	if status == 0 || json.Unmarshal([]byte(body), &answer) != nil || answer.Error != "" {
		t.Errorf("%s: %d %s", expr, status, body)
	}
	return answer.Data.Result
}

// value is that of a query which has one result; of none it is 0.
func (p *prometheus) value(t *testing.T, expr string) float64 {
	t.Helper()
	samples := p.query(t, expr)
	if len(samples) == 0 {
		return 0
	}
	text, _ := samples[0].Value[1].(string)
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || len(samples) > 1 {
		t.Errorf("%s: %v", expr, samples)
	}
	return v
}

// checkMetrics looks whether all that the dashboard and the rules name is what nodes show.
func (p *prometheus) checkMetrics(t *testing.T, c *cluster) {
	t.Helper()
	_, shown := get(t, c.nodes[0].admin("/metrics"))
	known := make(map[string]bool)
	for _, line := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(shown, -1) {
		known[line[1]] = true
		if line[2] == "histogram" || line[2] == "summary" {
			known[line[1]+"_bucket"], known[line[1]+"_sum"], known[line[1]+"_count"] = true, true, true
		}
	}
	names := regexp.MustCompile(`\b(?:starling|process|go)_[a-z0-9_]+`)
	check := func(where, expr string) {
		// What stands in a record's own name is no metric of a node.
		for _, name := range names.FindAllString(regexp.MustCompile(`\bjob\w*:\S+`).ReplaceAllString(expr, ""), -1) {
			if !known[name] && !strings.HasSuffix(name, "_version") {
				t.Errorf("%s: nodes have no %s", where, name)
			}
		}
	}
	for _, q := range dashboard(t) {
		check("panel "+q.panel, q.expr)
	}
	for _, r := range rules(t) {
		check(r.Alert+r.Record, r.Expr)
	}
	promtool := exec.Command(need(t, "promtool"), "check", "metrics")
	promtool.Stdin = strings.NewReader(shown)
	if out, err := promtool.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// checkDashboard runs each query. After a mail has come in, been told of and read, all of them have something to show.
func (p *prometheus) checkDashboard(t *testing.T) {
	t.Helper()
	for _, q := range dashboard(t) {
		if len(p.query(t, q.expr)) == 0 {
			t.Errorf("panel %s shows nothing: %s", q.panel, q.expr)
		}
	}
	for what, expr := range map[string]string{
		"deliveries":    `sum(starling_lmtp_deliveries_total{result="delivered"})`,
		"notifications": `sum(starling_imap_notifications_total)`,
		"latency":       `sum(starling_imap_notification_latency_seconds_count)`,
		"logins":        `sum(starling_auth_logins_total{result="ok"})`,
		"objects":       `sum(starling_s3_requests_total{operation="put", result="ok"})`,
		"statements":    `sum(starling_postgres_statement_duration_seconds_count)`,
		"hints":         `sum(starling_nats_published_total)`,
		"bytes":         `sum(starling_imap_sent_bytes_total)`,
		"handshakes":    `sum(starling_tls_handshakes_total{result="ok"})`,
	} {
		eventually(t, "Prometheus has seen "+what, func() bool { return p.value(t, expr) >= 1 })
	}
	eventually(t, "both nodes hear each other", func() bool { return p.value(t, `sum(starling_nats_peers)`) == 2 })
}

// checkAlerts runs the expression of each rule; of a healthy cluster none has anything to say.
func (p *prometheus) checkAlerts(t *testing.T) {
	t.Helper()
	for _, r := range rules(t) {
		found := p.query(t, r.Expr)
		switch {
		case r.Alert == "StarlingDurability": // the tests' PostgreSQL does without fsync
		case strings.HasSuffix(r.Alert, "Slow"), strings.HasSuffix(r.Alert, "Saturated"): // a busy machine may well be
		case r.Alert != "" && len(found) > 0:
			t.Errorf("%s: %v", r.Alert, found)
		case r.Record != "" && len(found) == 0:
			t.Errorf("%s has no value", r.Record)
		}
	}
	eventually(t, "Prometheus has run all rules", func() bool {
		_, states := get(t, p.url+"/api/v1/rules")
		return strings.Count(states, `"health":"ok"`) == len(rules(t))
	})
}
