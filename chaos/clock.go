package chaos

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"
)

// clockEnv names the file of a clock to a program that was built with [Clocked].
const clockEnv = "CHAOS_CLOCK"

// Clocked are the changes that make a program whose wall clock goes wrong by what a file says, eight octets of
// nanoseconds that it maps into its memory: so that it steps while the program runs, as when a machine is set right. Time that is
// measured, which is what waits and deadlines go by, is not changed by that, nor is it here.
func Clocked() []Change {
	return []Change{
		{
			File: "GOROOT/time/time.go",
			Old:  "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n",
			New:  "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n\tsec, nsec = stepped(sec, nsec)\n",
		},
		{File: "GOROOT/time/stepped.go", New: steppedSource},
	}
}

const steppedSource = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var step = mapStep()

func mapStep() *atomic.Int64 {
	path, ok := syscall.Getenv("` + clockEnv + `")
	if !ok {
		return nil
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY, 0)
	if err != nil {
		panic("open the clock: " + err.Error())
	}
	octets, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("map the clock: " + err.Error())
	}
	_ = syscall.Close(fd)
	return (*atomic.Int64)(unsafe.Pointer(&octets[0]))
}

func stepped(sec int64, nsec int32) (int64, int32) {
	if step == nil {
		return sec, nsec
	}
	n := int64(nsec) + step.Load()
	sec, n = sec+n/1e9, n%1e9
	if n < 0 {
		sec, n = sec-1, n+1e9
	}
	return sec, int32(n)
}
`

// clock is the file of a clock.
type clock struct{ path string }

func newClock(path string) (*clock, error) {
	c := &clock{path}
	if err := os.WriteFile(path, make([]byte, 8), 0o600); err != nil {
		return nil, fmt.Errorf("make a clock: %w", err)
	}
	return c, nil
}

// set lets the clock differ from the true one by d from now on.
func (c *clock) set(d time.Duration) error {
	f, err := os.OpenFile(c.path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set a clock: %w", err)
	}
	defer f.Close()
	octets := binary.NativeEndian.AppendUint64(nil, uint64(d)) //nolint:gosec // the same bits
	if _, err := f.WriteAt(octets, 0); err != nil {
		return fmt.Errorf("set a clock: %w", err)
	}
	return nil
}
