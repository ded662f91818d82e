package podstream

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Terminal is what a caller has to give to a command, and takes from it.
type Terminal struct {
	// Stdin is nil for a command without input. Its last Read may come back later than
	// Call.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Resize         <-chan Size // nil without a terminal
}

// Call is the caller's end of a command's WebSocket, which it closes. It returns
// the exit code. When ctx ends the command is given up.
func Call(ctx context.Context, ws *websocket.Conn, t Terminal) (int, error) {
	defer ws.CloseNow()
	ws.SetReadLimit(maxMessage)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer func() { _ = ws.CloseNow() }()
	say := func(channel byte, p []byte) error {
		return ws.Write(ctx, websocket.MessageBinary, append([]byte{channel}, p...))
	}
	looked, stop := context.WithCancel(ctx)
	defer stop()
	wait.Go(func() {
		if lookAfter(looked, ws, func() bool { return false }) != nil {
			cancel(models.Errorf(models.KindUnavailable, "the hub does not answer any more"))
		}
	})
	wait.Go(func() {
		for {
			select {
			case <-looked.Done():
				return
			case s := <-t.Resize:
				if text, err := json.Marshal(s); err != nil || say(ChannelResize, text) != nil {
					return
				}
			}
		}
	})
	if t.Stdin != nil {
		go func() { // ends with its reader, or the connection
			block := make([]byte, 16<<10)
			for {
				n, err := t.Stdin.Read(block)
				if n > 0 && say(ChannelStdin, block[:n]) != nil {
					return
				}
				if err != nil {
					_ = say(channelClose, []byte{ChannelStdin})
					return
				}
			}
		}()
	}
	code, err := t.take(ctx, ws)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return code, err
}

// take takes what a command says, to its end.
func (t *Terminal) take(ctx context.Context, ws *websocket.Conn) (int, error) {
	for {
		_, p, err := ws.Read(ctx)
		if err != nil {
			if ctx.Err() == nil && websocket.CloseStatus(err) == websocket.StatusPolicyViolation {
				return 0, models.Errorf(models.KindMalformed, "the hub refuses it: %v", err)
			}
			return 0, models.Errorf(models.KindUnavailable, "the connection to the hub was lost")
		}
		if len(p) == 0 {
			continue
		}
		to := t.Stdout
		switch p[0] {
		case ChannelEnd:
			var s Status
			if err := json.Unmarshal(p[1:], &s); err != nil {
				return 0, fmt.Errorf("%w: how the command ended: %w", ErrMalformed, err)
			}
			return s.result()
		case ChannelStderr:
			to = t.Stderr
		case ChannelStdout:
		default:
			continue // of a later release
		}
		if _, err := to.Write(p[1:]); err != nil {
			return 0, err
		}
	}
}

// LineReader reads a log that was asked for with times, and says where to go on
// when it breaks off: each line once, and none left out.
type LineReader struct {
	last time.Time // of the last line
	n    int       // lines in a row that had that time
	skip int       // of the lines of that time: had before
}

// Since is where to go on, zero for the beginning.
func (l *LineReader) Since() time.Time { return l.last }

// Begin says that the log is read anew from Since on.
func (l *LineReader) Begin() { l.skip = l.n }

// Undo takes back the line before, which came in part only.
func (l *LineReader) Undo() { l.n = max(0, l.n-1) }

// Line says whether a line is new, and returns its time and what comes after it. A
// line without a time is passed on as it is.
func (l *LineReader) Line(line []byte) (at, rest []byte, isNew bool) {
	for i, b := range line {
		if b != ' ' {
			continue
		}
		t, err := time.Parse(time.RFC3339Nano, string(line[:i]))
		if err != nil {
			break
		}
		if t.Equal(l.last) && l.skip > 0 {
			l.skip--
			return nil, nil, false
		}
		l.skip = 0
		if !t.Equal(l.last) {
			l.last, l.n = t, 0
		}
		l.n++
		return line[:i], line[i+1:], true
	}
	return nil, line, true
}
