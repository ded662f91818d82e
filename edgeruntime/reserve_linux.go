package edgeruntime

import "syscall"

// freeBytes is how much space there is for files in dir.
func freeBytes(dir string) (uint64, error) {
	free, _, err := diskBytes(dir)
	return free, err
}

// diskBytes is that, and the size of the disk.
func diskBytes(dir string) (free, total uint64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), nil
}
