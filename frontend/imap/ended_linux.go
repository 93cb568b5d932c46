package imap

import (
	"errors"

	"golang.org/x/sys/unix"
)

// sendsNoMore reports whether who is at the other end of a socket has closed it, or at least its
// side of it, whatever is left to be read: under TLS its farewell always is.
func sendsNoMore(fd uintptr) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}, 0) //nolint:gosec // a file descriptor
	return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
}
