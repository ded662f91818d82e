//go:build !linux

package edgeruntime

// freeBytes does not know: there is no reserve then.
func freeBytes(string) (uint64, error) { return 0, nil }

// diskBytes does not know either.
func diskBytes(string) (free, total uint64, err error) { return 0, 0, nil }
