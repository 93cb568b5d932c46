package chart_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// buildProgram builds the program that the chart is for.
var buildProgram = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "starling")
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "starling")
	cmd := exec.Command("go", "build", "-o", program, "./cmd/starling") //nolint:noctx // ends with the test
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return program, nil
})

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // Helm says that it follows links
	code := m.Run()
	if program, err := buildProgram(); err == nil {
		os.RemoveAll(filepath.Dir(program))
	}
	os.Exit(code)
}

// run runs the program with only these variables, and returns what it says and its status.
func run(t *testing.T, env []string, args ...string) (string, int) {
	t.Helper()
	program, err := buildProgram()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append([]string{"PATH=/nowhere"}, env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", args, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// settings are the program's settings and their defaults, by their keys.
func settings(t *testing.T) map[string]any {
	t.Helper()
	out, code := run(t, nil, "config")
	if code != 0 {
		t.Fatal(out)
	}
	var tree map[string]any
	if err := yaml.Unmarshal([]byte(out), &tree); err != nil {
		t.Fatal(err)
	}
	return flat(tree, "")
}

// flat is a tree of maps as one, with the path to each leaf as its key.
func flat(tree map[string]any, prefix string) map[string]any {
	leaves := make(map[string]any)
	for key, value := range tree {
		if below, ok := value.(map[string]any); ok {
			maps.Copy(leaves, flat(below, prefix+key+"."))
			continue
		}
		leaves[prefix+key] = value
	}
	return leaves
}

// container is a container's world, below a folder: its mounted files, and what it is started with.
type container struct {
	args, env []string
	config    map[string]any // of its configuration file
}

// start puts down what a kubelet would mount for the first container of a pod. Secrets that are not of the
// release hold values of the right form.
func start(t *testing.T, r *release, pod *core.PodTemplateSpec) container {
	t.Helper()
	root := t.TempDir()
	below := strings.NewReplacer("/etc/starling/", root+"/etc/starling/", "/var/tmp/starling", root+"/var/tmp/starling", "/var/cache/starling", root+"/var/cache/starling")
	c := pod.Spec.Containers[0]
	var made container
	for _, m := range c.VolumeMounts {
		dir := filepath.Join(root, m.MountPath)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		files := make(map[string]string)
		switch v := volume(&pod.Spec, m.Name); {
		case v.ConfigMap != nil && v.ConfigMap.Name != "extra":
			for name, text := range one[*core.ConfigMap](t, r, v.ConfigMap.Name).Data {
				files[name] = below.Replace(text)
				if err := yaml.UnmarshalStrict([]byte(text), &made.config); err != nil {
					t.Fatal(err)
				}
			}
		case v.Secret != nil:
			for _, item := range v.Secret.Items {
				files[item.Path] = secretValue(r, v.Secret.SecretName, item.Key, item.Path)
			}
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, arg := range c.Args {
		made.args = append(made.args, below.Replace(arg))
	}
	for _, e := range c.Env {
		value := e.Value
		if e.ValueFrom != nil {
			value = secretValue(r, e.ValueFrom.SecretKeyRef.Name, e.ValueFrom.SecretKeyRef.Key, e.Name)
		}
		made.env = append(made.env, e.Name+"="+below.Replace(value))
	}
	return made
}

func secretValue(r *release, name, key, what string) string {
	for _, s := range all[*core.Secret](r) {
		if s.Name == name && s.Data[key] != nil {
			return string(s.Data[key])
		} else if s.Name == name {
			return s.StringData[key]
		}
	}
	if what == "dsn" {
		return "postgres://starling@127.0.0.1:1/starling"
	}
	return "given"
}

// The program takes each configuration whole: it finds nothing wrong but what the test puts in.
func TestProgramTakesTheConfiguration(t *testing.T) {
	t.Parallel()
	eachFile(t, func(t *testing.T, _ string, r *release) {
		c := start(t, r, &frontend(t, r).Spec.Template)
		out, code := run(t, append(c.env, "STARLING_AUTH_HASHERS=-1"), c.args...)
		if want := "starling: auth.hashers: is -1; want 0 or more\n"; code != 2 || out != want {
			t.Errorf("status %d: %s\nwant 2 and only %s", code, out, want)
		}
		for name, pod := range pods(r) {
			if !strings.Contains(name, "-migrate") {
				continue
			}
			// That PostgreSQL is not there is all that is wrong.
			c := start(t, r, pod)
			env := slices.DeleteFunc(c.env, func(e string) bool { return strings.HasPrefix(e, "STARLING_POSTGRES_DSN_FILE=") })
			if len(env) != len(c.env)-1 {
				t.Errorf("the migration's environment: %v", c.env)
			}
			if out, code := run(t, append(env, "STARLING_POSTGRES_DSN=postgres://starling@127.0.0.1:1/starling"), c.args...); code != 1 {
				t.Errorf("migration: status %d: %s", code, out)
			}
			if out, code := run(t, append(env, "STARLING_POSTGRES_DSN_FILE=/nowhere"), c.args...); code != 2 || !strings.Contains(out, "dsn_file") {
				t.Errorf("migration without its file: status %d: %s", code, out)
			}
		}
	})
}

// What probes and Prometheus ask for is there, from the start and with nothing else up: a pod whose PostgreSQL is away
// is alive and not ready.
func TestProbesAreAnswered(t *testing.T) {
	t.Parallel()
	r := render(t, "post", with(t, readValues(t, "trial-values.yaml"), "serviceMonitor: {enabled: true}"))
	c := start(t, r, &frontend(t, r).Spec.Template)
	dsn := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(dsn, []byte("postgres://starling@127.0.0.1:1/starling"), 0o600); err != nil {
		t.Fatal(err)
	}
	admin := serve(t, c.args, append(c.env,
		"STARLING_IMAP_LISTEN=127.0.0.1:0", "STARLING_IMAP_LISTEN_TLS=127.0.0.1:0", "STARLING_LMTP_LISTEN=127.0.0.1:0", "STARLING_ADMIN_LISTEN=127.0.0.1:0",
		"STARLING_POSTGRES_DSN_FILE="+dsn, "STARLING_BLOBS_S3_ENDPOINT=http://127.0.0.1:1", "STARLING_NATS_URLS=nats://127.0.0.1:1"))
	probes := frontend(t, r).Spec.Template.Spec.Containers[0]
	for path, want := range map[string]int{
		probes.StartupProbe.HTTPGet.Path:                                 http.StatusOK,
		probes.LivenessProbe.HTTPGet.Path:                                http.StatusOK,
		probes.ReadinessProbe.HTTPGet.Path:                               http.StatusServiceUnavailable,
		one[*monitoring.ServiceMonitor](t, r, "").Spec.Endpoints[0].Path: http.StatusOK,
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+admin+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("GET %s: status %d, want %d", path, response.StatusCode, want)
		}
	}
}

// serve runs the program until the test ends, and returns where its admin listener is.
func serve(t *testing.T, args, env []string) string {
	t.Helper()
	program, err := buildProgram()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = env
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	output, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_, _ = io.Copy(io.Discard, output) // Wait wants it read
		if err := cmd.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("after SIGTERM: %v", err)
		}
	})
	var said []string
	for lines := bufio.NewScanner(output); lines.Scan(); {
		var line struct{ Msg, For, Address string }
		said = append(said, lines.Text())
		if err := json.Unmarshal(lines.Bytes(), &line); err == nil && line.Msg == "listening" && line.For == "HTTP" {
			return line.Address
		}
	}
	t.Fatalf("no admin listener:\n%s", strings.Join(said, "\n"))
	return ""
}

