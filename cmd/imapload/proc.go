package main

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// usage is what processes have used, as Linux tells it; elsewhere it is 0.
type usage struct {
	server, client float64 // seconds of CPU
	memory         int64   // of the server; what is shared is divided among those who share it
}

// clockTicks is in what /proc counts CPU time, in a second; it is the same on every
// system that Go runs on.
const clockTicks = 100

// usageOf is what processes, all that they started, and this one have used. The time
// of those that ended is with whom they were started by.
func usageOf(roots []int) usage {
	var own syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &own) // cannot fail for this process
	u := usage{client: seconds(own.Utime) + seconds(own.Stime)}
	if len(roots) == 0 {
		return u
	}
	started := make(map[int][]int) // by whom
	times := make(map[int]float64)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is good
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file))) // the pattern says so
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		parent, _ := strconv.Atoi(fields[1]) // the kernel writes numbers
		started[parent] = append(started[parent], pid)
		for _, field := range fields[11:15] { // utime, stime, and those of children that ended
			ticks, _ := strconv.ParseFloat(field, 64) // the kernel writes numbers
			times[pid] += ticks / clockTicks
		}
	}
	seen := make(map[int]bool)
	for todo := roots; len(todo) > 0; {
		pid := todo[0]
		todo = append(todo[1:len(todo):len(todo)], started[pid]...)
		if seen[pid] {
			continue
		}
		seen[pid] = true
		u.server += times[pid]
		u.memory += memoryOf(pid)
	}
	return u
}

func seconds(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }

// memoryOf is a process's proportional memory in octets.
func memoryOf(pid int) int64 {
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
	if err != nil {
		return 0 // it has ended
	}
	defer func() { _ = f.Close() }() // it was only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64) // the kernel writes numbers
			return kib << 10
		}
	}
	return 0
}
