package main

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/cli"
)

// upHere runs `up` on free ports until it ends, in a directory of its own.
func upHere(t *testing.T, ctx context.Context, args ...string) (code int, said string) {
	t.Helper()
	var errs bytes.Buffer
	root := cli.New()
	root.AddCommand(commands(&settings{})...)
	// The last of a flag given twice holds.
	root.SetArgs(append([]string{"up", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--api", "127.0.0.1:0"}, args...))
	root.SetOut(new(bytes.Buffer))
	root.SetErr(&errs)
	code = cli.Execute(ctx, root)
	return code, errs.String()
}

// Whose port is taken learns which flag chooses another.
func TestUpOnATakenPort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for flag, says := range map[string]string{"--listen": "choose another address with --listen (", "--mqtt": "with --mqtt or --api (", "--api": "with --mqtt or --api ("} {
		code, said := upHere(t, t.Context(), "--no-plant", flag, ln.Addr().String())
		if code != 1 || !strings.Contains(said, "address already in use; ") || !strings.Contains(said, says) {
			t.Errorf("%s: exit code %d, %q", flag, code, said)
		}
	}
}

// Who ends it while it starts has asked for that: nothing went wrong.
func TestUpEndsWhileItStarts(t *testing.T) {
	for _, after := range []time.Duration{20, 80, 150, 300, 600} {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(after*time.Millisecond, cancel)
		if code, said := upHere(t, ctx); code != 0 || strings.Contains(said, "error:") {
			t.Errorf("after %d ms: exit code %d, %q", after, code, said)
		}
		cancel()
	}
}
