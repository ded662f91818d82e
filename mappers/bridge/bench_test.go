package bridge

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkBatch decodes batches of a hundred samples.
func BenchmarkBatch(b *testing.B) {
	const samples = 100
	var text strings.Builder
	text.WriteString(`{"device":"bench-1","assignment":"9f0c3a5b1d2e4f60","time":"2026-01-01T00:00:00.123Z","samples":[`)
	for i := range samples {
		if i > 0 {
			text.WriteByte(',')
		}
		fmt.Fprintf(&text, `{"property":"channel-%d","value":%d.25}`, i, i)
	}
	text.WriteString("]}")
	payload := []byte(text.String())
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		if _, err := decodeBatch(payload); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*samples)/b.Elapsed().Seconds(), "samples/s")
}
