package metadatatest

import (
	"os"
	"syscall"
)

// dir is where the server keeps its files: in memory if there is plenty, since
// a new database is some hundred files.
func dir() string {
	const memory, plenty = "/dev/shm", 4 << 30
	var stat syscall.Statfs_t
	if syscall.Statfs(memory, &stat) == nil && stat.Bavail*uint64(stat.Bsize) >= plenty { //nolint:gosec // not negative
		if f, err := os.CreateTemp(memory, "starling-test-"); err == nil {
			_ = f.Close()
			if os.Remove(f.Name()) == nil {
				return memory
			}
		}
	}
	return "/tmp"
}
