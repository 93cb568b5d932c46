package chart_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	psa "k8s.io/pod-security-admission/api"
	podsecurity "k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// Whatever selects pods selects those that it is about, and no others of the release.
func TestSelectors(t *testing.T) {
	t.Parallel()
	eachFile(t, func(t *testing.T, _ string, r *release) {
		pods := pods(r)
		selects := func(what string, selector map[string]string, want string) {
			t.Helper()
			var got []string
			for name, pod := range pods {
				if labels.SelectorFromSet(selector).Matches(labels.Set(pod.Labels)) {
					got = append(got, name)
				}
			}
			if !slices.Equal(got, []string{want}) {
				t.Errorf("%s selects the pods of %v, want %s", what, got, want)
			}
		}
		main := frontend(t, r).Name
		for _, d := range all[*apps.Deployment](r) {
			selects("Deployment "+d.Name, d.Spec.Selector.MatchLabels, d.Name)
			if len(d.Spec.Selector.MatchLabels) != 3 {
				t.Errorf("Deployment %s: selector %v; it can never be changed, so keep to name, instance and component", d.Name, d.Spec.Selector.MatchLabels)
			}
		}
		for _, s := range all[*core.Service](r) {
			want := main
			if strings.Contains(s.Name, "-trial-") {
				want = s.Name
			}
			selects("Service "+s.Name, s.Spec.Selector, want)
		}
		for _, p := range all[*policy.PodDisruptionBudget](r) {
			selects("PodDisruptionBudget", p.Spec.Selector.MatchLabels, main)
		}
		for _, n := range all[*networking.NetworkPolicy](r) {
			selects("NetworkPolicy", n.Spec.PodSelector.MatchLabels, main)
		}
		for _, c := range frontend(t, r).Spec.Template.Spec.TopologySpreadConstraints {
			selects("spread over "+c.TopologyKey, c.LabelSelector.MatchLabels, main)
		}
		for _, m := range all[*monitoring.ServiceMonitor](r) {
			for _, s := range all[*core.Service](r) {
				if got, want := labels.SelectorFromSet(m.Spec.Selector.MatchLabels).Matches(labels.Set(s.Labels)), strings.HasSuffix(s.Name, "-admin"); got != want {
					t.Errorf("ServiceMonitor selects Service %s: %v", s.Name, got)
				}
			}
		}
		for _, h := range all[*autoscaling.HorizontalPodAutoscaler](r) {
			if ref := h.Spec.ScaleTargetRef; ref.APIVersion != "apps/v1" || ref.Kind != "Deployment" || ref.Name != main {
				t.Errorf("autoscaler scales %v, not %s", ref, main)
			}
		}
	})
}

// Selectors of a Deployment are immutable: what stands here is what released charts have.
func TestSelectorStays(t *testing.T) {
	t.Parallel()
	got := frontend(t, render(t, "post", minimal(t, "{commonLabels: {a: b}, podLabels: {c: d, app.kubernetes.io/component: x}}"))).Spec
	want := map[string]string{"app.kubernetes.io/name": "starling", "app.kubernetes.io/instance": "post", "app.kubernetes.io/component": "frontend"}
	if !mapsEqual(got.Selector.MatchLabels, want) {
		t.Errorf("selector %v, want %v", got.Selector.MatchLabels, want)
	}
	want["a"], want["c"] = "b", "d"
	if !mapsEqual(got.Template.Labels, want) {
		t.Errorf("labels of pods %v, want %v", got.Template.Labels, want)
	}
}

func mapsEqual(a, b map[string]string) bool { return labels.Equals(a, b) }

