package mailstore

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"starling/blobstore"
	"starling/metadata"
)

const (
	// scanPage is how many objects are compared with an account's messages at a
	// time: every comparison reads the whole account.
	scanPage = 200_000
	// doomPage is how many orphans one statement dooms, and how many objects are
	// deleted between two notes of it.
	doomPage = 1000
	// deletes is how many objects are deleted at the same time.
	deletes = 8
)

// orphans dooms objects that no message names and none can come to name,
// because they are older than what a commit takes.
func (c *collector) orphans(ctx context.Context) error {
	for tried := make(map[metadata.AccountID]bool); ; {
		// Those that were looked through are not due any more; those that somebody
		// else works on, or that failed, stay at the head of the list.
		limit := collectPage + len(tried)
		page, err := c.db.AccountsToScan(ctx, c.account, c.store.cfg.OrphanGrace, limit)
		if err != nil {
			return err
		}
		before := len(tried)
		for _, id := range page {
			if tried[id] {
				continue
			}
			tried[id] = true
			c.store.metrics.backlog[taskScan].Inc()
			if err := c.claimed(ctx, taskScan, metadata.BoxRef{Account: id}, func() error { return c.scan(ctx, id) }); err != nil {
				return err
			}
		}
		if len(tried) == before || len(page) < limit {
			return nil
		}
	}
}

// scan compares the objects of an account with its messages, ends uploads that were left
// behind, and writes its list of mailboxes.
func (c *collector) scan(ctx context.Context, account metadata.AccountID) error {
	now, err := c.db.Now(ctx)
	if err != nil {
		return err
	}
	// PostgreSQL's clock decides until when a commit may name an object, so it also
	// decides from when on none can.
	old := now.Add(-c.store.cfg.OrphanGrace)
	var page []metadata.ObjectID
	for info, err := range c.store.blobs.List(ctx, blobstore.AccountPrefix(int64(account)), "") {
		if err != nil {
			return err
		}
		object, ok := info.Key.Object()
		if !ok || !info.Modified.Before(old) {
			continue
		}
		if page = append(page, metadata.ObjectID(object)); len(page) == scanPage {
			if err := c.doomOrphans(ctx, account, page); err != nil {
				return err
			}
			page = page[:0]
		}
	}
	if err := c.doomOrphans(ctx, account, page); err != nil {
		return err
	}
	c.endUploads(ctx, account, old)
	forgotten, err := c.db.ForgetThreads(ctx, account)
	c.report.Threads += forgotten
	if err != nil {
		return err
	}
	if err := c.store.writeList(ctx, c.db, account); err != nil {
		return err
	}
	c.report.Scanned++
	return c.db.Scanned(ctx, account)
}

// endUploads ends what was begun so long ago that it can no more become an object that
// a commit names. Where that cannot be done the rest of the collector's work still can.
func (c *collector) endUploads(ctx context.Context, account metadata.AccountID, before time.Time) {
	ended, err := blobstore.EndUploads(ctx, c.store.blobs, blobstore.AccountPrefix(int64(account)), before)
	c.report.Uploads += int64(ended)
	if err != nil {
		c.store.log.Warn("uploads left behind are not ended", accountField(account), zap.Error(err))
	}
}

func (c *collector) doomOrphans(ctx context.Context, account metadata.AccountID, objects []metadata.ObjectID) error {
	if len(objects) == 0 {
		return nil
	}
	if err := c.renew(ctx, account); err != nil {
		return err
	}
	named, err := c.db.Named(ctx, account, objects)
	if err != nil {
		return err
	}
	for orphans, _ := split(objects, named); len(orphans) > 0; {
		n := min(len(orphans), doomPage)
		doomed, err := c.db.Doom(ctx, account, orphans[:n])
		c.report.Orphans += doomed
		if err != nil {
			return err
		}
		orphans = orphans[n:]
	}
	return nil
}

// split tells the objects that are in named from those that are not.
func split(objects []metadata.ObjectID, named map[metadata.ObjectID]struct{}) (free, kept []metadata.ObjectID) {
	for _, o := range objects {
		if _, ok := named[o]; ok {
			kept = append(kept, o)
		} else {
			free = append(free, o)
		}
	}
	return free, kept
}

// eachAccount works on all accounts that list lists.
func (c *collector) eachAccount(ctx context.Context, t task, list func(after metadata.AccountID) ([]metadata.AccountID, error),
	work func(metadata.AccountID) error,
) error {
	for after := metadata.AccountID(0); ; {
		page, err := list(after)
		if err != nil || len(page) == 0 {
			return err
		}
		c.store.metrics.backlog[t].Add(float64(len(page)))
		for _, id := range page {
			if err := c.claimed(ctx, t, metadata.BoxRef{Account: id}, func() error { return work(id) }); err != nil {
				return err
			}
		}
		after = page[len(page)-1]
	}
}

