package machine

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Disk is how full a file system is: sizes in bytes, and numbers of inodes, which
// are 0 where the file system does not count them.
type Disk struct {
	Capacity, Available int64
	Inodes, InodesFree  int64
	// Device tells file systems apart.
	Device uint64
}

// DiskOf measures the file system that path is on.
func DiskOf(path string) (Disk, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return Disk{}, fmt.Errorf("measure the file system of %q: %w", path, err)
	}
	var file unix.Stat_t
	if err := unix.Stat(path, &file); err != nil {
		return Disk{}, fmt.Errorf("measure the file system of %q: %w", path, err)
	}
	return Disk{
		Capacity: int64(fs.Blocks) * fs.Bsize, Available: int64(fs.Bavail) * fs.Bsize,
		Inodes: int64(fs.Files), InodesFree: int64(fs.Ffree), Device: file.Dev,
	}, nil
}
