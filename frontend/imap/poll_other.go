//go:build !linux

package imap

import (
	"errors"
	"syscall"
	"time"
)

// poller is only on Linux. Elsewhere sessions wait on their goroutines.
type poller struct{}

func newPoller() (*poller, error) { return nil, errors.ErrUnsupported }

func (*poller) close() {}

func (*poller) add(syscall.RawConn, int32) error { return errors.ErrUnsupported }

func (*poller) again(syscall.RawConn, int32) error { return errors.ErrUnsupported }

func (*poller) setDeadline(time.Time) {}

func (*poller) wait() ([]int32, error) { return nil, errors.ErrUnsupported }
