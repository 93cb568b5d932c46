package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// Change is a change of a source that only one build sees.
type Change struct {
	// File is a file of this module, or below "GOROOT/" one of the standard library.
	File string
	// Old is what New stands for, everywhere; empty: the file is new.
	Old, New string
}

// Build builds the program with changes, as its next release, one with a bug, or one whose clock can be set. The sources
// stay as they are.
func Build(ctx context.Context, path string, race bool, changes ...Change) error {
	root, err := goEnv(ctx, "GOMOD")
	if err != nil {
		return err
	}
	root = filepath.Dir(root)
	std, err := goEnv(ctx, "GOROOT")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "starling-build-")
	if err != nil {
		return fmt.Errorf("build the program: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it holds only what was built from
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	for i, c := range changes {
		file := filepath.Join(root, c.File)
		if inner, ok := strings.CutPrefix(c.File, "GOROOT/"); ok {
			file = filepath.Join(std, "src", inner)
		}
		text := c.New
		if c.Old != "" {
			from := file
			if before, ok := overlay.Replace[file]; ok {
				from = before
			}
			old, err := os.ReadFile(from) //nolint:gosec // a source
			if err != nil {
				return fmt.Errorf("change %s: %w", c.File, err)
			}
			if !strings.Contains(string(old), c.Old) {
				return fmt.Errorf("change %s: it has no %q", c.File, c.Old)
			}
			text = strings.ReplaceAll(string(old), c.Old, c.New)
		}
		changed := filepath.Join(dir, strconv.Itoa(i)+filepath.Ext(file))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil { //nolint:gosec // in a folder of our own
			return fmt.Errorf("change %s: %w", c.File, err)
		}
		overlay.Replace[file] = changed
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		return fmt.Errorf("list the changed sources: %w", err)
	}
	listed := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(listed, list, 0o600); err != nil {
		return fmt.Errorf("list the changed sources: %w", err)
	}
	args := []string{"build", "-overlay", listed, "-o", path}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/starling")...) //nolint:gosec // made of our own words
	cmd.Dir = root
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program: %w\n%s", err, said)
	}
	return nil
}

func goEnv(ctx context.Context, name string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "env", name)
	said, err := cmd.Output()
	if err == nil && strings.TrimSpace(string(said)) == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return "", fmt.Errorf("ask for go's %s: %w", name, err)
	}
	return strings.TrimSpace(string(said)), nil
}

// NextRelease are the changes that make a release out of this one whose schema is newer. It lets the releases before
// it work on unless it is the last of them.
func NextRelease(schema int, last bool) ([]Change, error) {
	root, err := goEnv(context.Background(), "GOMOD")
	if err != nil {
		return nil, err
	}
	found, err := filepath.Glob(filepath.Join(filepath.Dir(root), "metadata", "migrations", "*.sql"))
	if err != nil {
		return nil, fmt.Errorf("look for migrations: %w", err)
	}
	now := len(found)
	var changes []Change
	for n := now + 1; n <= now+schema; n++ {
		text := fmt.Sprintf("-- +goose Up\n\nalter table mailbox add column next%d bigint not null default 0;\nupdate cluster set schema = %d;\n", n, n)
		if last && n == now+schema {
			text += fmt.Sprintf("update cluster set oldest_reader = %d;\n", n)
		}
		changes = append(changes, Change{File: fmt.Sprintf("metadata/migrations/%04d_next.sql", n), New: text})
	}
	supported := func(n int) string { return fmt.Sprintf("schemaSupported = %d\n", n) }
	return append(changes, Change{File: "metadata/migrate.go", Old: supported(now), New: supported(now + schema)}), nil
}
