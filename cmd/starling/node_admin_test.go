package main

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"starling/frontend/admin"
)

// A node that closes asks for nothing that it has closed: it would log that as missing.
func TestNothingIsAskedOnceItIsClosed(t *testing.T) {
	t.Parallel()
	n := makeNode(Config{}, zap.NewNop())
	if err := n.openAdmin(t.Context()); err != nil {
		t.Fatal(err)
	}
	var closed, late atomic.Bool
	asked := make(chan struct{}, 1)
	n.onClose(func() {
		closed.Store(true)
		time.Sleep(10 * time.Millisecond) // for ten questions more
	})
	n.watch(admin.Dependency{Name: "it", Every: time.Millisecond, Ask: func(context.Context) error {
		if closed.Load() {
			late.Store(true)
		}
		select {
		case asked <- struct{}{}:
		default:
		}
		return nil
	}})
	<-asked
	n.close()
	if late.Load() {
		t.Error("it was asked for when it was closed")
	}
}
