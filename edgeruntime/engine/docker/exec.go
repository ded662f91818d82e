package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
)

const (
	// endGrace is how long a command that is to end may take before it is killed.
	endGrace = 2 * time.Second
	// endTime bounds all of it.
	endTime = endGrace + 10*time.Second
)

// Exec implements engine.Streams.
func (d *Docker) Exec(ctx context.Context, id string, e engine.ExecSpec) (int, error) {
	created, err := d.cli.ContainerExecCreate(ctx, id, container.ExecOptions{Cmd: e.Command, Env: e.Env, Tty: e.TTY,
		AttachStdin: e.Stdin != nil, AttachStdout: true, AttachStderr: true})
	if err != nil {
		return 0, wrap("exec", err)
	}
	attached, err := d.cli.ContainerExecAttach(ctx, created.ID, container.ExecAttachOptions{Tty: e.TTY})
	if err != nil {
		return 0, errors.Join(wrap("exec", err), d.endExec(created.ID, id))
	}
	defer attached.Close()
	// The hijacked connection does not know of ctx.
	free := context.AfterFunc(ctx, attached.Close)
	defer free()
	ctxTold, told := context.WithCancel(ctx)
	var sizes sync.WaitGroup
	defer sizes.Wait()
	defer told()
	if e.TTY && e.Resize != nil {
		sizes.Go(func() { d.resize(ctxTold, created.ID, e.Resize) })
	}
	if e.Stdin != nil {
		go func() { // ends with its reader, or with the connection that it writes to
			_, _ = io.Copy(attached.Conn, e.Stdin)
			_ = attached.CloseWrite()
		}()
	}
	stdout, stderr := orDiscard(e.Stdout), orDiscard(e.Stderr)
	if e.TTY {
		_, err = io.Copy(stdout, attached.Reader)
	} else {
		_, err = stdcopy.StdCopy(stdout, stderr, attached.Reader)
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("exec: %w", ctx.Err())
	} else if err != nil && !errors.Is(err, net.ErrClosed) {
		err = wrap("exec", err)
	}
	if err != nil {
		return 0, errors.Join(err, d.endExec(created.ID, id))
	}
	code, err := d.exitCode(ctx, created.ID)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(err, d.endExec(created.ID, id))
	}
	return code, err
}

// exitCode waits for a command's end: it may have closed what it talks on before.
func (d *Docker) exitCode(ctx context.Context, exec string) (int, error) {
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		i, err := d.cli.ContainerExecInspect(ctx, exec)
		if err != nil {
			return 0, wrap("exec", err)
		}
		if !i.Running {
			return i.ExitCode, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("exec: %w", ctx.Err())
		case <-time.After(pause):
		}
	}
}

// resize gives a command's terminal its sizes. The engine takes none before the
// command has begun, and does not say when that is.
func (d *Docker) resize(ctx context.Context, exec string, sizes <-chan engine.Size) {
	for {
		select {
		case <-ctx.Done():
			return
		case s, ok := <-sizes:
			if !ok {
				return
			}
			for try := time.Millisecond; try < time.Second && ctx.Err() == nil; try *= 2 {
				if d.cli.ContainerExecResize(ctx, exec, container.ResizeOptions{Height: uint(s.Rows), Width: uint(s.Columns)}) == nil {
					break
				}
				select {
				case <-ctx.Done():
				case <-time.After(try):
				}
			}
		}
	}
}

// endExec ends a command to which nobody listens any more. The engine has no call
// for that and lets it run on, so its processes are signalled: it can be done where
// the engine's processes are this machine's, and by who may.
func (d *Docker) endExec(exec, id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), endTime) // the caller's has ended
	defer cancel()
	began := time.Now()
	g := group{container: id}
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		i, err := d.cli.ContainerExecInspect(ctx, exec)
		if err != nil {
			return nil // with its container, or the engine, it is gone
		}
		if !i.Running && i.Pid == 0 && time.Since(began) > endGrace {
			return nil // it has not begun, and never will
		}
		if g.leader == 0 {
			g.leader = i.Pid
		}
		if g.leader != 0 {
			want := syscall.SIGTERM
			if time.Since(began) > endGrace {
				want = syscall.SIGKILL
			}
			left, err := g.signal(want)
			switch {
			case err != nil && i.Running:
				return fmt.Errorf("%w: %w", engine.ErrLeftRunning, err)
			case !i.Running && (err != nil || left == 0):
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: it was killed, and does not end", engine.ErrLeftRunning)
		case <-time.After(pause):
		}
	}
}
