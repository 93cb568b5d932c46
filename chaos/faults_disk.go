package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// disks are the folders of the servers' data.
type disks struct {
	dir   string
	small bool // each folder is a small disk of its own, which can be filled

	mounted []string
}

// CanFill says why no disk can be filled in a run whose data are in a folder; nil: they can.
func CanFill(dir string) error {
	if err := mount(dir, "64k"); err != nil {
		return err
	}
	return unmount(dir)
}

// folder makes one, of that size if disks are small.
func (d *disks) folder(name, size string) (string, error) {
	path := filepath.Join(d.dir, name)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return "", fmt.Errorf("make a folder of data: %w", err)
	}
	if !d.small {
		return path, nil
	}
	d.mounted = append(d.mounted, path)
	return path, mount(path, size)
}

// free gives the memory of a small disk back, which is needed no more.
func (d *disks) free(path string) error {
	i := slices.Index(d.mounted, path)
	if i < 0 {
		return nil
	}
	d.mounted = slices.Delete(d.mounted, i, i+1)
	return unmount(path)
}

func (d *disks) freeAll() error {
	var errs []error
	for len(d.mounted) > 0 {
		errs = append(errs, d.free(d.mounted[0]))
	}
	return errors.Join(errs...)
}

// fillDisk takes all that is free on the disk of a folder, and for a while again what is given back. It is not done
// where the folder has no disk of its own.
func fillDisk(ctx context.Context, dir string, d time.Duration) (done bool, err error) {
	own, err := ownDisk(dir)
	if err != nil || !own {
		return false, err
	}
	path := filepath.Join(dir, "full")
	file, err := os.Create(path) //nolint:gosec // in a folder of our own
	if err != nil {
		return false, fmt.Errorf("fill a disk: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(path)) }()
	piece := make([]byte, 1<<20)
	var end time.Time // from when on it is full
	for ctx.Err() == nil && (!done || time.Now().Before(end)) {
		switch _, err := file.Write(piece); {
		case errors.Is(err, syscall.ENOSPC):
			if len(piece) > 4<<10 { // less may fit
				piece = piece[:4<<10]
				continue
			}
			if !done {
				done, end = true, time.Now().Add(d)
			}
			pause(ctx, 5*time.Millisecond)
		case err != nil:
			return done, fmt.Errorf("fill a disk: %w", err)
		}
	}
	return done, nil
}

// ownDisk says whether a folder is on another disk than the one that it is in.
func ownDisk(dir string) (bool, error) {
	var inner, outer syscall.Stat_t
	if err := errors.Join(syscall.Stat(dir, &inner), syscall.Stat(filepath.Dir(dir), &outer)); err != nil {
		return false, fmt.Errorf("look for the disk of %s: %w", dir, err)
	}
	return inner.Dev != outer.Dev, nil
}

// fillPostgres fills PostgreSQL's disk, and has it begin new files of its log there. It may end by that; then it is
// started again when there is room.
func (c *Cluster) fillPostgres(ctx context.Context, d time.Duration) (done bool, err error) {
	writing, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ; writing.Err() == nil; pause(writing, 20*time.Millisecond) {
			one, err := c.primary.connect(writing)
			if err != nil {
				continue // it has ended, or comes back
			}
			_, _ = one.query("select pg_switch_wal() from pg_create_restore_point('full')") // or it ends by that
			one.end()
		}
	}()
	done, err = fillDisk(ctx, c.primary.config.Dir, d)
	cancel()
	<-ended
	return done, errors.Join(err, c.revive(ctx))
}

// revive waits until PostgreSQL takes connections, and starts it again if it has ended.
func (c *Cluster) revive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTime)
	defer cancel()
	for {
		one, err := c.primary.connect(ctx)
		if err == nil {
			one.end()
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for PostgreSQL: %w", err)
		}
		select {
		case <-c.primary.Done():
			if err := c.primary.again(ctx); err != nil {
				return err
			}
			c.reach()
		default:
			pause(ctx, 20*time.Millisecond)
		}
	}
}
