package main

import (
	"os"
	"path/filepath"
	"testing"
)

// The least limit counts of those of the process's cgroup and the ones above.
func TestCgroupMemory(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write := func(text, file string, path ...string) {
		t.Helper()
		dir := filepath.Join(append([]string{root}, path...)...)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put := func(text string, path ...string) {
		t.Helper()
		write(text, "memory.max", path...)
	}
	// The hierarchies of before, where each controller has its own.
	write("9223372036854771712\n", "memory.limit_in_bytes", "memory")
	write("2048\n", "memory.limit_in_bytes", "memory", "old")
	write("9223372036854771712\n", "memory.limit_in_bytes", "memory", "wide")
	put("4096\n", "pod")
	put("8192\n", "pod", "roomy")
	put("1024\n", "pod", "tight")
	put("max\n", "free")
	for membership, want := range map[string]int64{
		"0::/pod\n":                        4096,
		"0::/pod/roomy\n":                  4096,
		"0::/pod/tight\n":                  1024,
		"0::/pod/tight/none\n":             1024,
		"0::/free\n":                       0,
		"0::/none\n":                       0,
		"0::/\n":                           0,
		"0::/../../pod/tight\n":            1024,
		"12:memory:/pod\n1:cpu:/pod\n":     0,
		"1:cpu:/old\n4:memory:/old/none\n": 2048,
		"4:cpu,memory:/old\n0::/tight\n":   2048,
		"4:memory:/wide\n0::/pod/tight\n":  1024,
		"4:memory:/wide\n":                 0,
		"12:cpuset:/free\n0::/pod/roomy\n": 4096,
		"":                                 0,
	} {
		most, ok := cgroupMemory(root, membership)
		if ok != (want != 0) || ok && most != want {
			t.Errorf("%q: %d, %v; want %d", membership, most, ok, want)
		}
	}
	put("512\n") // a container sees its own limit at the top
	if most, ok := cgroupMemory(root, "0::/\n"); !ok || most != 512 {
		t.Errorf("in a container: %d, %v", most, ok)
	}
}