// Every variable of ours exists in the program, in whatever container.
func TestVariables(t *testing.T) {
	t.Parallel()
	known := make(map[string]bool)
	for key := range settings(t) {
		known["STARLING_"+strings.ToUpper(strings.ReplaceAll(key, ".", "_"))] = true
	}
	eachFile(t, func(t *testing.T, _ string, r *release) {
		for name, pod := range pods(r) {
			for _, e := range pod.Spec.Containers[0].Env {
				if strings.HasPrefix(e.Name, "STARLING_") && !known[e.Name] {
					t.Errorf("%s: the program has no setting for %s", name, e.Name)
				}
			}
		}
	})
}

// Where the program listens is where the pod says it does, probes ask the admin listener, and Services
// have the ports that the program has without configuration.
func TestPortsOfTheProgram(t *testing.T) {
	t.Parallel()
	eachFile(t, func(t *testing.T, _ string, r *release) {
		d := frontend(t, r)
		config := flat(start(t, r, &d.Spec.Template).config, "")
		for name, key := range map[string]string{"imap": "imap.listen", "imaps": "imap.listen_tls", "lmtp": "lmtp.listen", "admin": "admin.listen"} {
			var want []string
			for _, p := range d.Spec.Template.Spec.Containers[0].Ports {
				if p.Name == name {
					want = append(want, fmt.Sprintf(":%d", p.ContainerPort))
					if p.ContainerPort < 1024 {
						t.Errorf("port %d needs a capability", p.ContainerPort)
					}
				}
			}
			if got := stringsOf(config[key]); !slices.Equal(got, want) {
				t.Errorf("%s is %v, the pod's port %s %v", key, got, name, want)
			}
		}
		c := d.Spec.Template.Spec.Containers[0]
		for path, probe := range map[string][]*core.Probe{"/livez": {c.StartupProbe, c.LivenessProbe}, "/readyz": {c.ReadinessProbe}} {
			for _, p := range probe {
				if p.HTTPGet.Path != path || p.HTTPGet.Port.StrVal != "admin" {
					t.Errorf("probe of %v, want %s at admin", p.HTTPGet, path)
				}
			}
		}
	})
	defaults := settings(t)
	for _, s := range all[*core.Service](render(t, "post", minimal(t, ""))) {
		for _, p := range s.Spec.Ports {
			key := map[string]string{"imap": "imap.listen", "imaps": "imap.listen_tls", "lmtp": "lmtp.listen", "admin": "admin.listen"}[p.Name]
			if got := stringsOf(defaults[key]); len(got) != 1 || !strings.HasSuffix(got[0], fmt.Sprintf(":%d", p.Port)) {
				t.Errorf("Service %s has port %d; %s is %v without configuration", s.Name, p.Port, key, got)
			}
		}
	}
}

