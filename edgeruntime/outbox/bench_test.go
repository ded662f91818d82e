package outbox

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
)

// BenchmarkAppend: devices of 50 properties, each cycle one entry, stored and
// synced as in production.
func BenchmarkAppend(b *testing.B) {
	for _, devices := range []int{1, 20} {
		b.Run(fmt.Sprint("devices=", devices), func(b *testing.B) {
			cfg := quick(filepath.Join(b.TempDir(), "outbox.db"))
			cfg.Linger, cfg.Fsync, cfg.MaxBytes = 0, 0, 256<<20
			l := start(b, cfg)
			entry := func(d int) Entry {
				e := Entry{Device: edgelink.DeviceRef{UID: fmt.Sprintf("01JD000000000000000000%04d", d), Assignment: 1}}
				for p := range 50 {
					e.Samples = append(e.Samples, Sample{fmt.Sprintf("temperature-%d", p), models.Sample{Value: models.Float(float64(p)), Time: time.Now()}})
				}
				return e
			}
			var stored sync.WaitGroup
			b.ReportAllocs()
			n := 0
			entries := make([]Entry, devices)
			for d := range entries {
				entries[d] = entry(d)
			}
			for b.Loop() {
				for d := range entries {
					stored.Add(1)
					if err := l.Append(b.Context(), entries[d], func(_ uint64, err error) {
						if err != nil {
							b.Error(err)
						}
						stored.Done()
					}); err != nil {
						b.Fatal(err)
					}
					n += len(entries[d].Samples)
				}
			}
			stored.Wait()
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "samples/s")
		})
	}
}

// BenchmarkUrgent is the time from an urgent entry to its being stored.
func BenchmarkUrgent(b *testing.B) {
	l := start(b, quick(filepath.Join(b.TempDir(), "outbox.db")))
	for n := int64(0); b.Loop(); n++ {
		l.put(numbered(n))
	}
}
