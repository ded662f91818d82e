// Package childproc starts the programs that tests need, such as database servers
// and engines, so that none of them outlives the test binary, however that ends.
package childproc

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Process is a program that was started.
type Process struct {
	Pid    int
	Exited <-chan struct{} // closed when it has ended
	err    error
}

// Err is how the program ended. It may be asked for after Exited.
func (p *Process) Err() error { return p.err }

// Start starts a command in a process group of its own, which keeps a terminal's
// ctrl-C from it; whoever starts it ends it. Where this process is gone before,
// the kernel sends it the signal orphaned. The rest of cmd.SysProcAttr is kept.
func Start(cmd *exec.Cmd, orphaned syscall.Signal) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, orphaned
	exited := make(chan struct{})
	p := &Process{Exited: exited}
	started := make(chan error)
	go func() { // ends with the process
		// Death of the thread that started it would count as death of the parent.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.Pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}
