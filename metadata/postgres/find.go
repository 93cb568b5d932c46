package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// MinMajor is the oldest major version of PostgreSQL that Starling works with.
const MinMajor = 15

// ErrNotInstalled says that no PostgreSQL of MinMajor or later was found.
var ErrNotInstalled = errors.New("no PostgreSQL " + strconv.Itoa(MinMajor) + " or later is installed")

// Installation is an installed PostgreSQL.
type Installation struct {
	Bin   string // the directory of postgres and initdb
	Major int    // its major version
}

// Find looks for an installed PostgreSQL. If bin is not empty it is the
// directory to use, and nothing else is tried. Otherwise the newest of these
// is taken: PATH, what pg_config says, and where the packages of Debian, Red
// Hat, Alpine and Homebrew put it. The error is ErrNotInstalled if there is none.
func Find(ctx context.Context, bin string) (Installation, error) {
	if bin != "" {
		return inspect(ctx, bin)
	}
	var best Installation
	for _, dir := range candidates(ctx) {
		found, err := inspect(ctx, dir)
		if err == nil && found.Major > best.Major {
			best = found
		}
	}
	if best.Major == 0 {
		return Installation{}, ErrNotInstalled
	}
	return best, nil
}

func candidates(ctx context.Context) []string {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",
		"/usr/pgsql-*/bin",
		"/usr/libexec/postgresql*",
		"/opt/homebrew/opt/postgresql@*/bin",
		"/usr/local/opt/postgresql@*/bin",
		"/Library/PostgreSQL/*/bin",
	} {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			continue // the patterns are well-formed
		}
		sort.Strings(matches)
		dirs = append(dirs, matches...)
	}
	return dirs
}

var versionPattern = regexp.MustCompile(`PostgreSQL\) (\d+)`)

func inspect(ctx context.Context, dir string) (Installation, error) {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return Installation{}, fmt.Errorf("look for PostgreSQL in %s: %w", dir, err)
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output() //nolint:gosec // the operator's choice
	if err != nil {
		return Installation{}, fmt.Errorf("ask %s/postgres for its version: %w", dir, err)
	}
	major, err := parseVersion(string(out))
	if err != nil {
		return Installation{}, fmt.Errorf("ask %s/postgres for its version: %w", dir, err)
	}
	if major < MinMajor {
		return Installation{}, fmt.Errorf("PostgreSQL %d in %s: %w", major, dir, ErrNotInstalled)
	}
	return Installation{Bin: dir, Major: major}, nil
}

func parseVersion(s string) (int, error) {
	m := versionPattern.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%q names no version", strings.TrimSpace(s))
	}
	return strconv.Atoi(m[1])
}
