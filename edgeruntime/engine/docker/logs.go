package docker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
)

// maxLogFrame bounds one entry of a log: the engine cuts lines at 16 KiB.
const maxLogFrame = 1 << 20

// Logs implements engine.Streams.
func (d *Docker) Logs(ctx context.Context, id string, o engine.LogOptions, emit func(engine.LogEntry) error) error {
	skip := 0
	if o.Tail >= 0 && (o.Only != engine.Both || !o.Until.IsZero()) {
		// The engine counts the last entries of all that there are, and leaves out the
		// others of those afterwards. So they are counted here.
		all := o
		all.Follow, all.Tail = false, -1
		n := 0
		if err := d.logs(ctx, id, all, func(engine.LogEntry) error { n++; return nil }); err != nil {
			return err
		}
		skip, o.Tail = max(0, n-o.Tail), -1
	}
	return d.logs(ctx, id, o, func(e engine.LogEntry) error {
		if skip > 0 {
			skip--
			return nil
		}
		return emit(e)
	})
}

func (d *Docker) logs(ctx context.Context, id string, o engine.LogOptions, emit func(engine.LogEntry) error) error {
	options := container.LogsOptions{ShowStdout: o.Only != engine.Stderr, ShowStderr: o.Only != engine.Stdout, Follow: o.Follow, Timestamps: true, Tail: "all"}
	if o.Tail >= 0 {
		options.Tail = strconv.Itoa(o.Tail)
	}
	if !o.Since.IsZero() {
		options.Since = o.Since.UTC().Format(time.RFC3339Nano)
	}
	if !o.Until.IsZero() {
		options.Until = o.Until.UTC().Format(time.RFC3339Nano)
	}
	body, err := d.cli.ContainerLogs(ctx, id, options)
	if err != nil {
		return wrap("logs", err)
	}
	defer body.Close()
	err = readLog(body, emit)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var own emitted
	if errors.As(err, &own) {
		return own.error
	}
	return wrap("logs", err)
}

// emitted is an error of whoever is told of entries.
type emitted struct{ error }

// readLog reads a log as the engine sends it: for each entry 8 bytes (the stream,
// three zeros, the length, big endian), the time, a space and the text. The text
// is all of one entry; the engine marks long lines' parts by the lack of an end only.
func readLog(r io.Reader, emit func(engine.LogEntry) error) error {
	in := bufio.NewReaderSize(r, atOnce)
	var frame []byte
	for {
		var head [8]byte
		if _, err := io.ReadFull(in, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(head[4:])
		if head[1]|head[2]|head[3] != 0 || head[0] > 3 || n > maxLogFrame {
			return fmt.Errorf("the engine sent something that is no log: % x", head)
		}
		if cap(frame) < int(n) {
			frame = make([]byte, n)
		}
		frame = frame[:n]
		if _, err := io.ReadFull(in, frame); err != nil {
			return err
		}
		if head[0] == 3 { // of the engine itself
			return errors.New(string(bytes.TrimSpace(frame)))
		}
		at, text, ok := bytes.Cut(frame, []byte(" "))
		t, err := time.Parse(time.RFC3339Nano, string(at))
		if !ok || err != nil {
			return fmt.Errorf("the engine sent an entry of a log without a time: %.60q", frame)
		}
		if err := emit(engine.LogEntry{Time: t.UTC(), Stream: engine.Stream(max(head[0], 1)), Data: text}); err != nil {
			return emitted{err}
		}
	}
}
