package podstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/whimbrel-edge/whimbrel/models"
)

const (
	channelClose = 255 // of ProtocolV5: ends the channel that follows
	// maxMessage bounds what a caller sends at once. It is passed on as it comes.
	maxMessage = 1 << 20
	// pingEvery is how often a caller is looked after, and how long it may take to
	// answer, and to take a part of what the command says.
	pingEvery    = 15 * time.Second
	pingTimeout  = 15 * time.Second
	writeTimeout = time.Minute
)

// Status is how a command ended, as Kubernetes says it, on channel 3.
type Status struct {
	Kind       string         `json:"kind,omitempty"`
	APIVersion string         `json:"apiVersion,omitempty"`
	Metadata   struct{}       `json:"metadata"`
	Status     string         `json:"status"` // Success or Failure
	Message    string         `json:"message,omitempty"`
	Reason     string         `json:"reason,omitempty"`
	Details    *StatusDetails `json:"details,omitempty"`
	Code       int            `json:"code,omitempty"` // as an HTTP status
}

// StatusDetails has the exit code.
type StatusDetails struct {
	Causes []StatusCause `json:"causes"`
}

// StatusCause is one with the reason ExitCode.
type StatusCause struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

const (
	reasonExit = "NonZeroExitCode"
	causeExit  = "ExitCode"
)

func statusOf(exitCode int, err error) Status {
	s := Status{Kind: "Status", APIVersion: "v1", Status: "Success"}
	switch {
	case err != nil:
		p := models.ProblemOf(err)
		s.Status, s.Code, s.Reason, s.Message = "Failure", p.Status, http.StatusText(p.Status), p.Detail
	case exitCode != 0:
		s.Status, s.Reason, s.Message = "Failure", reasonExit, fmt.Sprintf("command terminated with exit code %d", exitCode)
		s.Details = &StatusDetails{[]StatusCause{{causeExit, strconv.Itoa(exitCode)}}}
	}
	return s
}

// result is what a Status says.
func (s Status) result() (int, error) {
	if s.Status == "Success" {
		return 0, nil
	}
	if s.Reason == reasonExit && s.Details != nil {
		for _, c := range s.Details.Causes {
			if code, err := strconv.Atoi(c.Message); err == nil && c.Reason == causeExit {
				return code, nil
			}
		}
	}
	return 0, models.Errorf(models.KindOfStatus(s.Code), "%s", s.Message)
}

// ErrCallerLeft is of a command whose caller went before its end.
var ErrCallerLeft = errors.New("the caller has left")

// Bridge is a command's whole life between a caller and a node: it takes over the
// request, which CheckUpgrade has seen, and ends the command when the caller goes,
// or ctx ends. The connection to the node is closed when it returns. ended is
// called once, before the caller is told: err is why there is no exit code,
// ErrCallerLeft itself where that is it.
func Bridge(ctx context.Context, w http.ResponseWriter, r *http.Request, req ExecRequest, stdout, stderr bool, cmd *Command, ended func(exitCode int, err error)) {
	defer cmd.Close()
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{ProtocolV5, ProtocolV4}, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		ended(0, ErrCallerLeft)
		return
	}
	defer ws.CloseNow()
	ws.SetReadLimit(maxMessage)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	free := context.AfterFunc(ctx, func() { _ = cmd.Close() }) // Wait comes back
	defer free()
	var wait sync.WaitGroup
	defer wait.Wait()
	defer func() { _ = ws.CloseNow() }()
	reading, unread := context.WithCancel(context.WithoutCancel(ctx)) // its end closes the WebSocket
	defer unread()
	wait.Go(func() { cancel(hear(ctx, reading, ws, req, cmd)) })
	looked, stop := context.WithCancel(ctx)
	defer stop()
	wait.Go(func() {
		if err := lookAfter(looked, ws, cmd.blocked); err != nil {
			cancel(err)
		}
	})
	say := func(channel byte, p []byte) error {
		limit, cancel := context.WithTimeout(context.Background(), writeTimeout)
		defer cancel()
		if err := ws.Write(limit, websocket.MessageBinary, append([]byte{channel}, p...)); err != nil {
			return fmt.Errorf("%w: %w", ErrCallerLeft, err)
		}
		return nil
	}
	code, err := cmd.Wait(func(channel byte, p []byte) error {
		if channel == ChannelStdout && !stdout || channel == ChannelStderr && !stderr {
			return nil
		}
		return say(channel, p)
	})
	stop()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if errors.Is(err, ErrCallerLeft) {
		ended(0, ErrCallerLeft)
		return
	}
	ended(code, err)
	text, err := json.Marshal(statusOf(code, err))
	if err == nil && say(ChannelEnd, text) == nil {
		_ = ws.Close(websocket.StatusNormalClosure, "")
	}
}

// hear passes on what a caller sends until it goes. It never returns nil.
func hear(ctx, reading context.Context, ws *websocket.Conn, req ExecRequest, cmd *Command) error {
	left := func(err error) error { return fmt.Errorf("%w: %w", ErrCallerLeft, err) }
	refuse := func(why string) error {
		_ = ws.Close(websocket.StatusPolicyViolation, why)
		return left(errors.New(why))
	}
	block := make([]byte, 16<<10)
	for {
		_, message, err := ws.Reader(reading)
		if err != nil {
			return left(err)
		}
		if _, err := io.ReadFull(message, block[:1]); errors.Is(err, io.EOF) {
			continue // says nothing
		} else if err != nil {
			return left(err)
		}
		switch channel := block[0]; channel {
		case ChannelStdin:
			if !req.Stdin {
				return refuse("there is input, and stdin=true was not asked for")
			}
			for err == nil {
				var n int
				if n, err = message.Read(block); n > 0 {
					if ended := cmd.Stdin(ctx, block[:n]); ended != nil && ctx.Err() != nil {
						return left(ended)
					} // else the command is over, and what it does not take is nothing to it
				}
			}
			if !errors.Is(err, io.EOF) {
				return left(err)
			}
		case ChannelResize, channelClose:
			text, err := io.ReadAll(io.LimitReader(message, 1<<10))
			if err != nil {
				return left(err)
			}
			if channel == channelClose {
				if len(text) == 1 && text[0] == ChannelStdin && req.Stdin && ws.Subprotocol() == ProtocolV5 {
					_ = cmd.CloseStdin() // fails when the command is over
				}
				continue
			}
			var s Size
			if json.Unmarshal(text, &s) != nil {
				return refuse(`a size must be such as {"Width": 80, "Height": 24}`)
			}
			if req.TTY {
				_ = cmd.Resize(s)
			}
		default:
			return refuse("there is no channel of this number")
		}
	}
}

// lookAfter returns why a caller is taken to have gone, nil when ctx ends. While
// nothing of it is read, because the command takes no input, it cannot answer; that
// its end of the connection is gone shows even so.
func lookAfter(ctx context.Context, ws *websocket.Conn, blocked func() bool) error {
	tick := time.NewTicker(pingEvery / 5)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		patience := pingTimeout
		if blocked() {
			patience = time.Second
		} else if n%5 != 0 {
			continue
		}
		limit, cancel := context.WithTimeout(ctx, patience)
		err := ws.Ping(limit)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !(errors.Is(err, context.DeadlineExceeded) && blocked()) {
			return fmt.Errorf("%w: %w", ErrCallerLeft, err)
		}
	}
}
