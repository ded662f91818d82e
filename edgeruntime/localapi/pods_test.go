package localapi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/cloudapi/client"
	"github.com/whimbrel-edge/whimbrel/internal/podstream"
	"github.com/whimbrel-edge/whimbrel/models"
)

// fakeDesk has one pod, web-0, which says its name and echoes.
type fakeDesk struct{}

func (fakeDesk) Pods() []*models.Pod {
	return []*models.Pod{{TypeMeta: models.TypeMeta{APIVersion: "v1", Kind: "Pod"}, Metadata: models.ObjectMeta{Namespace: "default", Name: "web-0"}},
		{TypeMeta: models.TypeMeta{APIVersion: "v1", Kind: "Pod"}, Metadata: models.ObjectMeta{Namespace: "lab", Name: "web-0"}}}
}

func (fakeDesk) ServeLog(ctx context.Context, r podstream.LogRequest, begin func() (net.Conn, error)) error {
	if r.Pod != "web-0" {
		return models.Errorf(models.KindNotFound, "this node does not run pod %s", r.Pod)
	}
	conn, err := begin()
	if err != nil {
		return err
	}
	return podstream.ServeLog(ctx, conn, func(ctx context.Context, w io.Writer) error {
		_, err := io.WriteString(w, r.Namespace+"\n")
		if r.Follow {
			<-ctx.Done()
			return ctx.Err()
		}
		if r.Previous {
			return models.Errorf(models.KindUnavailable, "the engine is gone")
		}
		return err
	})
}

func (fakeDesk) ServeExec(ctx context.Context, r podstream.ExecRequest, begin func() (net.Conn, error)) error {
	conn, err := begin()
	if err != nil {
		return err
	}
	return podstream.ServeCommand(ctx, conn, func(_ context.Context, in podstream.Input, stdout, _ io.Writer) (int, error) {
		n, err := io.Copy(stdout, in.Stdin)
		return int(n), err
	})
}

func TestPods(t *testing.T) {
	s, err := New(Config{Addr: "127.0.0.1:0", Token: "secret", Devices: &fakeDevices{}, Pods: fakeDesk{}, Desk: fakeDesk{}, Log: slog.New(slog.DiscardHandler),
		Apps: func(token string) (App, bool) { return fakeApp{}, token == "apps" }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }() // ends with ctx
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	url := "http://" + s.Addr()
	for _, c := range []struct {
		path   string
		status int
		say    string
	}{
		{"/v1/pods", 200, `"namespace":"lab"`},
		{"/v1/pods?namespace=none", 200, `"items":[]`},
		{"/v1/pods/web-0/log", 200, "default\n"},
		{"/v1/pods/web-0/log?namespace=lab", 200, "lab\n"},
		{"/v1/pods/web-1/log", 404, "web-1"},
		{"/v1/pods/web-0/log?namespace=A", 400, "namespace"},
		{"/v1/pods/web-0/log?lines=3", 400, "lines"},
		{"/v1/pods/web-0/log?tailLines=x", 400, "tailLines"},
		{"/v1/pods/web-0/exec?command=x", 400, "WebSocket"},
		{"/v1/pods/web-0/exec", 400, "command"},
	} {
		if status, _, text := do(t, http.MethodGet, url+c.path, ""); status != c.status || !strings.Contains(text, c.say) {
			t.Errorf("%s: %d %s", c.path, status, text)
		}
	}
	for _, path := range []string{"/v1/pods", "/v1/pods/web-0/log", "/v1/pods/web-0/exec?command=x"} {
		if status, _, text := do(t, http.MethodGet, url+path, "", "Authorization", "Bearer apps"); status != 403 {
			t.Errorf("an app asks for %s: %d %s", path, status, text)
		}
	}

	// The client that the commands use, which speaks to the hub otherwise.
	c, err := client.New(url, "secret", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if l, err := c.List(ctx, "Pod", client.ListOptions{Namespace: "lab"}); err != nil || len(l.Items) != 1 {
		t.Errorf("%+v, %v", l, err)
	}
	var out strings.Builder
	if code, err := c.Exec(ctx, "default", "web-0", client.ExecOptions{Command: []string{"a", "b"}, Stdin: strings.NewReader("four"), Stdout: &out, Stderr: io.Discard}); code != 4 || err != nil || out.String() != "four" {
		t.Errorf("%q, exit %d, %v", out.String(), code, err)
	}
	body, err := c.PodLog(ctx, "default", "web-0", client.LogOptions{Tail: -1, Previous: true})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(body); err == nil {
		t.Errorf("a log that breaks off looks whole: %q", text)
	}
	_ = body.Close()
	if body, err = c.PodLog(ctx, "default", "web-0", client.LogOptions{Tail: -1, Follow: true}); err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.ReadFull(body, make([]byte, len("default\n"))); err != nil {
		t.Fatal(err)
	}
	cancel() // and the edge stops while somebody follows
	if _, err := io.ReadAll(body); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the end of an edge looks like that of a log: %v", err)
	}
	ended <- <-ended
}
