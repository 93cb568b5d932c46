package mailstore

import (
	"errors"
	"testing"
	"time"

	"starling/metadata"
)

// fill doubles INBOX until it has at least n messages.
func (cl *client) fill(n int) {
	cl.t.Helper()
	for cl.Snapshot().Len() < n {
		if _, err := cl.Copy(cl.t.Context(), CopyArgs{View: cl.Snapshot(), UIDs: all(cl.Snapshot()), Dest: Inbox}); err != nil {
			cl.t.Fatal(err)
		}
	}
}

// What changes thousands of messages has its memory in turns with others, and gives it back; what
// changes few does not wait for it.
func TestLargeChangesTakeTurns(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still(func(c *Config) { c.ChangeMemory = 1 << 20 })
	c.append(x, Inbox, mail("1"))
	cl := c.enter(x, Inbox)
	cl.fill(changeLeast)
	view := cl.Snapshot()
	every := func(mode FlagMode) error {
		_, err := cl.Store(t.Context(), StoreFlags{View: cl.Snapshot(), UIDs: all(cl.Snapshot()), Mode: mode, Flags: flagSet("deleted")})
		return err
	}
	changes := map[string]func() error{
		"COPY": func() error {
			_, err := cl.Copy(t.Context(), CopyArgs{View: view, UIDs: all(view), Dest: Inbox})
			return err
		},
		"STORE": func() error { return every(AddFlags) },
		"EXPUNGE": func() error {
			_, err := cl.Expunge(t.Context(), cl.Snapshot(), nil)
			return err
		},
	}
	if err := every(AddFlags); err != nil {
		t.Fatal(err)
	}
	const other metadata.AccountID = 1
	budget := x.store.changes
	budget.wait = time.Millisecond
	budget.adjust(other, budget.most)
	for name, change := range changes {
		if err := change(); !errors.Is(err, metadata.ErrUnavailable) {
			t.Errorf("%s beside another: error is %v", name, err)
		}
	}
	cl.store(one(1), RemoveFlags, "deleted")
	if err := func() error {
		_, err := cl.Copy(t.Context(), CopyArgs{View: view, UIDs: one(1), Dest: Inbox})
		return err
	}(); err != nil {
		t.Errorf("a small COPY: %v", err)
	}
	budget.give(other, budget.most)
	for _, name := range []string{"COPY", "STORE", "EXPUNGE"} {
		if err := changes[name](); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := budget.inUse(); n != 0 {
		t.Errorf("%d octets are not given back", n)
	}
	if n := c.check(Inbox).Len(); n != 0 {
		t.Errorf("%d messages are left", n)
	}
}

// What a node has not the memory for is not begun.
func TestCopyOfTooMany(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still(func(c *Config) { c.ChangeMemory = changeLeast * copyBytes / mostCopied })
	c.append(x, Inbox, mail("1"))
	cl := c.enter(x, Inbox)
	cl.fill(changeLeast + 1)
	view := cl.Snapshot()
	for _, transfer := range []func(CopyArgs) error{
		func(args CopyArgs) error { _, err := cl.Copy(t.Context(), args); return err },
		func(args CopyArgs) error { _, err := cl.Move(t.Context(), args); return err },
	} {
		if err := transfer(CopyArgs{View: view, UIDs: all(view), Dest: Inbox}); !errors.Is(err, ErrTooMany) {
			t.Errorf("error is %v", err)
		}
		if err := transfer(CopyArgs{View: view, UIDs: one(1), Dest: Inbox}); err != nil {
			t.Error(err)
		}
	}
}
