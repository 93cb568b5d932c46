// Package deploy_test runs the examples of this folder with the programs that they are for.
package deploy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// patience is how long anything may take that a test waits for; it is long
// because machines that run tests are busy.
const patience = 60 * time.Second

// fullBuild makes the tests build the program with the Dockerfile's own command. That compiles
// everything anew, which takes a minute or two on two cores; without it only the linker runs,
// because all else was compiled for the tests of the other packages.
const fullBuild = "STARLING_TEST_IMAGE"

// built is the program, static as in the image.
var built struct {
	sync.Once
	dir, path string
	err       error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// program builds Starling, once for all tests.
func program(t *testing.T) string {
	t.Helper()
	// Where there is no libc to link statically, what needs a static program is skipped.
	command := "go build -ldflags='-s -w -linkmode=external -extldflags=-static' -o /rootfs/starling ./cmd/starling ||" +
		" go build -o /rootfs/starling ./cmd/starling"
	if os.Getenv(fullBuild) != "" {
		command = dockerRun(t, "go build")
	}
	built.Do(func() { built.dir, built.path, built.err = build(command) })
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

func build(command string) (dir, path string, err error) {
	// Not a test's folder: other users have to reach it.
	if dir, err = os.MkdirTemp("", "starling-deploy-"); err != nil {
		return "", "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // a program for all
		return dir, "", err
	}
	path = filepath.Join(dir, "starling")
	cmd := exec.Command("sh", "-c", strings.ReplaceAll(command, "/rootfs/starling", path))
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "TARGETOS="+runtime.GOOS, "TARGETARCH="+runtime.GOARCH)
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, "", fmt.Errorf("%s: %w\n%s", command, err, out)
	}
	return dir, path, nil
}

// need finds a program: where it is not, the test is skipped, but in CI it fails.
func need(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name) // in root's PATH only
	}
	if err != nil {
		missing(t, name+" is not installed; deploy/setup installs it")
	}
	return path
}

func missing(t *testing.T, why string) {
	t.Helper()
	if ci := os.Getenv("CI"); ci != "" && ci != "false" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// run runs a program to its end, which has to be a good one, and returns what it said.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := command(t, nil, "", name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return out
}

// command runs a program, with settings of Starling in the environment, and returns what it said.
func command(t *testing.T, env []string, stdin, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = environment(env)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// environment is this one without settings for tests, and with env.
func environment(env []string) []string {
	var all []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "STARLING_") {
			all = append(all, v)
		}
	}
	return append(all, env...)
}

// process is a program that runs beside a test.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed after its end

	mu      sync.Mutex
	said    bytes.Buffer
	changed chan struct{} // closed when it says more
}

// start starts a program, which is ended with the test.
func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, name: filepath.Base(cmd.Path), cmd: cmd, done: make(chan struct{}), changed: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p, p
	cmd.WaitDelay = time.Second // for what it has started and left behind
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true // so that a Ctrl-C at the tests is not one at the program
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // ProcessState has the outcome
		close(p.done)
	}()
	t.Cleanup(func() {
		p.end()
		if t.Failed() {
			t.Logf("%s said:\n%s", p.name, p.output())
		}
	})
	return p
}

// Write takes down what the program says.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
	return p.said.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

// await waits until the program has said something that matches, and returns it, or its first group.
func (p *process) await(pattern string) string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	late := time.After(patience)
	for {
		p.mu.Lock()
		found, changed := re.FindStringSubmatch(p.said.String()), p.changed
		p.mu.Unlock()
		if found != nil {
			return found[len(found)-1]
		}
		select {
		case <-changed:
		case <-p.done:
			p.t.Fatalf("%s ended and had not said %s", p.name, pattern)
		case <-late:
			p.t.Fatalf("%s has not said %s", p.name, pattern)
		}
	}
}

// signal sends a signal, if the program still runs.
func (p *process) signal(s os.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("%s: %v: %v", p.name, s, err)
	}
}

// end stops the program, at last by force, and returns its exit status.
func (p *process) end() int {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Errorf("%s did not end by SIGTERM", p.name)
		p.signal(syscall.SIGKILL)
		<-p.done
	}
	return p.cmd.ProcessState.ExitCode()
}

// eventually asks again and again until the answer is good. It is for what is
// behind another program, which cannot be waited for in any other way.
func eventually(t *testing.T, what string, good func() bool) {
	t.Helper()
	late := time.After(patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !good() {
		select {
		case <-late:
			t.Fatalf("not so after %v: %s", patience, what)
		case <-tick.C:
		}
	}
}

// get asks an HTTP server, and returns 0 if there is none.
func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(response.Body); err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, b.String()
}

// read reads a file of this folder.
func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// put writes a file that everybody may read.
func put(t *testing.T, name, content string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// replace is strings.Replace of something that has to be there.
func replace(t *testing.T, s, old, with string) string {
	t.Helper()
	if !strings.Contains(s, old) {
		t.Fatalf("there is no %q to be replaced in:\n%s", old, s)
	}
	return strings.ReplaceAll(s, old, with)
}

// variables are the settings in the environment that the program knows.
func variables(t *testing.T) map[string]bool {
	t.Helper()
	var tree map[string]any
	if err := yaml.Unmarshal([]byte(run(t, program(t), "config")), &tree); err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool)
	var walk func(prefix string, tree map[string]any)
	walk = func(prefix string, tree map[string]any) {
		for key, value := range tree {
			name := prefix + "_" + strings.ToUpper(key)
			if below, ok := value.(map[string]any); ok {
				walk(name, below)
				continue
			}
			known[name] = true
		}
	}
	walk("STARLING", tree)
	if len(known) < 20 {
		t.Fatalf("only %d settings", len(known))
	}
	return known
}

// exists reports whether a file of the repository is there.
func exists(name string) bool {
	_, err := os.Stat(name)
	return !errors.Is(err, fs.ErrNotExist)
}
