//go:build !linux

package main

import "syscall"

// processAttr is nothing special: elsewhere bench ends before it starts a process.
func processAttr() *syscall.SysProcAttr { return nil }
