package outbox

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"

	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
)

// lostFile keeps the count of what could not be stored for want of space, so that
// a kill does not forget it before there is space to store a gap. Its few bytes
// are there from the start and are written in place, which takes no space.
//
//	after    8 bytes   the newest seq that was stored before
//	samples  8         lost since then
//	from     8         the time of the first one, microseconds since 1970
//	to       8         of the last one
//	sum      4         CRC-32C of all that
//
// What is lost becomes a gap together with the next record. So a count whose after
// is not the newest seq is no news.
type lostFile struct{ f *os.File }

const lostBytes = 36

// openLost opens the file and returns what it says is lost after a seq.
func openLost(path string, last uint64) (*lostFile, edgelink.Gap, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, edgelink.Gap{}, err
	}
	l := &lostFile{f}
	var lost edgelink.Gap
	b := make([]byte, lostBytes)
	if _, err := f.ReadAt(b, 0); err == nil && crc32.Checksum(b[:32], castagnoli) == binary.LittleEndian.Uint32(b[32:]) {
		n := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
		if n(0) == last && n(1) > 0 {
			lost = edgelink.Gap{Reason: edgelink.GapDiskFull, Samples: n(1), From: timeOf(int64(n(2))), To: timeOf(int64(n(3)))}
		}
	}
	if err := l.keep(last, lost); err != nil { // also takes the space
		f.Close()
		return nil, edgelink.Gap{}, err
	}
	return l, lost, nil
}

// keep notes what is lost. A nil file forgets it.
func (l *lostFile) keep(after uint64, lost edgelink.Gap) error {
	if l == nil {
		return nil
	}
	b := make([]byte, 0, lostBytes)
	for _, n := range []uint64{after, lost.Samples, uint64(microseconds(lost.From)), uint64(microseconds(lost.To))} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if _, err := l.f.WriteAt(b, 0); err != nil {
		return fmt.Errorf("keep the count of what is lost: %w", err)
	}
	return nil
}

func (l *lostFile) close() error {
	if l == nil {
		return nil
	}
	return l.f.Close()
}
