//go:build !linux

package edgeruntime

// freeBytes does not know: there is no reserve then.
func freeBytes(string) (uint64, error) { return 0, nil }
