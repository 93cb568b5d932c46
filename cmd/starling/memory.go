package main

import (
	"math"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"
)

// memoryShare is the part of the memory allowed that Go's heap and stacks may take
// before the garbage collector works harder.
const memoryShare = 0.9

// limitMemory tells Go how much memory the container or the service may use, unless
// GOMEMLIMIT does.
func limitMemory(log *zap.Logger) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	membership, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return // not Linux
	}
	if most, ok := cgroupMemory("/sys/fs/cgroup", string(membership)); ok {
		limit := int64(memoryShare * float64(most))
		debug.SetMemoryLimit(limit)
		log.Info("memory limit", zap.Int64("bytes", limit), zap.Int64("of_cgroup", most))
	}
}

// cgroupMemory is the least limit of a process's cgroup and those above it, in the
// hierarchies that are mounted below root: the unified one, or that of the memory controller
// where there are several. membership is what /proc/self/cgroup says.
func cgroupMemory(root, membership string) (most int64, ok bool) {
	most = math.MaxInt64
	for line := range strings.Lines(membership) {
		_, line, _ = strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(line, ":")
		top, file := root, "memory.max"
		switch {
		case controllers == "":
		case slices.Contains(strings.Split(controllers, ","), "memory"):
			top, file = path.Join(root, "memory"), "memory.limit_in_bytes"
		default:
			continue
		}
		for group = path.Clean("/" + group); ; group = path.Dir(group) {
			text, err := os.ReadFile(path.Join(top, group, file))
			limit, bad := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
			if err == nil && bad == nil && limit > 0 { // there is none at the top, and "max" is no number
				most = min(most, limit)
			}
			if group == "/" {
				break
			}
		}
	}
	return most, most < unlimited
}

// unlimited is what no machine has: the older hierarchies say something like it for none.
const unlimited = 1 << 60
