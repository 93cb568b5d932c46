//go:build unix && !linux

package chaos

import "syscall"

// processAttr keeps the terminal's Ctrl-C from a node. It outlives us if we are killed.
func processAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
