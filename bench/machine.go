package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// syncs is how often the disk is asked to sync, to know how long that takes.
const syncs = 200

// syncTime is how long a page that was written takes to be on the disk of a folder, in the middle and for 99 of 100.
func syncTime(folder string) (p50, p99 time.Duration, err error) {
	f, err := os.Create(filepath.Join(folder, "sync"))
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = os.Remove(f.Name()) }() // its folder goes too
	times := make([]float64, syncs)
	page := make([]byte, 4096)
	for i := range times {
		begin := time.Now()
		if _, err := f.Write(page); err != nil {
			return 0, 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, 0, err
		}
		times[i] = float64(time.Since(begin))
	}
	middle := median(times) // sorts
	return time.Duration(middle), time.Duration(times[syncs*99/100]), f.Close()
}

// machine says on what was measured, and what; given says that Starling was not built from this tree.
func machine(ctx context.Context, folder string, s *starling, d *dovecot, given bool) ([]string, error) {
	p50, p99, err := syncTime(folder)
	if err != nil {
		return nil, fmt.Errorf("measure the disk: %w", err)
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // Linux has it
	memory, _ := os.ReadFile("/proc/meminfo")
	var kib int
	if fields := strings.Fields(string(memory)); len(fields) > 1 {
		kib = number(fields[1])
	}
	system := "Linux"
	if release, err := os.ReadFile("/etc/os-release"); err == nil {
		for line := range strings.Lines(string(release)) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
				system = strings.Trim(name, `"`)
			}
		}
	}
	lines := []string{fmt.Sprintf("%s, %d cores, %d GiB, %s, kernel %s; write and sync of 4 KiB: %.2f ms in the middle, %.2f ms for 99 %%.",
		processor(), runtime.NumCPU(), (kib+1<<19)>>20, system, strings.TrimSpace(string(kernel)), p50.Seconds()*1000, p99.Seconds()*1000)}
	commit := "from elsewhere" // then what is in this folder says nothing of it
	if !given {
		out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output()
		if err != nil {
			out = []byte("of an unknown version")
		}
		commit = strings.TrimSpace(string(out))
	}
	parts := []string{fmt.Sprintf("Starling %s (%s)", commit, runtime.Version())}
	if version, err := s.psql(ctx, "show server_version"); err == nil {
		fsync, _ := s.psql(ctx, "show fsync") // as the one before
		parts = append(parts, "PostgreSQL "+strings.Fields(version)[0]+", fsync "+fsync)
	}
	parts = append(parts, "versitygw, which does not sync what it stores", "NATS")
	if d != nil {
		parts = append(parts, "Dovecot "+d.version+" with sdbox, mail_fsync=optimized")
	}
	return append(lines, strings.Join(parts, "; ")+"."), nil
}

// processor is what the kernel calls it.
func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // without it, it has no name
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// number reads what the system wrote.
func number(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}

// busy is the CPU time that this process and all that it started have used.
func busy() time.Duration {
	ticks := 0
	parent, times := make(map[int]int), make(map[int]int)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is good
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		pid := number(filepath.Base(filepath.Dir(file)))
		parent[pid], times[pid] = number(fields[1]), number(fields[11])+number(fields[12])
	}
	self := syscall.Getpid()
	for pid := range times {
		for at := pid; at > 1; at = parent[at] {
			if at == self {
				ticks += times[pid]
				break
			}
		}
	}
	return time.Duration(ticks) * time.Second / 100 // the kernel's unit here, on every system
}

// settle waits until what the servers do after a load is done, such as writing to disk what was acknowledged, but not for long.
func settle(ctx context.Context) {
	const interval, most = 200 * time.Millisecond, 3 * time.Second
	before := busy()
	for began := time.Now(); time.Since(began) < most; {
		pause(ctx, interval)
		now := busy()
		if now-before <= interval/10 || ctx.Err() != nil {
			return
		}
		before = now
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
