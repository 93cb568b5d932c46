package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// endTime is how long a process may take to end before it is killed.
const endTime = 20 * time.Second

// process is a program that runs until end.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	said *output
}

// start runs a program. It ends with this process, where the system can see to that.
func start(name string, env []string, path string, args ...string) (*process, error) {
	p := &process{name: name, done: make(chan struct{}), said: &output{changed: make(chan struct{})}}
	p.cmd = exec.CommandContext(context.Background(), path, args...) //nolint:gosec // what this program is for; end ends it
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr, p.cmd.SysProcAttr = env, p.said, p.said, processAttr()
	started := make(chan error)
	go func() {
		// The parent at whose end it ends is a thread, which must stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // how it ended is told by what it said
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// end asks the process to end, and kills it when it takes too long.
func (p *process) end() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", p.name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(endTime):
		_ = p.cmd.Process.Kill() // it is to be gone
		<-p.done
		return fmt.Errorf("%s did not end when it was asked to", p.name)
	}
}

// output is what a process says; one can wait for more.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

// Write appends what is said.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(b)
}

// next is what was said so far, and a channel that is closed when there is more.
func (o *output) next() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String(), o.changed
}

// await waits until found likes what the process has said so far.
func (p *process) await(ctx context.Context, found func(said string) bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		said, changed := p.said.next()
		if found(said) {
			return nil
		}
		select {
		case <-changed:
		case <-p.done:
			said, _ := p.said.next()
			return fmt.Errorf("%s ended:\n%s", p.name, said)
		case <-ctx.Done():
			return fmt.Errorf("%s does not get ready: %w\n%s", p.name, ctx.Err(), said)
		}
	}
}
