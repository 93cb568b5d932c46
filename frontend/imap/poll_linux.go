package imap

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// poller tells which of many sockets can be read. It is an epoll(7) that Go's own poller waits for, so
// that waiting takes no thread. wait belongs to one goroutine.
type poller struct {
	fd     int
	file   *os.File
	raw    syscall.RawConn
	closed atomic.Bool
	events [128]syscall.EpollEvent
	ready  []int32
}

func newPoller() (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // by which os knows that it is to be waited for
		return nil, errors.Join(fmt.Errorf("epoll: %w", err), syscall.Close(fd))
	}
	p := &poller{fd: fd, file: os.NewFile(uintptr(fd), "epoll")}
	if p.raw, err = p.file.SyscallConn(); err == nil {
		err = p.file.SetReadDeadline(time.Time{}) // fails if it is not waited for
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("epoll: %w", err), p.file.Close())
	}
	return p, nil
}

// close ends a wait, and all that come, with os.ErrClosed.
func (p *poller) close() {
	p.closed.Store(true)
	_ = p.file.Close() // nothing was written
}

// add has the poller tell once when something can be read from a socket, which it calls no. It forgets
// the socket when that is closed.
func (p *poller) add(socket syscall.RawConn, no int32) error {
	return p.control(syscall.EPOLL_CTL_ADD, socket, no)
}

// again has it tell once more.
func (p *poller) again(socket syscall.RawConn, no int32) error {
	return p.control(syscall.EPOLL_CTL_MOD, socket, no)
}

func (p *poller) control(op int, socket syscall.RawConn, no int32) error {
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT, Fd: no}
	var failed error
	err := socket.Control(func(fd uintptr) { failed = syscall.EpollCtl(p.fd, op, int(fd), &event) })
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// setDeadline sets when wait is to end with os.ErrDeadlineExceeded; zero: never.
func (p *poller) setDeadline(at time.Time) {
	_ = p.file.SetReadDeadline(at) // fails on a closed one only
}

// wait waits until something can be read from sockets, and returns what they are called. The
// slice is good until the next call.
func (p *poller) wait() ([]int32, error) {
	p.ready = p.ready[:0]
	var failed error
	err := p.raw.Read(func(uintptr) bool {
		n, err := syscall.EpollWait(p.fd, p.events[:], 0)
		if errors.Is(err, syscall.EINTR) {
			n, err = 0, nil
		}
		for i := range max(n, 0) {
			p.ready = append(p.ready, p.events[i].Fd)
		}
		failed = err
		return n > 0 || err != nil
	})
	switch {
	case p.closed.Load():
		err = os.ErrClosed
	case err == nil:
		err = failed
	}
	return p.ready, err
}
