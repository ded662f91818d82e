// Package podstream is how people look into pods from afar: what a container
// says, and commands inside it. It has what hub and edge have in common when they
// stand between a person and a container: the questions, as REST asks them and as
// they go to a node, the frames of their answers, and the WebSocket of a command.
// protocols/edgelink/FORMAT.md has the bytes between hub and edge.
package podstream

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Bounds of a stream.
const (
	MaxFrame = 32 << 10 // bytes of a frame's payload
	// StdinWindow is how many bytes of a command's input may be on their way to it:
	// what is beyond waits at the asker's.
	StdinWindow = 256 << 10
	// Beat is how often the node shows that a stream lives on which nothing else moves.
	Beat = time.Minute
	// AnswerTimeout is how long a node may take to say whether there is a stream.
	AnswerTimeout = 15 * time.Second
	// MaxCommand bounds a command, all its words together.
	MaxCommand = 16 << 10
)

// Kinds of frames. Those up to ChannelResize are the channels of Kubernetes' own
// protocol.
const (
	ChannelStdin  = 0
	ChannelStdout = 1
	ChannelStderr = 2
	ChannelEnd    = 3 // an End; the node's last
	ChannelResize = 4 // a Size
	ChannelEOF    = 5 // the command's input has ended
	ChannelCredit = 6 // 4 bytes: so many more bytes of input may come
)

// LogRequest says what of which log is wanted.
type LogRequest struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	Container string `json:"container,omitempty"` // "" for the only one
	// Revision is that of the pod's template, 0 for the one that serves.
	Revision     int64     `json:"revision,omitempty"`
	Previous     bool      `json:"previous,omitempty"` // of the container's life before
	Follow       bool      `json:"follow,omitempty"`
	Tail         *int      `json:"tail,omitempty"` // the last so many lines; nil for all
	SinceSeconds int64     `json:"sinceSeconds,omitempty"`
	Since        time.Time `json:"sinceTime,omitzero"`
	Timestamps   bool      `json:"timestamps,omitempty"`
	Stream       string    `json:"stream,omitempty"` // stdout or stderr, "" for both
}

// ExecRequest is a command to run in a container.
type ExecRequest struct {
	Namespace string   `json:"namespace"`
	Pod       string   `json:"pod"`
	Container string   `json:"container,omitempty"` // "" for the only one
	Command   []string `json:"command"`
	Stdin     bool     `json:"stdin,omitempty"`
	TTY       bool     `json:"tty,omitempty"`
}

// Size is that of a terminal, in Kubernetes' own words.
type Size struct {
	Columns uint16 `json:"Width"`
	Rows    uint16 `json:"Height"`
}

// End says how it ended.
type End struct {
	Problem  *models.Problem `json:"problem,omitempty"`
	ExitCode int             `json:"exitCode,omitempty"` // of a command
}

// Container is the one that is meant: the one named, or the only one.
func Container(pod string, spec *models.PodSpec, name string) (string, error) {
	var names []string
	for _, c := range spec.Containers {
		names = append(names, c.Name)
	}
	switch {
	case slices.Contains(names, name):
		return name, nil
	case name != "":
		return "", models.Errorf(models.KindNotFound, "pod %s has no container %s; it has: %s", pod, name, strings.Join(names, ", "))
	case len(names) > 1:
		return "", models.Errorf(models.KindMalformed, "pod %s has several containers, and one must be named: %s", pod, strings.Join(names, ", "))
	case len(names) == 0:
		return "", models.Errorf(models.KindNotFound, "pod %s has no containers", pod)
	}
	return names[0], nil
}

// Writer writes frames. Its methods may be called from any goroutine.
type Writer struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Frame writes a frame, or several where p is longer than one can be. It blocks
// while the other end does not read.
func (w *Writer) Frame(channel byte, p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		n := min(len(p), MaxFrame)
		w.buf = append(binary.BigEndian.AppendUint32(append(w.buf[:0], channel), uint32(n)), p[:n]...)
		if _, err := w.w.Write(w.buf); err != nil {
			return err
		}
		if p = p[n:]; len(p) == 0 {
			return nil
		}
	}
}

// JSON writes v as one frame.
func (w *Writer) JSON(channel byte, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a frame: %w", err)
	}
	if len(text) > MaxFrame {
		return fmt.Errorf("a frame of %d bytes is too long", len(text))
	}
	return w.Frame(channel, text)
}

// End says that it is over: with err, or an exit code.
func (w *Writer) End(exitCode int, err error) error {
	end := End{ExitCode: exitCode}
	if err != nil {
		p := models.ProblemOf(err)
		if len(p.Detail) > MaxFrame/8 { // escapes may make it longer
			p.Detail = strings.ToValidUTF8(p.Detail[:MaxFrame/8], "") + " …"
		}
		end.Problem = &p
	}
	return w.JSON(ChannelEnd, end)
}

// ErrMalformed is wrapped by errors of frames that are none.
var ErrMalformed = errors.New("malformed frame")

// Reader reads frames, in one goroutine.
type Reader struct {
	r   io.Reader
	buf []byte
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next returns the next frame. Its payload is valid until the call after.
func (r *Reader) Next() (channel byte, p []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if head[0] > ChannelCredit || n > MaxFrame {
		return 0, nil, fmt.Errorf("%w: kind %d, %d bytes", ErrMalformed, head[0], n)
	}
	if r.buf == nil {
		r.buf = make([]byte, MaxFrame)
	}
	_, err = io.ReadFull(r.r, r.buf[:n])
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return head[0], r.buf[:n], err
}

// ended reads the End.
func ended(p []byte) (int, error) {
	var end End
	if err := json.Unmarshal(p, &end); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if end.Problem != nil {
		return end.ExitCode, end.Problem.Err()
	}
	return end.ExitCode, nil
}

// lost is what an asker makes of an error of the connection to the node.
func lost(err error) error {
	if errors.Is(err, ErrMalformed) {
		return models.Errorf(models.KindRefused, "the node sent something that cannot be understood: %v", err)
	}
	if models.KindOf(err) != models.KindInternal {
		return err
	}
	return models.Errorf(models.KindUnavailable, "the connection to the node was lost")
}

// Answered waits until the node has said whether there is a stream: nil, or why
// not. KindTimeout: it does not say.
func Answered(conn net.Conn) error {
	s, ok := conn.(interface{ Answered() error })
	if !ok {
		return nil // it is not far
	}
	if err := conn.SetReadDeadline(time.Now().Add(AnswerTimeout)); err != nil {
		return lost(err)
	}
	err := s.Answered()
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return models.Errorf(models.KindTimeout, "the node does not answer")
	}
	if err == nil {
		err = conn.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return lost(err)
	}
	return nil
}

// CopyLog hands the text of a log to write as it comes, until it is over: nil, or
// why it broke off. Write's error ends it.
func CopyLog(conn net.Conn, write func([]byte) error) error {
	in := NewReader(conn)
	for {
		channel, p, err := in.Next()
		switch {
		case err != nil:
			return lost(err)
		case channel == ChannelEnd:
			_, err := ended(p)
			return err
		case channel != ChannelStdout && channel != ChannelStderr:
			return lost(fmt.Errorf("%w: kind %d in a log", ErrMalformed, channel))
		case len(p) == 0: // a beat
			continue
		}
		if err := write(p); err != nil {
			return err
		}
	}
}
