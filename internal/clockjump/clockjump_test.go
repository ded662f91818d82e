package clockjump

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestMain: this program is its own victim. It says what time it is for each line
// that it gets, and how much passed since the line before.
func TestMain(m *testing.M) {
	if os.Getenv("CLOCKJUMP_VICTIM") == "" {
		os.Exit(m.Run())
	}
	lines, last := bufio.NewScanner(os.Stdin), time.Now()
	for lines.Scan() {
		now := time.Now()
		fmt.Println(now.Round(0).UnixMicro(), now.Sub(last).Microseconds())
		last = now
	}
}

func TestJumps(t *testing.T) {
	victim := exec.Command(os.Args[0])
	victim.Env = append(os.Environ(), "CLOCKJUMP_VICTIM=1")
	in, err := victim.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewScanner(out)
	ask := func() (wall time.Time, passed time.Duration) {
		t.Helper()
		if _, err := fmt.Fprintln(in, "what time is it?"); err != nil {
			t.Fatal(err)
		}
		if !answers.Scan() {
			t.Fatalf("the victim is gone: %v", answers.Err())
		}
		var us, since int64
		if _, err := fmt.Sscan(answers.Text(), &us, &since); err != nil {
			t.Fatal(err)
		}
		return time.UnixMicro(us), time.Duration(since) * time.Microsecond
	}
	ask()
	clock, err := Of(victim.Process.Pid)
	if errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, ahead := range []time.Duration{0, time.Hour, -time.Hour, 80 * 365 * 24 * time.Hour, -56 * 365 * 24 * time.Hour, 0} {
		if err := clock.Set(ahead); err != nil {
			t.Fatal(err)
		}
		wall, passed := ask()
		if off := time.Until(wall) - ahead; off.Abs() > 5*time.Second {
			t.Errorf("ahead by %v: it is %v there", ahead, wall)
		}
		if passed < 0 || passed > 30*time.Second {
			t.Errorf("ahead by %v: the monotonic clock moved by %v", ahead, passed)
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := victim.Wait(); err != nil {
		t.Error(err)
	}
}

// TestLibc: programs in C are served, too.
func TestLibc(t *testing.T) {
	shell := exec.Command("bash", "-c", `read go; printf '%(%Y)T\n' -1`)
	in, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	shell.Stdout = &out
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	clock, err := Of(shell.Process.Pid)
	if err == nil {
		err = clock.Set(time.Until(time.Date(2100, 6, 1, 0, 0, 0, 0, time.UTC)))
	}
	if errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintln(in, "go"); err != nil {
		t.Fatal(err)
	}
	if err := shell.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(out.String()); got != "2100" {
		t.Errorf("it is %s", got)
	}
}
