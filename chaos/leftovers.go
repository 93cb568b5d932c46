package chaos

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"time"

	"go.uber.org/zap"

	"starling/blobstore"
	"starling/events"
	"starling/events/memory"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// collectTime bounds how long it takes until nothing is left over: other collectors may hold a lease, and the S3
// server's clock has seconds.
const collectTime = 20 * time.Second

// leftovers are the objects of an account that no message names, and the uploads that were begun and not ended, after a
// collector has done all that there is, to whom nothing is too young. Nobody may be at work.
func (c *Cluster) leftovers(ctx context.Context, account metadata.AccountID) ([]string, error) {
	if _, err := c.DB.AcceptEpoch(ctx); err != nil { // all is well, says the operator
		return nil, err
	}
	// Who was killed while it collected holds its claims for minutes; they are taken for over.
	if _, err := c.primary.Exec(ctx, fmt.Sprintf("delete from lease where account_id = %d", account)); err != nil {
		return nil, err
	}
	bus, err := new(memory.Hub).Open(events.Options{})
	if err != nil {
		return nil, err
	}
	defer bus.Close() //nolint:errcheck // nobody listens
	store, err := mailstore.New(ctx, mailstore.Config{
		DB: c.DB, Blobs: c.Blobs, Bus: bus, Log: zap.NewNop(), Collect: -1, Retention: -1, BackupWindow: -1, OrphanGrace: time.Nanosecond, DeleteRate: 1 << 20,
	})
	if err != nil {
		return nil, err
	}
	var left []string
	for end := time.Now().Add(collectTime); ; pause(ctx, 200*time.Millisecond) {
		if _, err := store.Collect(ctx, account); err != nil {
			return nil, err
		}
		if left, err = c.unnamed(ctx, account); err != nil || len(left) == 0 || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	uploads, err := c.Blobs.EndUploads(ctx, blobstore.AccountPrefix(int64(account)), time.Now())
	if uploads > 0 {
		left = append(left, fmt.Sprintf("%d uploads that were not ended", uploads))
	}
	return left, err
}

// unnamed are the objects of an account that no message names.
func (c *Cluster) unnamed(ctx context.Context, account metadata.AccountID) ([]string, error) {
	there, err := c.objectsOf(ctx, account)
	if err != nil {
		return nil, err
	}
	rows, err := c.rows(ctx, account)
	if err != nil {
		return nil, err
	}
	for _, object := range rows {
		delete(there, object)
	}
	var left []string
	for object := range there {
		left = append(left, fmt.Sprintf("object %x", object))
	}
	slices.Sort(left)
	return left, nil
}

// check is what starling check finds wrong with an account, or nothing.
func (c *Cluster) check(ctx context.Context, user string) (string, error) {
	n := c.Nodes[0]
	said, err := n.Command(ctx, n.path, "check", user, "--scrub", "--rate", "1G")
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return said, nil
	}
	return "", err
}
