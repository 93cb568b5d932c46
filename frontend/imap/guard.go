package imap

import (
	"errors"
	"fmt"
	"runtime/debug"

	"go.uber.org/zap"
)

// errPanic is what a command ends with when something that it began panicked.
var errPanic = errors.New("panic")

// guard runs do, and makes an error of a panic. A goroutine that works for a
// session runs under it: what one message can bring about must not end the node,
// and with it the sessions of everybody else.
func (s *session) guard(what string, do func() error) (err error) {
	defer func() {
		if bug := recover(); bug != nil {
			s.server.metrics.panics.Inc()
			s.log().Error("panic", zap.String("in", what), zap.Any("bug", bug), zap.ByteString("stack", debug.Stack()))
			err = fmt.Errorf("%s: %w", what, errPanic)
		}
	}()
	return do()
}
