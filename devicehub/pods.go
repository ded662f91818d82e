package devicehub

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"

	"github.com/oklog/ulid/v2"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/internal/podstream"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/edgelink/bulk"
)

// How many of each may go on at a time on a hub. More are refused with KindTooMany.
const (
	maxLogs     = 512
	maxCommands = 128
)

// looking holds a token for each log that is read, and each command that runs.
type looking struct{ logs, commands chan struct{} }

func newLooking() looking {
	return looking{make(chan struct{}, maxLogs), make(chan struct{}, maxCommands)}
}

// OpenLog opens the log of a pod at its node, whose end is podstream.ServeLog.
// KindNotFound: there is no such pod or container; KindConflict: it was never
// started; KindUnavailable: its node is offline; KindTimeout: its node is silent.
func (h *Hub) OpenLog(ctx context.Context, r podstream.LogRequest, trace string) (net.Conn, error) {
	p, err := h.placedPod(ctx, r.Namespace, r.Pod)
	if err != nil {
		return nil, err
	}
	return h.lookInto(ctx, h.looking.logs, "logs are being read", p.Spec.NodeName, bulk.KindLogs, trace, r)
}

// OpenExec begins a command in a pod; the node's end is podstream.ServeCommand. It
// is in the audit before the node hears of it. ended is called once, with how it
// ended. Errors are those of OpenLog; KindConflict: the container does not run.
func (h *Hub) OpenExec(ctx context.Context, r podstream.ExecRequest, by, trace string) (conn net.Conn, ended func(exitCode int, err error), err error) {
	p, err := h.placedPod(ctx, r.Namespace, r.Pod)
	if err != nil {
		return nil, nil, err
	}
	record := models.ExecRecord{ID: ulid.Make().String(), Node: p.Spec.NodeName, Container: r.Container, Command: r.Command, Stdin: r.Stdin, TTY: r.TTY}
	if err := h.auditExec(ctx, store.AuditExec, p, by, record); err != nil {
		h.log.Error("a command is refused that cannot be recorded in the audit", "pod", r.Pod, "by", by, "error", err)
		return nil, nil, models.Errorf(models.KindUnavailable, "the store does not answer; try again")
	}
	ended = func(exitCode int, err error) {
		record := models.ExecRecord{ID: record.ID, Node: record.Node, Container: record.Container, ExitCode: &exitCode}
		if err != nil {
			record.ExitCode, record.Error = nil, models.ProblemOf(err).Detail
			if models.KindOf(err) == models.KindInternal {
				record.Error = err.Error()
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), auditTime) // not the caller's, who may be gone
		defer cancel()
		if err := h.auditExec(ctx, store.AuditExecEnded, p, by, record); err != nil {
			h.log.Error("the end of a command is not in the audit", "pod", r.Pod, "by", by, "id", record.ID, "error", err)
		}
	}
	if conn, err = h.lookInto(ctx, h.looking.commands, "commands are running", p.Spec.NodeName, bulk.KindExec, trace, r); err != nil {
		ended(0, err)
		return nil, nil, err
	}
	return conn, ended, nil
}

func (h *Hub) auditExec(ctx context.Context, action string, p *models.Pod, by string, record models.ExecRecord) error {
	text, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return h.cfg.Store.AppendAudit(ctx, []store.AuditEntry{{Time: h.now(), By: by, Action: action, Kind: "Pod", Namespace: p.Metadata.Namespace,
		Name: p.Metadata.Name, UID: p.Metadata.UID, Detail: string(text)}})
}

// placedPod returns a pod that has a node.
func (h *Hub) placedPod(ctx context.Context, namespace, name string) (*models.Pod, error) {
	o, err := h.Registry.Get(ctx, models.Key{Kind: "Pod", Namespace: namespace, Name: name})
	if err != nil {
		return nil, err
	}
	p, ok := h.workloads.WorkloadStatus(o).(*models.Pod)
	if !ok {
		return nil, fmt.Errorf("pod %s is a %T", name, o)
	}
	if p.Spec.NodeName == "" {
		why := "it is not placed yet"
		if s := p.Status; s != nil && s.Message != "" {
			why = s.Message
		}
		return nil, models.Errorf(models.KindConflict, "pod %s runs nowhere: %s", name, why)
	}
	return p, nil
}

// lookInto opens a stream to a node, and waits until it is accepted.
func (h *Hub) lookInto(ctx context.Context, tokens chan struct{}, what, node, kind, trace string, request any) (net.Conn, error) {
	select {
	case tokens <- struct{}{}:
	default:
		return nil, models.Errorf(models.KindTooMany, "%d %s at this hub already", cap(tokens), what)
	}
	release := sync.OnceFunc(func() { <-tokens })
	head, err := bulk.NewHeader(kind, trace, request)
	if err != nil {
		release()
		return nil, err
	}
	stream, err := h.sessions.Stream(ctx, node, head)
	if err != nil {
		release()
		return nil, err
	}
	free := context.AfterFunc(ctx, stream.Abort)
	err = podstream.Answered(stream)
	if !free() && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = stream.Close()
		release()
		return nil, err
	}
	return &token{stream, release}, nil
}

// token is a connection that gives back a token when it is closed.
type token struct {
	net.Conn
	release func()
}

func (t *token) Close() error {
	err := t.Conn.Close()
	t.release()
	return err
}
