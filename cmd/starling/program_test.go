package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// asProgram makes the test's binary run as the program itself.
const asProgram = "STARLING_TEST_AS_PROGRAM"

// patience is how long anything may take that a test waits for; it is long
// because machines that run tests are busy.
const patience = 60 * time.Second

// program is a run of starling that a test started.
type program struct {
	t      *testing.T
	cmd    *exec.Cmd
	done   chan struct{} // closed after its end
	output watched       // both streams, as they came

	mu     sync.Mutex
	stdout bytes.Buffer
	stderr bytes.Buffer
}

// invocation is how the program is to be started.
type invocation struct {
	args   []string
	env    []string
	stdin  string
	dir    string
	binary string // "": this one
	as     *syscall.Credential
}

// start starts the program. It is killed when the test ends.
func start(t *testing.T, in invocation) *program {
	t.Helper()
	binary := in.binary
	if binary == "" {
		var err error
		if binary, err = os.Executable(); err != nil {
			t.Fatal(err)
		}
	}
	p := &program{t: t, done: make(chan struct{})}
	p.output.changed = make(chan struct{})
	p.cmd = exec.Command(binary, in.args...)
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), asProgram + "=1"}, in.env...)
	p.cmd.Dir = in.dir
	p.cmd.Stdin = strings.NewReader(in.stdin)
	p.cmd.Stdout = io.MultiWriter(locked{&p.mu, &p.stdout}, &p.output)
	p.cmd.Stderr = io.MultiWriter(locked{&p.mu, &p.stderr}, &p.output)
	// A group of its own, so that a Ctrl-C at the tests is not one at the program.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: in.as}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.ExtraFiles = []*os.File{read}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = read.Close() // the program has its own
	go func() {
		_ = p.cmd.Wait() // ProcessState has the outcome
		_ = write.Close()
		close(p.done)
		p.output.end()
	}()
	t.Cleanup(p.kill)
	return p
}

// locked is a writer of which another goroutine may read.
type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// kill ends the program at once, and waits for its end.
func (p *program) kill() {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Error(err)
	}
	<-p.done
}

// stop sends a signal, waits for the program's end, and returns its exit status.
func (p *program) stop(signal os.Signal) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		p.t.Errorf("%v: %v\n%s", signal, err, p.output.String())
	}
	return p.wait()
}

// wait waits for the program's end, and returns its exit status.
func (p *program) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("%v did not end:\n%s", p.cmd.Args[1:], p.output.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *program) text() (stdout, stderr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stdout.String(), p.stderr.String()
}

// watched is what a program has said; one can wait for more.
type watched struct {
	mu      sync.Mutex
	text    []byte
	ended   bool
	changed chan struct{}
}

// Write appends what the program says.
func (w *watched) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, b...)
	close(w.changed)
	w.changed = make(chan struct{})
	return len(b), nil
}

func (w *watched) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	close(w.changed)
	w.changed = make(chan struct{})
}

// String is what was said so far.
func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.text)
}

// waitFor waits until the program's output is as wanted.
func (p *program) waitFor(what string, good func(output string) bool) string {
	p.t.Helper()
	late := time.After(patience)
	for {
		p.output.mu.Lock()
		text, ended, changed := string(p.output.text), p.output.ended, p.output.changed
		p.output.mu.Unlock()
		switch {
		case good(text):
			return text
		case ended:
			p.t.Fatalf("%v ended before %s:\n%s", p.cmd.Args[1:], what, text)
		}
		select {
		case <-changed:
		case <-late:
			p.t.Fatalf("%v: no %s:\n%s", p.cmd.Args[1:], what, text)
		}
	}
}

// run runs the program to its end, and returns what it said and its exit status.
func run(t *testing.T, in invocation) (stdout, stderr string, status int) {
	t.Helper()
	p := start(t, in)
	status = p.wait()
	stdout, stderr = p.text()
	return stdout, stderr, status
}

// listens says that a node serves, by its log.
func listens(output string) bool { return addresses(output)["LMTP"] != "" }

// addresses are where a node listens, by IMAP, IMAPS, LMTP and HTTP, as its log says.
func addresses(output string) map[string]string {
	found := make(map[string]string)
	lines := bufio.NewScanner(strings.NewReader(output))
	for lines.Scan() {
		var entry struct{ Msg, For, Address string }
		if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.Msg == "listening" {
			found[entry.For] = entry.Address
		}
	}
	return found
}

// runTool runs another program, and returns its output; it fails the test unless
// that ends well.
func runTool(t *testing.T, stdin string, env []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	ours := func(s string) bool { return strings.HasPrefix(s, "STARLING_") } // of the tests, no settings
	cmd.Env = append(slices.DeleteFunc(os.Environ(), ours), env...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}
