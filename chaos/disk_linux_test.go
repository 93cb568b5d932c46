package chaos

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// When the disk of S3 or of PostgreSQL is full, what was acknowledged stays; PostgreSQL ends by it, and comes back. When there is room
// again, nodes go on by themselves.
func TestFullDisks(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	dir := newDir(t)
	if err := CanFill(dir); err != nil {
		t.Skipf("a small disk needs to be mounted, which only root may do, and not in every container: %v", err)
	}
	c := startIn(t, dir, program(t), true)
	figures := round(t, c, Options{Seed: 701, Time: 9 * time.Second, Clients: *chaosClients, Faults: []Fault{
		{At: 1000 * ms, For: 1500 * ms, Kind: FullS3Disk},
		{At: 3500 * ms, For: 1500 * ms, Kind: FullPostgresDisk},
		{At: 6500 * ms, For: 800 * ms, Kind: FullS3Disk},
		{At: 6700 * ms, For: 800 * ms, Kind: FullPostgresDisk},
	}})
	t.Log(figures)
	if figures.Faults[FullS3Disk] == 0 || figures.Faults[FullPostgresDisk] == 0 {
		t.Error("both disks were to be full")
	}
	said, err := os.ReadFile(filepath.Join(dir, "pg1", "starling.log"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(said), "PANIC:  could not") || !strings.Contains(string(said), "No space left on device") {
		t.Errorf("PostgreSQL was to end by that:\n%s", said)
	}
	if figures.Commands[command("APPEND", InDoubt)] == 0 {
		t.Error("all mail was taken while the disks were full")
	}
}
