package chaos

import (
	"fmt"
	"syscall"
)

// mount gives a folder a small disk of its own, in memory. Only root may, and not in every container.
func mount(dir, size string) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		return fmt.Errorf("mount a small disk: %w", err)
	}
	return nil
}

// unmount takes it away, and its memory as soon as nobody uses it any more.
func unmount(dir string) error {
	if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount a small disk: %w", err)
	}
	return nil
}