// Every port that is named is one on which a container listens, and policies let in
// through exactly those.
func TestPorts(t *testing.T) {
	t.Parallel()
	eachFile(t, func(t *testing.T, _ string, r *release) {
		main := frontend(t, r)
		for _, s := range all[*core.Service](r) {
			pod := main.Spec.Template.Spec
			if strings.Contains(s.Name, "-trial-") {
				pod = one[*apps.Deployment](t, r, s.Name).Spec.Template.Spec
			}
			for _, p := range s.Spec.Ports {
				if !slices.Contains(portNames(&pod), p.TargetPort.StrVal) {
					t.Errorf("Service %s: port %s leads to %q; pods have %v", s.Name, p.Name, p.TargetPort.StrVal, portNames(&pod))
				}
				if p.Name != p.TargetPort.StrVal {
					t.Errorf("Service %s: port %s leads to %s", s.Name, p.Name, p.TargetPort.StrVal)
				}
			}
		}
		want := portNames(&main.Spec.Template.Spec)
		for _, n := range all[*networking.NetworkPolicy](r) {
			var got []string
			for _, rule := range n.Spec.Ingress {
				for _, p := range rule.Ports {
					got = append(got, p.Port.StrVal)
				}
				if isLMTP := slices.ContainsFunc(rule.Ports, func(p networking.NetworkPolicyPort) bool { return p.Port.StrVal != "imap" && p.Port.StrVal != "imaps" }); isLMTP && len(rule.From) == 0 {
					t.Error("NetworkPolicy lets everybody deliver or administer")
				}
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("NetworkPolicy lets in through %v, pods listen on %v", got, want)
			}
		}
		for _, m := range all[*monitoring.ServiceMonitor](r) {
			admin := one[*core.Service](t, r, "-admin")
			if e := m.Spec.Endpoints[0]; e.Port != admin.Spec.Ports[0].Name {
				t.Errorf("ServiceMonitor scrapes port %s, which Service %s has not", e.Port, admin.Name)
			}
		}
	})
}

func portNames(pod *core.PodSpec) (names []string) {
	for _, p := range pod.Containers[0].Ports {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return names
}

// A listener that is off is in no Service, and a Service without ports is not made.
func TestListeners(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values string
		ports  []string // of pods
		of     map[string][]string
	}{
		{"", []string{"admin", "imap", "imaps", "lmtp"}, map[string][]string{"imap": {"imap", "imaps"}, "lmtp": {"lmtp"}, "admin": {"admin"}}},
		{"listeners: {lmtp: false}", []string{"admin", "imap", "imaps"}, map[string][]string{"imap": {"imap", "imaps"}, "admin": {"admin"}}},
		{"listeners: {imap: false, imaps: false}", []string{"admin", "lmtp"}, map[string][]string{"lmtp": {"lmtp"}, "admin": {"admin"}}},
		{"{tls: {existingSecret: ''}, config: {imap: {plaintext_login: true}}}", []string{"admin", "imap", "lmtp"}, map[string][]string{"imap": {"imap"}, "lmtp": {"lmtp"}, "admin": {"admin"}}},
		{"services: {imap: null, public: {type: LoadBalancer, ports: {imaps: 993}}}", []string{"admin", "imap", "imaps", "lmtp"}, map[string][]string{"public": {"imaps"}, "lmtp": {"lmtp"}, "admin": {"admin"}}},
	} {
		t.Run(c.values, func(t *testing.T) {
			t.Parallel()
			r := render(t, "post", minimal(t, c.values))
			if got := portNames(&frontend(t, r).Spec.Template.Spec); !slices.Equal(got, c.ports) {
				t.Errorf("pods listen on %v, want %v", got, c.ports)
			}
			services := all[*core.Service](r)
			if len(services) != len(c.of) {
				t.Errorf("%d Services, want %d", len(services), len(c.of))
			}
			for _, s := range services {
				var got []string
				for _, p := range s.Spec.Ports {
					got = append(got, p.Name)
				}
				if want := c.of[strings.TrimPrefix(s.Name, "post-starling-")]; !slices.Equal(got, want) {
					t.Errorf("Service %s has %v, want %v", s.Name, got, want)
				}
			}
		})
	}
}

