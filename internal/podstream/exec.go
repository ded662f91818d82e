package podstream

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Command is the asker's end of a command. Wait is called once; the others from
// one goroutine besides.
type Command struct {
	conn net.Conn
	out  *Writer

	mu     sync.Mutex
	credit int           // bytes of input that may go
	more   chan struct{} // one slot: there is more credit, or it is over
	over   bool
}

// NewCommand returns the command behind a connection.
func NewCommand(conn net.Conn) *Command {
	return &Command{conn: conn, out: NewWriter(conn), credit: StdinWindow, more: make(chan struct{}, 1)}
}

// Close gives the command up: the node ends it.
func (c *Command) Close() error { return c.conn.Close() }

// Stdin gives the command input. It blocks while the command takes none, until ctx
// ends or the command is over.
func (c *Command) Stdin(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		c.mu.Lock()
		n, over := min(len(p), c.credit), c.over
		c.credit -= n
		c.mu.Unlock()
		if over {
			return io.ErrClosedPipe
		}
		if n == 0 {
			select {
			case <-c.more:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if err := c.out.Frame(ChannelStdin, p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// CloseStdin ends the command's input.
func (c *Command) CloseStdin() error { return c.out.Frame(ChannelEOF, nil) }

// Resize says how large the terminal is.
func (c *Command) Resize(s Size) error { return c.out.JSON(ChannelResize, s) }

// blocked reports whether input waits for the command.
func (c *Command) blocked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.credit == 0
}

// Wait hands what the command says to out, whose error ends it, and returns the
// exit code when it is over.
func (c *Command) Wait(out func(channel byte, p []byte) error) (int, error) {
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.over = true
		c.wake()
	}()
	in := NewReader(c.conn)
	for {
		channel, p, err := in.Next()
		switch {
		case err != nil:
			return 0, lost(err)
		case channel == ChannelEnd:
			return ended(p)
		case channel == ChannelCredit && len(p) == 4:
			c.mu.Lock()
			c.credit = min(StdinWindow, c.credit+int(min(binary.BigEndian.Uint32(p), StdinWindow)))
			c.wake()
			c.mu.Unlock()
			continue
		case channel != ChannelStdout && channel != ChannelStderr:
			return 0, lost(fmt.Errorf("%w: kind %d of a command", ErrMalformed, channel))
		case len(p) == 0: // a beat
			continue
		}
		if err := out(channel, p); err != nil {
			return 0, err
		}
	}
}

func (c *Command) wake() {
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// Input is what a command is given, at the node.
type Input struct {
	Stdin  io.Reader
	Resize <-chan Size
}

// errLeft is why a command is ended whose asker has gone.
var errLeft = errors.New("whoever asked has gone")

// ServeCommand is the node's end of a command: it calls run, with what comes over
// the connection, and ends run's ctx when whoever asked goes. The connection is
// not closed.
func ServeCommand(ctx context.Context, conn net.Conn, run func(ctx context.Context, in Input, stdout, stderr io.Writer) (exitCode int, err error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := NewWriter(conn)
	stdin := &inlet{taken: func(n int) { _ = out.Frame(ChannelCredit, binary.BigEndian.AppendUint32(nil, uint32(n))) }}
	stdin.ready.L = &stdin.mu
	sizes := make(chan Size, 1) // the latest: a terminal has one size
	var wait sync.WaitGroup
	defer wait.Wait()
	defer func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) }() // for listen
	wait.Go(func() {
		err := listen(conn, stdin, sizes)
		if errors.Is(err, ErrMalformed) {
			cancel(err)
		} else {
			cancel(errLeft)
		}
		stdin.end(io.ErrUnexpectedEOF)
		_ = conn.SetWriteDeadline(time.Unix(1, 0)) // nobody reads
	})
	stop := beat(out)
	defer stop()
	code, err := run(ctx, Input{stdin, sizes}, frames{out, ChannelStdout}, frames{out, ChannelStderr})
	stdin.end(io.ErrClosedPipe)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	stop()
	return out.End(code, err)
}

// beat shows every now and then that a stream lives, until the returned function
// is called.
func beat(out *Writer) (stop func()) {
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		tick := time.NewTicker(Beat)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				if out.Frame(ChannelStdout, nil) != nil {
					return
				}
			}
		}
	})
	return sync.OnceFunc(func() { close(done); wait.Wait() })
}

// ServeLog is the node's end of a log: read writes its text. The connection is
// not closed.
func ServeLog(ctx context.Context, conn net.Conn, read func(ctx context.Context, text io.Writer) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := NewWriter(conn)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) }()
	wait.Go(func() { // whoever reads a log says nothing but that they go
		_, _ = conn.Read(make([]byte, 1))
		cancel(errLeft)
		_ = conn.SetWriteDeadline(time.Unix(1, 0))
	})
	stop := beat(out)
	defer stop()
	err := read(ctx, frames{out, ChannelStdout})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	stop()
	return out.End(0, err)
}

// listen reads what an asker sends, until there is no more.
func listen(conn net.Conn, stdin *inlet, sizes chan Size) error {
	in := NewReader(conn)
	for {
		channel, p, err := in.Next()
		if err != nil {
			return err
		}
		switch channel {
		case ChannelStdin:
			if !stdin.add(p) {
				return fmt.Errorf("%w: more input than may be on its way", ErrMalformed)
			}
		case ChannelEOF:
			stdin.end(io.EOF)
		case ChannelResize:
			var s Size
			if err := json.Unmarshal(p, &s); err != nil {
				return fmt.Errorf("%w: %w", ErrMalformed, err)
			}
			select {
			case <-sizes:
			default:
			}
			sizes <- s
		default:
			return fmt.Errorf("%w: kind %d to a command", ErrMalformed, channel)
		}
	}
}

// frames writes to one channel.
type frames struct {
	out     *Writer
	channel byte
}

func (f frames) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := f.out.Frame(f.channel, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// inlet is input that has come and is not taken yet, at most a window of it.
type inlet struct {
	taken func(n int) // tells the asker; called by whoever reads

	mu    sync.Mutex
	ready sync.Cond // of mu: there is something, or the end
	buf   []byte
	err   error // after buf
}

func (i *inlet) add(p []byte) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err != nil {
		return true // too late: nobody takes it
	}
	if len(i.buf)+len(p) > StdinWindow {
		return false
	}
	i.buf = append(i.buf, p...)
	i.ready.Signal()
	return true
}

// end is what comes after what is there. Only the first end counts, but that
// nobody reads any more counts always.
func (i *inlet) end(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err == nil || errors.Is(err, io.ErrClosedPipe) {
		i.err = err
	}
	if errors.Is(err, io.ErrClosedPipe) {
		i.buf = nil
	}
	i.ready.Signal()
}

// Read implements io.Reader, for one goroutine.
func (i *inlet) Read(p []byte) (int, error) {
	i.mu.Lock()
	for len(i.buf) == 0 && i.err == nil {
		i.ready.Wait()
	}
	n := copy(p, i.buf)
	i.buf = i.buf[n:]
	err := i.err
	i.mu.Unlock()
	if n > 0 {
		i.taken(n)
		return n, nil
	}
	return 0, err
}
