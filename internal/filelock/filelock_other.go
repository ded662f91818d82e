//go:build !unix

package filelock

import "os"

// lock is nothing where there is no flock: whoever starts two processes there is
// not stopped.
func lock(*os.File) error { return nil }