// doomed deletes objects whose delay is over. Nothing else deletes objects of
// an account that is there.
func (c *collector) doomed(ctx context.Context) error {
	window := c.store.cfg.BackupWindow
	return c.eachAccount(ctx, taskDoomed, func(after metadata.AccountID) ([]metadata.AccountID, error) {
		return c.db.AccountsWithDoomed(ctx, c.account, window, after, collectPage)
	}, func(account metadata.AccountID) error {
		var after metadata.ObjectID
		for {
			page, err := c.db.Doomed(ctx, account, window, after, scanPage)
			if err != nil || len(page) == 0 {
				return err
			}
			after = page[len(page)-1]
			if err := c.deleteDoomed(ctx, account, page); err != nil {
				return err
			}
		}
	})
}

// deleteDoomed looks once more whether a message names the objects. A row of
// a message that was moved away may still do so, until it is collected too.
func (c *collector) deleteDoomed(ctx context.Context, account metadata.AccountID, objects []metadata.ObjectID) error {
	named, err := c.db.Named(ctx, account, objects)
	if err != nil {
		return err
	}
	objects, kept := split(objects, named)
	c.report.Named += int64(len(kept))
	if len(kept) > 0 {
		if err := c.db.Postpone(ctx, account, kept); err != nil {
			return err
		}
	}
	for len(objects) > 0 {
		n := min(len(objects), doomPage)
		if err := c.renew(ctx, account); err != nil {
			return err
		}
		current := make([]blobstore.Version, n)
		for i, o := range objects[:n] {
			current[i].Key = blobstore.Object(o).Key(int64(account))
		}
		if err := c.delete(ctx, current); err != nil {
			return err
		}
		if err := c.db.Forget(ctx, account, objects[:n]); err != nil {
			return err
		}
		objects = objects[n:]
	}
	return nil
}

// delete deletes objects, some at a time and not more in a second than is allowed. The versions
// of one, which stand behind each other, go one after the other: not every server can take two
// of them at the same time.
func (c *collector) delete(ctx context.Context, versions []blobstore.Version) error {
	left := make(chan []blobstore.Version)
	errs := make([]error, deletes+1)
	var workers sync.WaitGroup
	for i := range deletes {
		workers.Go(func() {
			for object := range left {
				for _, v := range object {
					if errs[i] == nil {
						errs[i] = blobstore.DeleteVersion(ctx, c.store.blobs, v)
					}
				}
			}
		})
	}
	for rest := versions; len(rest) > 0 && errs[deletes] == nil; {
		n := 1
		for n < len(rest) && rest[n].Key == rest[0].Key {
			n++
		}
		errs[deletes] = c.pace.wait(ctx, time.Duration(n)*time.Second/time.Duration(c.store.cfg.DeleteRate))
		if errs[deletes] == nil {
			left <- rest[:n]
		}
		rest = rest[n:]
	}
	close(left)
	workers.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	c.report.Objects += int64(len(versions))
	return nil
}

// pace spreads what is done over time.
type pace struct{ next time.Time }

// wait waits until gap has passed since the last call.
func (p *pace) wait(ctx context.Context, gap time.Duration) error {
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	d := p.next.Sub(now)
	p.next = p.next.Add(gap)
	if d < time.Millisecond { // below what a timer can do; it adds up
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// accounts ends accounts that are to be deleted: when no commit that was under
// way can still come, their rows go, then all their objects, and when two listings
// have found none, an interval apart, the accounts themselves.
func (c *collector) accounts(ctx context.Context) error {
	wait := c.store.cfg.OrphanGrace / 2 // the longest deadline of a commit
	return c.eachAccount(ctx, taskAccounts, func(after metadata.AccountID) ([]metadata.AccountID, error) {
		return c.db.DeletingAccounts(ctx, c.account, wait, after, collectPage)
	}, func(account metadata.AccountID) error {
		n, err := c.db.EmptyAccount(ctx, account)
		c.report.Messages += n
		if err != nil {
			return err
		}
		// No session and no delivery of it is left by now.
		c.endUploads(ctx, account, time.Time{})
		found, err := c.deletePrefix(ctx, account)
		if err != nil {
			return err
		}
		done, err := c.db.NoteListing(ctx, account, found == 0, c.store.cfg.Relist)
		if err != nil {
			return err
		}
		if !done {
			c.report.Emptied++
			return nil
		}
		if err := c.db.RemoveAccount(ctx, account); err != nil {
			return err
		}
		c.report.Accounts++
		c.store.log.Info("account removed: no row of it is left, and no object below its prefix", accountField(account))
		return nil
	})
}

// deletePrefix deletes all objects of an account, with all that a versioned bucket has kept of
// them, and says how much it found.
func (c *collector) deletePrefix(ctx context.Context, account metadata.AccountID) (found int, err error) {
	var page []blobstore.Version
	remove := func() error {
		defer func() { page = page[:0] }()
		if err := c.renew(ctx, account); err != nil {
			return err
		}
		return c.delete(ctx, page)
	}
	prefix := blobstore.AccountPrefix(int64(account))
	for v, err := range blobstore.Versions(ctx, c.store.blobs, prefix) {
		if err != nil {
			return found, err
		}
		found++
		if page = append(page, v); len(page) == doomPage {
			if err := remove(); err != nil {
				return found, err
			}
		}
	}
	if len(page) > 0 {
		err = remove()
	}
	return found, err
}
