package outbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
	"go.uber.org/goleak"
)

// appendUntilKilled, set to a path, turns the test binary into the child of
// TestKill.
const appendUntilKilled = "WHIMBREL_TEST_OUTBOX"

func TestMain(m *testing.M) {
	if path := os.Getenv(appendUntilKilled); path != "" {
		os.Exit(victim(path))
	}
	goleak.VerifyTestMain(m)
}

var device = edgelink.DeviceRef{UID: "01JD0000000000000000000001", Assignment: 1}

// quick is a configuration whose waits are short.
func quick(path string) Config {
	return Config{Path: path, Linger: time.Millisecond, Fsync: 20 * time.Millisecond, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: time.Now}
}

// life is an open outbox whose Run is running.
type life struct {
	*Outbox
	t    testing.TB
	stop func()
}

// start opens the outbox and runs it until the test or stop ends it.
func start(t testing.TB, cfg Config) *life {
	t.Helper()
	o, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error)
	go func() { ended <- o.Run(ctx) }()
	l := &life{Outbox: o, t: t}
	l.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := o.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	t.Cleanup(l.stop)
	return l
}

// numbered is an entry with one sample, the number n, so that a record's content
// can be told.
func numbered(n int64) Entry {
	return Entry{Device: device, Samples: []Sample{{Property: "n", Sample: models.Sample{Value: models.Int(n), Time: time.UnixMicro(1_700_000_000_000_000 + n)}}}}
}

// put appends entries one by one and waits until they are stored. It returns
// the last one's seq.
func (l *life) put(entries ...Entry) uint64 {
	l.t.Helper()
	type outcome struct {
		seq uint64
		err error
	}
	last := outcome{}
	for _, e := range entries {
		e.Urgent = true
		c := make(chan outcome, 1)
		if err := l.Append(l.t.Context(), e, func(seq uint64, err error) { c <- outcome{seq, err} }); err != nil {
			l.t.Fatal(err)
		}
		if last = <-c; last.err != nil {
			l.t.Fatal(last.err)
		}
	}
	return last.seq
}

// next returns what Next has now.
func (l *life) next(from Cursor, maxBytes int) []Record {
	l.t.Helper()
	ctx, cancel := context.WithCancel(l.t.Context())
	cancel()
	records, err := l.Next(ctx, from, maxBytes)
	if err != nil && !errors.Is(err, context.Canceled) {
		l.t.Fatal(err)
	}
	return records
}

// all returns every record that is waiting.
func (l *life) all() []Record {
	var all []Record
	for at := (Cursor{}); ; {
		records := l.next(at, 1<<20)
		if len(records) == 0 {
			return all
		}
		all = append(all, records...)
		at = records[len(records)-1].Cursor()
	}
}

func decoded(t testing.TB, r Record) *edgelink.Decoded {
	t.Helper()
	d, err := edgelink.DecodeRecord(r.Data)
	if err != nil {
		t.Fatalf("record %s %d: %v", r.Epoch, r.Seq, err)
	}
	if d.Samples() != r.Samples {
		t.Fatalf("record %s %d says %d samples and has %d", r.Epoch, r.Seq, r.Samples, d.Samples())
	}
	return d
}

// numbers returns the numbers in a record.
func numbers(t testing.TB, r Record) []int64 {
	return decoded(t, r).Columns.Ints
}

func gaps(t testing.TB, records []Record) []edgelink.Gap {
	var all []edgelink.Gap
	for _, r := range records {
		all = append(all, decoded(t, r).Gaps...)
	}
	return all
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) { //sleep: between looks at a condition, with a deadline
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// copyFiles copies the log as a power cut or a snapshot of the disk would leave it.
func copyFiles(t testing.TB, from, to string) {
	t.Helper()
	for _, suffix := range []string{"", "-wal", ".lost"} {
		data, err := os.ReadFile(from + suffix)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if err := os.WriteFile(to+suffix, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func temp(t testing.TB) string { return filepath.Join(t.TempDir(), "out box?.db") }

func describe(records []Record) string {
	text := ""
	for _, r := range records {
		text += fmt.Sprintf("%s/%d ", r.Epoch[len(r.Epoch)-4:], r.Seq)
	}
	return text
}
