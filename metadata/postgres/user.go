//go:build unix

package postgres

import (
	"fmt"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// user is whom the server runs as.
type user struct {
	name     string
	uid, gid uint32
	other    bool // not the one we are
}

// chooseUser is we ourselves or, if we are root, the first of postgres and
// nobody that exists.
func chooseUser() (user, error) {
	if os.Geteuid() != 0 {
		return user{name: "uid " + strconv.Itoa(os.Geteuid()), uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}, nil //nolint:gosec // ids fit
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := osuser.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(found.Uid, 10, 32)
		if err != nil {
			return user{}, fmt.Errorf("user %s has the id %q: %w", name, found.Uid, err)
		}
		gid, err := strconv.ParseUint(found.Gid, 10, 32)
		if err != nil {
			return user{}, fmt.Errorf("user %s has the group %q: %w", name, found.Gid, err)
		}
		return user{name: name, uid: uint32(uid), gid: uint32(gid), other: true}, nil
	}
	return user{}, fmt.Errorf("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as")
}

// become makes the command run as the user, in a process group of its own, so
// that Ctrl-C reaches us and not the server.
func (u user) become(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if u.other {
		command.SysProcAttr.Credential = &syscall.Credential{Uid: u.uid, Gid: u.gid}
	}
}

func (u user) own(dir string) error {
	if !u.other {
		return nil
	}
	if err := os.Chown(dir, int(u.uid), int(u.gid)); err != nil {
		return fmt.Errorf("give %s to %s: %w", dir, u.name, err)
	}
	return nil
}

// reaches says which directory above dir is closed to the user.
func (u user) reaches(dir string) error {
	if !u.other {
		return nil
	}
	for at := filepath.Dir(dir); ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err != nil {
			return fmt.Errorf("look at %s: %w", at, err)
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		open := info.Mode().Perm()&0o001 != 0
		if ok && stat.Uid == u.uid {
			open = info.Mode().Perm()&0o100 != 0
		} else if ok && stat.Gid == u.gid {
			open = info.Mode().Perm()&0o010 != 0
		}
		if !open {
			return fmt.Errorf("PostgreSQL is to run as %s, but %s is closed to that user: choose a data directory elsewhere, or do not run as root", u.name, at)
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}

// killGroup ends the server at once; the kernel may have done so already.
func killGroup(pid int) error {
	if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		return err
	}
	return nil
}
