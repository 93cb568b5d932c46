package main

import "syscall"

// processAttr keeps the terminal's Ctrl-C from a process, and ends it with us.
func processAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
