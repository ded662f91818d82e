package outbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/need"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink"
)

// victim appends numbers until it is killed, and prints each one that it was
// told is stored, and what it is about to acknowledge.
func victim(path string) int {
	cfg := quick(path)
	cfg.Fsync = 5 * time.Millisecond
	o, err := Open(context.Background(), cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go o.Run(context.Background()) // ends with the process
	for n := int64(1); ; n++ {
		e := big(n)
		e.Urgent = n%7 == 0
		if err := o.Append(context.Background(), e, func(seq uint64, err error) {
			if err == nil {
				os.Stdout.WriteString(fmt.Sprintf("%d %d\n", n, seq)) // one write, no buffer that dies with us
			}
		}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if n%50 == 0 {
			os.Stdout.WriteString(fmt.Sprintf("ack %d\n", n/50))
			_ = o.Ack(o.Epoch(), uint64(n/50)) // it may be ahead of what is stored, or in a former epoch
		}
	}
}

func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outbox.db")
	r := rand.New(rand.NewPCG(1, 1))
	for round := range 3 {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		child := exec.Command(self)
		child.Env = append(os.Environ(), appendUntilKilled+"="+path)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		stored := map[int64]uint64{} // number to seq
		asked := uint64(0)           // the highest seq that it may have acknowledged
		killAt := 200 + r.IntN(3000)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var n int64
			var seq uint64
			if _, err := fmt.Sscanf(lines.Text(), "ack %d", &seq); err == nil {
				asked = seq
			} else if _, err := fmt.Sscan(lines.Text(), &n, &seq); err == nil {
				stored[n] = seq
			}
			if len(stored) == killAt {
				child.Process.Kill()
			}
		}
		if err := child.Wait(); err == nil || len(stored) < killAt {
			t.Fatalf("round %d: the child ended by itself after %d: %v", round, len(stored), err)
		}

		l := start(t, quick(path))
		epochs := l.Epochs()
		victims := epochs[len(epochs)-1].Parent
		acked := asked // all of an epoch that is not named any more
		for _, e := range epochs {
			if e.Id == victims {
				acked = e.First - 1 // what is not there was acknowledged and forgotten
				if acked > max(asked, e.ParentLast) {
					t.Fatalf("round %d: records up to %d were forgotten, those up to %d at most were acknowledged", round, acked, asked)
				}
			}
		}
		there := map[int64]uint64{}
		last := uint64(0)
		for _, rec := range l.all() {
			if rec.Seq <= last {
				t.Fatalf("round %d: seq %d after %d", round, rec.Seq, last)
			}
			last = rec.Seq
			if rec.Epoch != victims {
				continue
			}
			d := decoded(t, rec)
			for _, n := range d.Columns.Ints {
				there[n] = rec.Seq
			}
		}
		for n, seq := range stored {
			if seq > acked && there[n] != seq {
				t.Fatalf("round %d: number %d was stored as seq %d; it is in %d now", round, n, seq, there[n])
			}
		}
		for _, e := range l.Epochs() {
			if err := l.Ack(e.Id, e.Last); err != nil {
				t.Fatal(err)
			}
		}
		l.stop()
	}
}

// TestDiskFull fills a small file system of its own.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=3m"); err != nil {
		if need.Required() && os.Geteuid() == 0 {
			t.Fatalf("mount: %v", err)
		}
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	l := start(t, quick(filepath.Join(dir, "outbox.db")))
	t.Cleanup(l.stop) // before the unmount

	l.put(numbered(0))
	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)

	stored, lost := int64(0), uint64(0)
	put := func(n int64) error {
		c := make(chan error, 1)
		e := big(n)
		e.Urgent = true
		begun := time.Now()
		if err := l.Append(t.Context(), e, func(_ uint64, err error) { c <- err }); err != nil {
			t.Fatal(err)
		}
		err := <-c
		if took := time.Since(begun); took > 3*time.Second {
			t.Fatalf("a full disk held up an entry for %s", took)
		}
		return err
	}
	for n := int64(1); n < 3000 && lost < 40; n++ {
		if err := put(n); err == nil {
			stored++
		} else {
			lost += 2 // samples
		}
	}
	if lost == 0 {
		t.Fatal("the disk never was full")
	}
	if s := l.Stats(); s.Failing == nil || s.Dropped != lost || s.DroppedBy[edgelink.GapDiskFull] != lost {
		t.Errorf("stats %+v, want %d dropped", s, lost)
	}
	if err := put(9999); err != nil { // it still says so, in a way that can be told
		lost += 2
		if !errorsIsAll(err, ErrNotStored, ErrDiskFull) {
			t.Errorf("the error is %v", err)
		}
	}
	// What was stored can be read and acknowledged all the while.
	if got := l.next(Cursor{}, 1); len(got) != 1 || numbers(t, got[0])[0] != 0 {
		t.Fatalf("got %s", describe(got))
	}

	// A kill does not forget it. What the next life has told of is told of once.
	elsewhere := temp(t)
	copyFiles(t, filepath.Join(dir, "outbox.db"), elsewhere)
	next := start(t, quick(elsewhere))
	if s := next.Stats(); s.Dropped != lost || s.DroppedBy[edgelink.GapDiskFull] != lost {
		t.Errorf("after a kill: %+v, want %d dropped", s, lost)
	}
	next.put(numbered(10001))
	for range 2 {
		next.stop()
		next = start(t, quick(elsewhere))
		if s := next.Stats(); s.Dropped != lost {
			t.Errorf("after another life: %+v, want %d dropped", s, lost)
		}
	}
	next.all()
	eventually(t, "a gap of it", func() bool {
		g := gaps(t, next.all())
		return len(g) == 1 && g[0].Reason == edgelink.GapDiskFull && g[0].Samples == lost
	})

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it stores again", func() bool {
		if put(10000) != nil {
			lost += 2
			return false
		}
		return true
	})
	if s := l.Stats(); s.Failing != nil || s.Dropped != lost {
		t.Errorf("stats %+v, want %d dropped", s, lost)
	}
	l.all()
	eventually(t, "a gap", func() bool {
		g := gaps(t, l.all())
		return len(g) == 1 && g[0].Reason == edgelink.GapDiskFull && g[0].Samples == lost && g[0].FirstSeq == 0
	})
}

func errorsIsAll(err error, targets ...error) bool {
	for _, target := range targets {
		if !errors.Is(err, target) {
			return false
		}
	}
	return true
}

// fill writes a file until nothing more goes in.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for {
		if _, err := f.Write(block); err != nil {
			return
		}
	}
}