// Every pod may run where Kubernetes enforces its standard "restricted".
func TestPodSecurityStandard(t *testing.T) {
	t.Parallel()
	evaluator, err := podsecurity.NewEvaluator(podsecurity.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := psa.LevelVersion{Level: psa.LevelRestricted, Version: psa.LatestVersion()}
	eachFile(t, func(t *testing.T, _ string, r *release) {
		for name, pod := range pods(r) {
			if result := podsecurity.AggregateCheckResults(evaluator.EvaluatePod(restricted, &pod.ObjectMeta, &pod.Spec)); !result.Allowed {
				t.Errorf("%s: %s", name, result.ForbiddenDetail())
			}
		}
	})
}

// No pod of ours can do more than it needs.
func TestSecurity(t *testing.T) {
	t.Parallel()
	eachFile(t, func(t *testing.T, _ string, r *release) {
		for name, template := range pods(r) {
			pod := template.Spec
			if c := pod.SecurityContext; c == nil || c.RunAsNonRoot == nil || !*c.RunAsNonRoot || c.RunAsUser == nil || *c.RunAsUser == 0 ||
				c.SeccompProfile == nil || c.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
				t.Errorf("%s: security context of the pod: %+v", name, c)
			}
			if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
				t.Errorf("%s gets a token of its service account", name)
			}
			// With them a Service called starling-imap gives a variable STARLING_IMAP_PORT, and the program takes none that it does not know.
			if pod.EnableServiceLinks == nil || *pod.EnableServiceLinks {
				t.Errorf("%s has service links", name)
			}
			for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
				s := c.SecurityContext
				if s == nil || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
					t.Errorf("%s: security context of %s: %+v", name, c.Name, s)
				}
				if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
					t.Errorf("%s: %s asks for %v", name, c.Name, c.Resources)
				}
				for _, m := range c.VolumeMounts {
					if v := volume(&pod, m.Name); (v.Secret != nil || v.ConfigMap != nil) && (!m.ReadOnly || m.SubPath != "") {
						t.Errorf("%s: %s is not mounted as a read-only folder, which is kept up to date", name, m.Name)
					}
				}
			}
		}
	})
}

func volume(pod *core.PodSpec, name string) core.Volume {
	for _, v := range pod.Volumes {
		if v.Name == name {
			return v
		}
	}
	return core.Volume{}
}

// What is secret is in Secrets, and nowhere else; and a Secret that was not made by
// the chart is named as it was given.
func TestSecrets(t *testing.T) {
	t.Parallel()
	eachFile(t, func(t *testing.T, file string, r *release) {
		for _, s := range all[*core.Secret](r) {
			for key, value := range s.StringData {
				if value == "starling" { // a user's name
					continue
				}
				for i, o := range r.objects {
					if _, isSecret := o.(*core.Secret); !isSecret && strings.Contains(r.texts[i], value) {
						t.Errorf("%s of Secret %s is in %T %s", key, s.Name, o, o.GetName())
					}
				}
				if strings.Contains(r.notes, value) {
					t.Errorf("%s of Secret %s is in the notes", key, s.Name)
				}
			}
		}
		made := make(map[string]bool)
		for _, s := range all[*core.Secret](r) {
			made[s.Name] = true
			for key := range s.StringData {
				if strings.HasPrefix(s.Name, "mail") && s.StringData[key] == "" {
					t.Errorf("Secret %s: %s is empty", s.Name, key)
				}
			}
		}
		given, err := os.ReadFile(filepath.Join(chartDir, "ci", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range all[*certmanager.Certificate](r) {
			made[c.Spec.SecretName] = true
		}
		for name, template := range pods(r) {
			for ref, keys := range secretRefs(template) {
				if !made[ref] && !regexp.MustCompile(`\b`+regexp.QuoteMeta(ref)+`\b`).Match(given) {
					t.Errorf("%s: Secret %s is neither made nor given", name, ref)
				}
				for _, s := range all[*core.Secret](r) {
					for _, key := range keys {
						if _, ok := s.StringData[key]; s.Name == ref && !ok && s.Data[key] == nil {
							t.Errorf("%s: Secret %s has no %s", name, ref, key)
						}
					}
				}
			}
		}
	})
}

// secretRefs returns the keys of Secrets without which a pod does not start.
func secretRefs(pod *core.PodTemplateSpec) map[string][]string {
	refs := make(map[string][]string)
	for _, v := range pod.Spec.Volumes {
		if v.Secret != nil {
			for _, item := range v.Secret.Items {
				refs[v.Secret.SecretName] = append(refs[v.Secret.SecretName], item.Key)
			}
		}
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				refs[e.ValueFrom.SecretKeyRef.Name] = append(refs[e.ValueFrom.SecretKeyRef.Name], e.ValueFrom.SecretKeyRef.Key)
			}
		}
	}
	return refs
}

