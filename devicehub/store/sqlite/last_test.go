package sqlite

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
)

// BenchmarkLastSince is what a hub asks when it starts: the last samples of 1,000
// devices of 100 properties, 128 devices at a time. news are those with something later
// than was known.
func BenchmarkLastSince(b *testing.B) {
	const devices, properties, part, rounds = 1000, 100, 128, 4
	s, err := Open(b.Context(), filepath.Join(b.TempDir(), "hub.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	now := time.Now()
	if _, err := s.StartEpoch(b.Context(), "n", "e", now); err != nil {
		b.Fatal(err)
	}
	for d := range devices {
		var keys []store.SeriesKey
		for p := range properties {
			keys = append(keys, store.SeriesKey{DeviceUID: fmt.Sprintf("device-%04d", d), Assignment: 1, Property: fmt.Sprintf("property-%d", p)})
		}
		ids, err := s.SeriesIDs(b.Context(), keys)
		if err != nil {
			b.Fatal(err)
		}
		batch := store.Batch{NodeUID: "n", Epoch: "e", After: uint64(d), Acked: uint64(d) + 1, Received: now}
		for _, id := range ids {
			for round := range rounds {
				storetest.Add(&batch.Samples, id, store.Sample{TimeUS: int64(round), Kind: 2, Int: int64(round)})
			}
		}
		if err := s.Ingest(b.Context(), []store.Batch{batch}); err != nil {
			b.Fatal(err)
		}
	}
	for name, since := range map[string]int64{"no news": rounds, "news": 0} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				for first := 0; first < devices; first += part {
					of := map[string]map[string]int64{}
					for d := first; d < min(first+part, devices); d++ {
						after := map[string]int64{}
						for p := range properties {
							after[fmt.Sprintf("property-%d", p)] = since
						}
						of[fmt.Sprintf("device-%04d", d)] = after
					}
					if _, err := s.LastSince(b.Context(), of, now.UnixMicro()); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
