package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/need"
)

// Small disks are mounted, and what is mounted outlives the process. So each carries
// the name of its process, ctrl-C takes them away, and whoever mounts one takes away
// those of processes that were killed.

const diskPrefix = "whimbrel-e2e-"

// disks are those of this process.
var disks struct {
	sync.Mutex
	dirs  map[string]bool
	ended chan os.Signal // while there are any
}

// smallDisk makes a directory a file system of its own, where that is allowed.
func smallDisk(t testing.TB, dir string) string {
	t.Helper()
	sweepDisks(t)
	name, err := ownName(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	disks.Lock()
	defer disks.Unlock()
	if len(disks.dirs) == 0 {
		disks.dirs, disks.ended = map[string]bool{}, make(chan os.Signal, 1)
		signal.Notify(disks.ended, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
		go takeAway(disks.ended) // ends with the last disk
	}
	disks.dirs[dir] = true
	t.Cleanup(func() {
		disks.Lock()
		defer disks.Unlock()
		if delete(disks.dirs, dir); len(disks.dirs) == 0 {
			signal.Stop(disks.ended)
			close(disks.ended)
		}
	})
	if err := syscall.Mount(diskPrefix+name, dir, "tmpfs", 0, "size=64m"); err != nil {
		if need.Required() && os.Geteuid() == 0 {
			t.Fatalf("mount: %v", err)
		}
		t.Logf("no disk will be full: a small file system cannot be mounted here: %v", err)
		return ""
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// takeAway ends the process as a signal asks it to, without its disks.
func takeAway(ended <-chan os.Signal) {
	s, ok := <-ended
	if !ok {
		return
	}
	disks.Lock()
	for dir := range disks.dirs {
		if err := removeDisk(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	signal.Reset(s)
	_ = syscall.Kill(os.Getpid(), s.(syscall.Signal))
	select {}
}

// removeDisk takes a disk away, whoever still uses it, and what lies around it: the
// directories of its test.
func removeDisk(dir string) error {
	if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	if test := filepath.Dir(dir); strings.HasPrefix(filepath.Base(test), "Test") {
		return os.RemoveAll(test)
	}
	return nil
}

// sweepDisks takes away the disks of processes that are gone.
func sweepDisks(t testing.TB) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return // not here
	}
	for line := range strings.Lines(string(text)) {
		mount, rest, ok := strings.Cut(line, " - ")
		of, where := strings.Fields(rest), strings.Fields(mount)
		if !ok || len(of) < 2 || len(where) < 5 {
			continue
		}
		name, ours := strings.CutPrefix(of[1], diskPrefix)
		if !ours {
			continue
		}
		pid, _, _ := strings.Cut(name, "-")
		n, err := strconv.Atoi(pid)
		if err != nil {
			continue
		}
		if now, err := ownName(n); err == nil && now == name {
			continue // it lives
		}
		dir := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(where[4])
		if err := removeDisk(dir); err != nil {
			t.Errorf("a small disk that process %d has left: %v", n, err)
		} else {
			t.Logf("process %d was killed and has left a small disk: %s is taken away", n, dir)
		}
	}
}

// ownName names a process for all time: its id and when it started.
func ownName(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	return fmt.Sprintf("%d-%s", pid, fields[19]), nil
}

// holdDisk has a process of this test binary hold a small disk. It is where the
// process says in which directory.
const holdDisk = "WHIMBREL_HOLD_DISK"

// TestSmallDiskIsTakenAway ends processes that hold a small disk.
func TestSmallDiskIsTakenAway(t *testing.T) {
	if at := os.Getenv(holdDisk); at != "" {
		dir := smallDisk(t, t.TempDir())
		if err := os.WriteFile(at+".new", []byte(dir), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(at+".new", at); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	if smallDisk(t, t.TempDir()) == "" {
		t.Skip("a small file system cannot be mounted here")
	}
	mounted := func(dir string) bool {
		t.Helper()
		text, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(text), " "+dir+" ")
	}
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		at := filepath.Join(t.TempDir(), "at")
		child := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
		child.Env = append(os.Environ(), holdDisk+"="+at)
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, 20*time.Second, "the disk", func() error { _, err := os.Stat(at); return err })
		dir := read(at)
		if !mounted(dir) {
			t.Fatalf("%s is not mounted", dir)
		}
		sweepDisks(t)
		if !mounted(dir) {
			t.Fatal("the disk of a living process is taken away")
		}
		if err := child.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		if err := child.Wait(); child.ProcessState.Sys().(syscall.WaitStatus).Signal() != s {
			t.Errorf("%v: it ended with %v", s, err)
		}
		if s == syscall.SIGKILL {
			sweepDisks(t)
		}
		if _, err := os.Stat(filepath.Dir(dir)); mounted(dir) || err == nil {
			t.Errorf("%v: the disk at %s is still there", s, dir)
		}
	}
}