// A hook runs before anything else of the release is there, so that it may need only
// what was there before and hooks of a lower weight.
func TestMigrationBringsWhatItNeeds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values, secret, key, dsn string
	}{
		{"", "starling-postgres", "dsn", ""},
		{"migration: {existingSecret: {name: direct, key: uri}}", "direct", "uri", ""},
		{"migration: {dsn: 'postgres://direct'}", "post-starling-migrate", "dsn", "postgres://direct"},
		{"postgres: {existingSecret: {name: ''}, dsn: 'postgres://pooler'}", "post-starling-migrate", "dsn", "postgres://pooler"},
		{"{postgres: {existingSecret: {name: ''}, dsn: 'postgres://pooler'}, migration: {dsn: 'postgres://direct'}}", "post-starling-migrate", "dsn", "postgres://direct"},
	} {
		t.Run(c.values, func(t *testing.T) {
			t.Parallel()
			r := render(t, "post", minimal(t, c.values))
			job := one[*batch.Job](t, r, "-migrate")
			weight := hookWeight(t, job)
			if job.Spec.Template.Spec.ServiceAccountName != "default" {
				t.Errorf("service account %s may not be there yet", job.Spec.Template.Spec.ServiceAccountName)
			}
			refs := secretRefs(&job.Spec.Template)
			if len(refs) != 1 || !slices.Equal(refs[c.secret], []string{c.key}) {
				t.Errorf("the migration reads %v, want %s of %s", refs, c.key, c.secret)
			}
			if c.dsn == "" {
				return
			}
			secret := one[*core.Secret](t, r, c.secret)
			if secret.StringData[c.key] != c.dsn {
				t.Errorf("the connection string is %q, want %q", secret.StringData[c.key], c.dsn)
			}
			if hookWeight(t, secret) >= weight {
				t.Error("the Secret is not made before the Job")
			}
		})
	}
	trial := one[*batch.Job](t, render(t, "post", readValues(t, "trial-values.yaml")), "-migrate-1")
	if len(trial.Annotations) > 0 {
		t.Errorf("in a trial PostgreSQL comes with the release, and a hook would wait for it for ever: %v", trial.Annotations)
	}
	if found := all[*batch.Job](render(t, "post", minimal(t, "migration: {enabled: false}"))); len(found) > 0 {
		t.Error("a migration that was not wanted")
	}
}

func hookWeight(t *testing.T, o object) int {
	t.Helper()
	annotations := o.GetAnnotations()
	if annotations["helm.sh/hook"] != "pre-install,pre-upgrade" || !strings.Contains(annotations["helm.sh/hook-delete-policy"], "before-hook-creation") {
		t.Errorf("%s is no hook: %v", o.GetName(), annotations)
	}
	weight, err := strconv.Atoi(annotations["helm.sh/hook-weight"])
	if err != nil {
		t.Error(err)
	}
	return weight
}

// Who scales pods by load must not have its number undone by the next upgrade.
func TestReplicas(t *testing.T) {
	t.Parallel()
	fixed := render(t, "post", minimal(t, "replicas: 7"))
	if got := frontend(t, fixed).Spec.Replicas; got == nil || *got != 7 {
		t.Errorf("replicas: %v", got)
	}
	scaled := render(t, "post", minimal(t, "autoscaling: {enabled: true, sessions: 5000}"))
	if got := frontend(t, scaled).Spec.Replicas; got != nil {
		t.Errorf("replicas beside an autoscaler: %d", *got)
	}
	source, err := os.ReadFile("../../frontend/imap/metrics.go")
	if err != nil || !strings.Contains(string(source), `"starling_imap_sessions"`) {
		t.Errorf("the program has no figure of that name: %v", err)
	}
	metrics := one[*autoscaling.HorizontalPodAutoscaler](t, scaled, "").Spec.Metrics
	if len(metrics) != 2 || metrics[0].Resource.Name != core.ResourceCPU || metrics[1].Pods.Metric.Name != "starling_imap_sessions" ||
		metrics[1].Pods.Target.AverageValue.Value() != 5000 {
		t.Errorf("metrics: %+v", metrics)
	}
}