func stringsOf(list any) (all []string) {
	items, _ := list.([]any)
	for _, item := range items {
		all = append(all, fmt.Sprint(item))
	}
	return all
}

// What the program does after SIGTERM is over before Kubernetes kills it, with some time to spare.
func TestDrainFits(t *testing.T) {
	t.Parallel()
	eachFile(t, func(t *testing.T, _ string, r *release) {
		template := frontend(t, r).Spec.Template
		config := flat(start(t, r, &template).config, "")
		var drain time.Duration
		for _, key := range []string{"shutdown_delay", "shutdown_grace"} {
			d, err := time.ParseDuration(fmt.Sprint(config[key]))
			if err != nil || d <= 0 {
				t.Errorf("%s: %v, %v", key, config[key], err)
			}
			drain += d
		}
		if period := time.Duration(*template.Spec.TerminationGracePeriodSeconds) * time.Second; period < drain+5*time.Second {
			t.Errorf("killed after %v, and needs %v", period, drain)
		}
		// Whoever routes to a pod must hear that it ends before it takes no more connections.
		if delay, _ := time.ParseDuration(fmt.Sprint(config["shutdown_delay"])); delay < 5*time.Second {
			t.Errorf("shutdown_delay %v", delay)
		}
	})
}

// kept are the settings that no value gives: secrets, which are files or variables, and what a pod cannot have.
var kept = []string{
	"postgres.dsn", "blobs.s3.access_key", "blobs.s3.secret_key", "nats.user", "nats.password", "nats.token",
	"blobs.disk", // all nodes would have to see it
}

// Each setting of the program is a value below config, follows from other values, or is kept back: a new setting needs a place.
func TestEverySettingHasAPlace(t *testing.T) {
	t.Parallel()
	place := make(map[string]string)
	put := func(key, what string) {
		if other, ok := place[key]; ok && other != what {
			t.Errorf("%s is %s and %s", key, other, what)
		}
		place[key] = what
	}
	for _, key := range kept {
		put(key, "kept back")
	}
	for key := range schemaLeaves(t, "config") {
		put(key, "a value below config")
	}
	files := []string{"full-values.yaml", "bring-your-own-values.yaml", "minimal-values.yaml"}
	for _, file := range files {
		values := readValues(t, file)
		r := render(t, "post", with(t, values, "nats: {existingSecret: {credentialsKey: creds}}"))
		below, _ := values["config"].(map[string]any)
		given := flat(below, "")
		for key := range flat(start(t, r, &frontend(t, r).Spec.Template).config, "") {
			if _, ok := given[key]; !ok && place[key] != "a value below config" {
				put(key, "follows from other values")
			}
		}
	}
	known := settings(t)
	for key := range known {
		if _, ok := place[key]; !ok {
			t.Errorf("the setting %s has no place in the chart: give it one below config in values.schema.json", key)
		}
	}
	for key, what := range place {
		if _, ok := known[key]; !ok {
			t.Errorf("%s, %s, is no setting of the program", key, what)
		}
	}
}

// What values.yaml sets for the program without need is the program's default.
func TestDefaultsAreTheProgram(t *testing.T) {
	t.Parallel()
	c, err := loadChart()
	if err != nil {
		t.Fatal(err)
	}
	config, _ := c.Values["config"].(map[string]any)
	defaults := settings(t)
	for key, value := range flat(config, "") {
		got, want := fmt.Sprint(value), fmt.Sprint(defaults[key])
		if d, err := time.ParseDuration(got); err == nil {
			got = d.String()
		}
		if got != want {
			t.Errorf("config.%s is %s, the program's default %s", key, got, want)
		}
	}
}

// Each command in the notes and in the README is one of the program, and so are its flags.
func TestCommands(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	texts := [][]byte{readme}
	for _, file := range []string{"minimal-values.yaml", "trial-values.yaml"} {
		texts = append(texts, []byte(render(t, "post", readValues(t, file)).notes))
	}
	checked := 0
	for line := range bytes.Lines(bytes.Join(texts, []byte("\n"))) {
		_, command, found := strings.Cut(string(line), "/starling -c /etc/starling/config/starling.yaml ")
		if !found {
			continue
		}
		checked++
		// --help makes it look at flags and names of commands, and do nothing.
		args := strings.Fields(strings.TrimRight(strings.Split(command, "<")[0], "\n"))
		if out, code := run(t, nil, append(args, "--help")...); code != 0 || !strings.Contains(out, "starling "+strings.Join(args[:2], " ")) {
			t.Errorf("%s: status %d: %s", command, code, out)
		}
	}
	if checked < 6 {
		t.Errorf("only %d commands found", checked)
	}
}
