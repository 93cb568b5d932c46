package s3test

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// processAttr keeps the terminal's Ctrl-C from the server, and ends it with us.
func processAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// hasAttributes says whether the file system of dir keeps extended attributes.
func hasAttributes(dir string) bool {
	const name = "user.starling"
	return unix.Setxattr(dir, name, nil, 0) == nil && unix.Removexattr(dir, name) == nil
}