// A rolling update never has fewer pods than wanted, and a disruption budget always
// lets a machine be emptied, with one pod too.
func TestUpdates(t *testing.T) {
	t.Parallel()
	eachFile(t, func(t *testing.T, _ string, r *release) {
		d := frontend(t, r)
		if u := d.Spec.Strategy.RollingUpdate.MaxUnavailable; u.IntValue() != 0 {
			t.Errorf("maxUnavailable %v", u)
		}
		budget := all[*policy.PodDisruptionBudget](r)[0].Spec
		if budget.MinAvailable != nil || budget.MaxUnavailable.String() == "0" || *budget.UnhealthyPodEvictionPolicy != policy.AlwaysAllow {
			t.Errorf("disruption budget: %+v", budget)
		}
	})
}

// Pods are made anew when what they read only at their start changes, and only then.
func TestPodsAreMadeAnew(t *testing.T) {
	t.Parallel()
	const base = "{postgres: {existingSecret: {name: ''}, dsn: 'postgres://a'}}"
	template := func(more string) string {
		t.Helper()
		text, err := yaml.Marshal(frontend(t, render(t, "post", with(t, minimal(t, base), more))).Spec.Template)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := template("")
	for _, change := range []string{"{config: {log: {level: debug}}}", "{postgres: {dsn: 'postgres://b'}}", "{nats: {user: u, password: p}}"} {
		if template(change) == before {
			t.Errorf("%s changes no pod", change)
		}
	}
	for _, change := range []string{"{replicas: 9}", "{commonAnnotations: {a: b}}", "{services: {imap: {type: LoadBalancer}}}", "{migration: {dsn: 'postgres://c'}}", "{dashboard: {enabled: true}}"} {
		if template(change) != before {
			t.Errorf("%s makes pods anew, for nothing", change)
		}
	}
}

// Names keep within their limits, however long that of the release is.
func TestNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a-long-name-", 5)[:53] // Helm allows no longer one
	for _, file := range []string{"full-values.yaml", "trial-values.yaml", "bring-your-own-values.yaml"} {
		values := with(t, readValues(t, file), "{fullnameOverride: '', services: {abcdefghijklmno: {ports: {imap: 143}}}}")
		r := render(t, long, values)
		seen := make(map[string]bool)
		for _, o := range r.objects {
			if len(o.GetName()) > 63 {
				t.Errorf("%T %s has %d letters", o, o.GetName(), len(o.GetName()))
			}
			key := o.GetObjectKind().GroupVersionKind().String() + o.GetName()
			if seen[key] {
				t.Errorf("two of %s", key)
			}
			seen[key] = true
			if errs := validate(t, o); len(errs) > 0 {
				t.Errorf("%s: %v", o.GetName(), errs.ToAggregate())
			}
			if o.GetNamespace() != "mail" {
				t.Errorf("%T %s is in namespace %q", o, o.GetName(), o.GetNamespace())
			}
		}
	}
}

// Labels and annotations for all objects are on all.
func TestCommonMetadata(t *testing.T) {
	t.Parallel()
	for _, o := range render(t, "post", readValues(t, "full-values.yaml")).objects {
		if o.GetLabels()["team"] != "mail" || o.GetAnnotations()["example.com/owner"] != "mail" || o.GetLabels()["app.kubernetes.io/instance"] != "post" {
			t.Errorf("%T %s: labels %v, annotations %v", o, o.GetName(), o.GetLabels(), o.GetAnnotations())
		}
	}
}

// Values that the program needs in another form.
func TestDerived(t *testing.T) {
	t.Parallel()
	pod := frontend(t, render(t, "post", minimal(t, "cache: {disk: 3Gi}"))).Spec.Template.Spec
	if got := volume(&pod, "cache").EmptyDir.SizeLimit.Value(); got != 3<<30*11/10 {
		t.Errorf("cache: %d octets", got)
	}
	byDigest := frontend(t, render(t, "post", readValues(t, "bring-your-own-values.yaml"))).Spec.Template.Spec.Containers[0].Image
	if !strings.HasPrefix(byDigest, "registry.example/mail/starling@sha256:") {
		t.Errorf("image %s", byDigest)
	}
}

