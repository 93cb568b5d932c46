package blobstore_test

import (
	"errors"
	"strings"
	"testing"

	"starling/blobstore"
)

func TestKeyForm(t *testing.T) {
	t.Parallel()
	account := int64(0x5a17_0000_0000_00ff)
	object := blobstore.Object{0: 0xab, 15: 0x01}
	if got, want := object.Key(account), "5a170000000000ff/ab000000000000000000000000000001"; string(got) != want {
		t.Errorf("Key: %s, want %s", got, want)
	}
	if got, want := object.String(), "ab000000000000000000000000000001"; got != want {
		t.Errorf("String: %s, want %s", got, want)
	}
	if got, want := blobstore.AccountPrefix(account), "5a170000000000ff/"; got != want {
		t.Errorf("AccountPrefix: %s, want %s", got, want)
	}
}

func TestKeyComesApart(t *testing.T) {
	t.Parallel()
	for _, account := range []int64{0, 1, 0x7fff_ffff_ffff_ffff, -1} {
		object := blobstore.NewObject()
		key := object.Key(account)
		if err := key.Check(); err != nil {
			t.Errorf("Check(%s): %v", key, err)
		}
		if got, ok := key.Account(); !ok || got != account {
			t.Errorf("Account(%s): %d, %v, want %d", key, got, ok, account)
		}
		if got, ok := key.Object(); !ok || got != object {
			t.Errorf("Object(%s): %v, %v, want %v", key, got, ok, object)
		}
	}
}

func TestNamedKeyIsNoObject(t *testing.T) {
	t.Parallel()
	key, err := blobstore.NameKey(10, "mailboxes")
	if err != nil || key != "000000000000000a/mailboxes" {
		t.Fatalf("NameKey: %s, %v", key, err)
	}
	if o, ok := key.Object(); ok {
		t.Errorf("Object: %v, want none", o)
	}
	if a, ok := key.Account(); !ok || a != 10 {
		t.Errorf("Account: %d, %v", a, ok)
	}
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	const a = "0123456789abcdef"
	for _, key := range []blobstore.Key{
		"", "/", a, a + "/", "/" + a, a + "/.", a + "/..", a + "/.tmp", a + "/a/b", a + "//a", a + "/A", a + "/a b", a + "/a\x00", a + "/ä",
		"0123456789ABCDEF/a", "0123456789abcde/a", "0123456789abcdef0/a", "../../../../etc/passwd", blobstore.Key(a + "/" + strings.Repeat("x", 65)),
	} {
		if err := key.Check(); !errors.Is(err, blobstore.ErrKey) {
			t.Errorf("Check(%q): %v, want ErrKey", key, err)
		}
		if _, ok := key.Account(); ok {
			t.Errorf("Account(%q) gives one", key)
		}
	}
	if err := blobstore.Key(a + "/" + strings.Repeat("x", 64)).Check(); err != nil {
		t.Error(err)
	}
}

func BenchmarkNewKey(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		blobstore.NewKey(0x5a17_0000_0000_00ff)
	}
}
