package childproc

import (
	"errors"
	"os/exec"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestStart(t *testing.T) {
	defer goleak.VerifyNone(t)
	p, err := Start(exec.Command("sleep", "1h"), syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	if group, err := syscall.Getpgid(p.Pid); err != nil || group != p.Pid {
		t.Errorf("process %d is of group %d, %v", p.Pid, group, err)
	}
	if err := syscall.Kill(p.Pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-p.Exited
	var exit *exec.ExitError
	if !errors.As(p.Err(), &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v", p.Err())
	}
	if _, err := Start(exec.Command("/nowhere/to/be/found"), syscall.SIGKILL); err == nil {
		t.Error("a program that is not there was started")
	}
}