// The rules and the dashboard are those of deploy/.
func TestMonitoringIsThatOfDeploy(t *testing.T) {
	t.Parallel()
	r := render(t, "post", readValues(t, "full-values.yaml"))
	text, err := os.ReadFile("../../deploy/prometheus/starling.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var want monitoring.PrometheusRuleSpec
	linked := strings.ReplaceAll(string(text), "runbook_url: runbook.md#", "runbook_url: https://runbooks.example/starling#")
	if err := yaml.UnmarshalStrict([]byte(linked), &want); err != nil {
		t.Fatal(err)
	}
	got := one[*monitoring.PrometheusRule](t, r, "").Spec
	if len(got.Groups) == 0 || mustYAML(t, got) != mustYAML(t, want) {
		t.Error("the PrometheusRule is not deploy/prometheus/starling.rules.yaml")
	}
	for _, g := range got.Groups {
		for _, rule := range g.Rules {
			if rule.Alert != "" && !strings.HasPrefix(rule.Annotations["runbook_url"], "https://runbooks.example/starling#") {
				t.Errorf("alert %s: runbook_url is %q", rule.Alert, rule.Annotations["runbook_url"])
			}
		}
	}
	dashboard, err := os.ReadFile("../../deploy/grafana/starling.json")
	if err != nil {
		t.Fatal(err)
	}
	config := one[*core.ConfigMap](t, r, "-dashboard")
	if strings.TrimSpace(config.Data["starling.json"]) != strings.TrimSpace(string(dashboard)) || config.Labels["grafana_dashboard"] != "1" {
		t.Error("the dashboard is not deploy/grafana/starling.json, or Grafana's sidecar does not find it")
	}
}

func mustYAML(t *testing.T, v any) string {
	t.Helper()
	text, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The certificate is written to where pods read it.
func TestCertificate(t *testing.T) {
	t.Parallel()
	r := render(t, "post", readValues(t, "full-values.yaml"))
	pod := frontend(t, r).Spec.Template.Spec
	if got, want := one[*certmanager.Certificate](t, r, "").Spec.SecretName, volume(&pod, "tls").Secret.SecretName; got != want {
		t.Errorf("the certificate is in Secret %s, pods read %s", got, want)
	}
}

// The image is the one that deploy/Dockerfile makes.
func TestImage(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	r := render(t, "post", readValues(t, "minimal-values.yaml"))
	pod := frontend(t, r).Spec.Template.Spec
	user := strconv.FormatInt(*pod.SecurityContext.RunAsUser, 10)
	if !strings.Contains(string(text), "\nUSER "+user+":"+user+"\n") {
		t.Errorf("the image has no user %s", user)
	}
	program := regexp.MustCompile(`ENTRYPOINT \["([^"]+)"\]`).FindSubmatch(text)
	if program == nil || !strings.Contains(r.notes, "-- "+string(program[1])+" -c ") {
		t.Error("the notes do not name the program of the image")
	}
}

// A trial runs the same servers as deploy/compose.yaml.
func TestTrialImages(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, pod := range pods(render(t, "post", readValues(t, "trial-values.yaml"))) {
		image := pod.Spec.Containers[0].Image
		short := strings.TrimPrefix(strings.TrimPrefix(image, "docker.io/"), "library/")
		if strings.Contains(name, "-trial-") && !strings.Contains(string(text), "image: "+short+"\n") {
			t.Errorf("%s: %s is not in deploy/compose.yaml", name, image)
		}
	}
}

// The notes say what to do next, for this release.
func TestNotes(t *testing.T) {
	t.Parallel()
	for file, want := range map[string][]string{
		"minimal-values.yaml":        {"rollout status deploy/post-starling", "account add", "post-starling-lmtp.mail.svc, port 24", "post-starling-imap.mail.svc, port 143 (STARTTLS), port 993 (TLS)"},
		"bring-your-own-values.yaml": {"get service post-starling-imap`, port 993 (TLS)"},
		"full-values.yaml":           {"A metrics adapter must have a rule", "mail-webmail.mail.svc, port 143 (STARTTLS)"},
		"trial-values.yaml":          {"NOT FOR PRODUCTION"},
	} {
		notes := render(t, "post", readValues(t, file)).notes
		for _, w := range want {
			if !strings.Contains(notes, w) {
				t.Errorf("%s: the notes do not say %q:\n%s", file, w, notes)
			}
		}
		if trial := file == "trial-values.yaml"; strings.Contains(notes, "NOT FOR PRODUCTION") != trial {
			t.Errorf("%s: the notes say of a trial: %v", file, !trial)
		}
	}
}
