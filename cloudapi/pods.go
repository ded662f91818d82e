package cloudapi

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/whimbrel-edge/whimbrel/internal/podstream"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Pods is what looking into pods needs. A connection is what package podstream has
// between an asker and a node. Errors are KindNotFound for a pod or container that is
// not there, KindConflict for one that does not run, KindUnavailable for an offline
// node, KindTimeout for a silent one, KindTooMany.
type Pods interface {
	// OpenLog opens a container's log.
	OpenLog(ctx context.Context, r podstream.LogRequest, trace string) (net.Conn, error)
	// OpenExec begins a command, which is recorded before it starts. ended is called
	// once, with how it ended: err is why there is no exit code.
	OpenExec(ctx context.Context, r podstream.ExecRequest, by, trace string) (conn net.Conn, ended func(exitCode int, err error), err error)
}

// pagePatience is how long whoever reads a log may take for a part of it: a person
// may be at the pager's first page. Nothing is gathered here meanwhile.
const pagePatience = time.Hour

func (a *api) podRoutes() []route {
	return []route{{a.schemas.podLogOp(), models.Operator, a.podLog}, {a.schemas.podExecOp(), models.Admin, a.podExec}}
}

// pod names the pod that is meant, for who holds a role.
func (c *call) pod(need models.Role) (namespace, name string, err error) {
	if namespace, err = c.namespace(); err == nil {
		err = c.caller.may(need, namespace)
	}
	name = c.param("name")
	if err == nil && c.api.Pods == nil {
		err = errNoPath
	}
	return namespace, name, err
}

// podLog streams a log as text. One that breaks off is an answer without its end.
func (a *api) podLog(c *call) (answer, error) {
	namespace, name, err := c.pod(models.Operator)
	if err != nil {
		return answer{}, err
	}
	r, err := podstream.ParseLog(c.query)
	if err != nil {
		return answer{}, err
	}
	r.Namespace, r.Pod = namespace, name
	ctx, cancel := c.long()
	conn, err := a.Pods.OpenLog(ctx, r, c.trace)
	cancel(nil)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	s := &stream{c: c, contentType: "text/plain; charset=utf-8", patience: pagePatience}
	err = s.run(func(ctx context.Context) error {
		free := context.AfterFunc(ctx, func() { _ = conn.Close() })
		defer free()
		if err := s.write(nil); err != nil { // who follows a silent app is to know that they do
			return err
		}
		return podstream.CopyLog(conn, s.write)
	})
	if err != nil && !s.started() {
		return answer{}, err
	}
	if err != nil && c.Context().Err() == nil {
		a.Log.InfoContext(c.Context(), "a log breaks off", "path", c.URL.Path, "error", err, "traceparent", c.trace)
		breakOff()
	}
	return answer{sent: true}, nil
}

// podExec runs a command over a WebSocket.
func (a *api) podExec(c *call) (answer, error) {
	namespace, name, err := c.pod(models.Admin)
	if err != nil {
		return answer{}, err
	}
	r, stdout, stderr, err := podstream.ParseExec(c.query)
	if err == nil {
		err = podstream.CheckUpgrade(c.Request)
	}
	if err != nil {
		return answer{}, err
	}
	r.Namespace, r.Pod = namespace, name
	ctx, cancel := c.long()
	defer cancel(nil)
	conn, ended, err := a.Pods.OpenExec(ctx, r, c.caller.Name, c.trace)
	if err != nil {
		return answer{}, err
	}
	watched := make(chan struct{})
	go func() { // ends with ctx, which is awaited below
		defer close(watched)
		c.watchCaller(ctx, cancel)
	}()
	podstream.Bridge(ctx, c.w, c.Request, r, stdout, stderr, podstream.NewCommand(conn), func(code int, err error) {
		if err != nil && !errors.Is(err, podstream.ErrCallerLeft) {
			a.Log.InfoContext(c.Context(), "a command broke off", "path", c.URL.Path, "error", err, "traceparent", c.trace)
		}
		ended(code, err)
	})
	cancel(nil)
	<-watched
	c.w.status = http.StatusSwitchingProtocols // for the log
	return answer{sent: true}, nil
}

// watchCaller ends a long call whose caller's token is no longer good, or good for
// something else.
func (c *call) watchCaller(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(c.api.Heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			now := *c // the call's own caller is left alone: its handler reads it
			err := now.authenticate()
			if err == nil && now.caller != c.caller {
				err = errChanged
			}
			if err != nil {
				cancel(err)
				return
			}
		}
	}
}

func (s schemas) podLogOp() huma.Operation {
	least := func(n float64) *huma.Schema { return &huma.Schema{Type: huma.TypeInteger, Minimum: &n} }
	flag := func() *huma.Schema { return &huma.Schema{Type: huma.TypeBoolean} }
	o := op(http.MethodGet, Prefix+"/pods/{name}/log", "getPodLog", "Read what a container says", []*huma.Param{namePath(), oneNamespace(),
		param("query", "container", "Of the pod; may be left out where there is one only.", text()),
		param("query", "revision", "Of the pod's template; the one that serves when left out.", least(1)),
		param("query", "previous", "What it said in the life before.", flag()),
		param("query", "follow", "Go on until the pod is gone or has done what it was for, through restarts and new revisions.", flag()),
		param("query", "tailLines", "Only so many lines of what there is.", least(0)),
		param("query", "sinceSeconds", "Only what was said in so many seconds.", least(1)),
		param("query", "sinceTime", "Only what was said from then on.", &huma.Schema{Type: huma.TypeString, Format: "date-time"}),
		param("query", "timestamps", "Begin each line with its time.", flag()),
		param("query", "stream", "One of the two only.", oneOf("All", "Stdout", "Stderr"))},
		map[string]*huma.Response{"200": {Description: "The log. An answer without an end broke off. 404: there is no such pod, container, revision or earlier life. 409: the container was not started yet. 502: the node's release cannot do it, or its engine fails. 503: the node is offline, or its engine does not answer. 504: the node does not answer.",
			Content: content(text(), "text/plain")}})
	o.Tags = []string{"apps"}
	return s.problems(o, 404, 409, 502, 504)
}

func (s schemas) podExecOp() huma.Operation {
	flag := func() *huma.Schema { return &huma.Schema{Type: huma.TypeBoolean} }
	command := param("query", "command", "Its words, each as a parameter of its own. There is no shell unless one is named.", &huma.Schema{Type: huma.TypeArray, Items: text()})
	command.Required = true
	o := op(http.MethodGet, Prefix+"/pods/{name}/exec", "execInPod", "Run a command in a container", []*huma.Param{namePath(), oneNamespace(),
		param("query", "container", "Of the pod; may be left out where there is one only.", text()),
		command,
		param("query", "stdin", "It is given input.", flag()),
		param("query", "stdout", "What it says is wanted; true when left out.", flag()),
		param("query", "stderr", "And so is this.", flag()),
		param("query", "tty", "It has a terminal; all that it says is then stdout.", flag())},
		map[string]*huma.Response{"101": {Description: "A WebSocket of the subprotocol " + podstream.ProtocolV5 + " or " + podstream.ProtocolV4 + ": messages of a byte for the channel (0 stdin, 1 stdout, 2 stderr, 3 how it ended, 4 the terminal's size) and what goes over it. Who leaves ends the command. 409: the container does not run. Others as for logs."}})
	o.Tags = []string{"apps"}
	return s.problems(o, 404, 409, 502, 504)
}
