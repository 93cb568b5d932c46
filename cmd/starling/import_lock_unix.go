//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockFile keeps others from locking the file, until it is closed or the process ends.
func lockFile(f *os.File) error {
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) //nolint:gosec // a descriptor
}
