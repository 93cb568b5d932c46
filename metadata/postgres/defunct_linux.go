package postgres

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// defunct says that the lock file in dir names a process that was killed but
// not yet collected by its parent, which PostgreSQL takes for a running one.
// Where nobody will ever collect it, as in a container without an init, the
// lock file is removed once nothing is attached to the server's memory any more.
func defunct(dir string) bool {
	lock, err := readLock(dir)
	if err != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(lock.pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, found := strings.Cut(string(stat), ") ")
	if !found || !strings.HasPrefix(rest, "Z") {
		return false
	}
	if !attached(lock.shm) {
		return os.Remove(filepath.Join(dir, "postmaster.pid")) == nil
	}
	return true
}

// attached says whether a process uses the shared memory segment; it errs on
// the safe side.
func attached(id string) bool {
	file, err := os.Open("/proc/sysvipc/shm")
	if err != nil {
		return true
	}
	defer file.Close()
	scan := bufio.NewScanner(file)
	for scan.Scan() {
		// key shmid perms size cpid lpid nattch …
		if fields := strings.Fields(scan.Text()); len(fields) > 6 && fields[1] == id {
			return fields[6] != "0"
		}
	}
	return scan.Err() != nil
}
