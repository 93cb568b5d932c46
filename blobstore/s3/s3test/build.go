//go:build unix

package s3test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
)

// pkg is the server's command, whose version stands in deploy/tools/go.mod.
const pkg = "github.com/versity/versitygw/cmd/versitygw"

// Build returns the path of the server's program, and builds it first if this version is not in the cache yet. Processes
// that build at the same time wait for one of them.
func Build(ctx context.Context) (string, error) {
	tools, err := toolsDir()
	if err != nil {
		return "", fmt.Errorf("build S3 server: %w", err)
	}
	path, err := cachePath(tools)
	if err != nil {
		return "", fmt.Errorf("build S3 server: %w", err)
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	unlock, err := lock(path + ".lock")
	if err != nil {
		return "", fmt.Errorf("build S3 server: %w", err)
	}
	err = build(ctx, tools, path)
	if err = errors.Join(err, unlock()); err != nil {
		return "", fmt.Errorf("build S3 server: %w", err)
	}
	return path, nil
}

func build(ctx context.Context, tools, path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil // built by the one who held the lock before us
	}
	tmp := path + ".new"
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", tmp, pkg)
	cmd.Dir = tools
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s in %s: %w\n%s", pkg, tools, err, out)
	}
	return os.Rename(tmp, path)
}

// toolsDir finds deploy/tools in the working directory or above it.
func toolsDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		tools := filepath.Join(dir, "deploy", "tools")
		if _, err := os.Stat(filepath.Join(tools, "go.mod")); err == nil {
			return tools, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no deploy/tools/go.mod in the working directory or above it")
		}
		dir = parent
	}
}

// cachePath names the program by all that goes into it: the modules' versions, the toolchain and the platform.
func cachePath(tools string) (string, error) {
	sum := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(tools, name))
		if err != nil {
			return "", err
		}
		sum.Write(data)
	}
	fmt.Fprint(sum, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir() // a user without a home
	}
	dir := filepath.Join(cache, "starling-tools")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return filepath.Join(dir, "versitygw-"+hex.EncodeToString(sum.Sum(nil)[:8])), nil
}

// lock takes a lock that the system releases if this process dies.
func lock(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(&fs.PathError{Op: "lock", Path: path, Err: err}, f.Close())
	}
	return f.Close, nil
}
