//go:build unix && !linux

package s3test

import "syscall"

// processAttr keeps the terminal's Ctrl-C from the server. It outlives us if we are killed.
func processAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// hasAttributes says no: other systems call it otherwise.
func hasAttributes(string) bool { return false }
