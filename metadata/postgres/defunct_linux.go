package postgres

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// defunct says that the lock file in dir names a process that was killed, of which
// something is left that PostgreSQL takes for a running server: processes that it had
// started, which still use its memory and end soon, or itself, not yet collected by its parent.
// Where nobody will ever collect it, as in a container without an init, the
// lock file is removed once nothing is attached to the server's memory any more.
func defunct(dir string) bool {
	lock, err := readLock(dir)
	if err != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(lock.pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) {
		used, err := attached(lock.shm)
		return used && err == nil
	}
	if err != nil {
		return false
	}
	_, rest, found := strings.Cut(string(stat), ") ")
	if !found || !strings.HasPrefix(rest, "Z") {
		return false
	}
	if used, err := attached(lock.shm); !used && err == nil {
		return os.Remove(filepath.Join(dir, "postmaster.pid")) == nil
	}
	return true
}

// attached says whether a process uses the shared memory segment.
func attached(id string) (bool, error) {
	file, err := os.Open("/proc/sysvipc/shm")
	if err != nil {
		return false, err
	}
	defer file.Close()
	scan := bufio.NewScanner(file)
	for scan.Scan() {
		// key shmid perms size cpid lpid nattch …
		if fields := strings.Fields(scan.Text()); len(fields) > 6 && fields[1] == id {
			return fields[6] != "0", nil
		}
	}
	return false, scan.Err()
}
