//go:build !linux

package cli

import (
	"errors"
	"os"

	"github.com/whimbrel-edge/whimbrel/internal/podstream"
)

// isTerminal reports what may be one: makeRaw then says that it is of no use here.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func makeRaw(*os.File) (restore func(), err error) {
	return nil, errors.New("-it is for Linux; use -i alone here")
}

func followSize(*os.File, chan podstream.Size) (stop func()) { return func() {} }
