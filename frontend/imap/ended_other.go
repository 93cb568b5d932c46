//go:build !linux

package imap

import (
	"errors"
	"syscall"
)

// sendsNoMore reports whether who is at the other end of a socket has closed it, or at least its
// side of it, and nothing that it sent is left to be read. So it does not tell under TLS, the farewell
// of which is left: there the end is found out by an answer that nobody takes.
func sendsNoMore(fd uintptr) bool {
	var one [1]byte
	n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return err == nil && n == 0 || err != nil && !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR)
}
