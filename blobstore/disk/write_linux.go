package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// beginWriting has the system begin to write n bytes of f from off to the disk, and does not wait for it. It promises
// nothing, and so its errors are none: the sync at the end does.
func beginWriting(f *os.File, off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}
