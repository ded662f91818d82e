package localapi

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/podstream"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Pods are those of the edge. *workload.Manager has them.
type Pods interface{ Pods() []*models.Pod }

// Desk serves who looks into pods. *attach.Desk is one. Each refuses with an error,
// or calls begin and serves what podstream has between a node and an asker over the
// connection that it returns, until ctx ends.
type Desk interface {
	ServeLog(ctx context.Context, r podstream.LogRequest, begin func() (net.Conn, error)) error
	ServeExec(ctx context.Context, r podstream.ExecRequest, begin func() (net.Conn, error)) error
}

// logPatience is how long whoever reads a log may take for a part of it.
const logPatience = time.Hour

// pods lists the pods. Looking at them, and into them, is for who has the edge's own
// token.
func (s *Server) pods(w http.ResponseWriter, r *http.Request) error {
	if appOf(r) != nil {
		return forbidden("/v1/pods")
	}
	q, err := query(r, "namespace")
	if err != nil {
		return err
	}
	list := struct {
		Kind     string        `json:"kind"`
		Metadata struct{}      `json:"metadata"`
		Items    []*models.Pod `json:"items"`
	}{Kind: "PodList", Items: []*models.Pod{}}
	if s.cfg.Pods != nil {
		for _, p := range s.cfg.Pods.Pods() {
			if namespace := q.Get("namespace"); namespace == "" || namespace == p.Metadata.Namespace {
				list.Items = append(list.Items, p)
			}
		}
	}
	return writeJSON(w, http.StatusOK, list)
}

// pod names the one that is meant.
func (s *Server) pod(r *http.Request, known ...string) (q map[string][]string, namespace, name string, err error) {
	if appOf(r) != nil {
		return nil, "", "", forbidden("looking into pods")
	}
	if s.cfg.Desk == nil {
		return nil, "", "", models.Errorf(models.KindUnavailable, "this edge runs no apps")
	}
	values, err := query(r, append([]string{"namespace"}, known...)...)
	if err != nil {
		return nil, "", "", err
	}
	if namespace = values.Get("namespace"); namespace == "" {
		namespace = models.DefaultNamespace
	}
	if msg := models.CheckLabelName(namespace); msg != "" {
		return nil, "", "", models.BadParameter(models.KindMalformed, "namespace", "%s", msg)
	}
	return values, namespace, r.PathValue("name"), nil
}

// podLog streams a log as text. One that breaks off is an answer without its end.
func (s *Server) podLog(w http.ResponseWriter, r *http.Request) error {
	q, namespace, name, err := s.pod(r, podstream.LogParams...)
	if err != nil {
		return err
	}
	ask, err := podstream.ParseLog(q)
	if err != nil {
		return err
	}
	ask.Namespace, ask.Pod = namespace, name
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // that of the request; this takes longer
	serve := func(ctx context.Context, begin func() (net.Conn, error)) error {
		return s.cfg.Desk.ServeLog(ctx, ask, begin)
	}
	return near(r.Context(), serve, func(conn net.Conn) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusOK)
		_ = control.Flush()
		err := podstream.CopyLog(conn, func(p []byte) error {
			_ = control.SetWriteDeadline(time.Now().Add(logPatience))
			if _, err := w.Write(p); err != nil {
				return err
			}
			return control.Flush()
		})
		if err != nil { // so that the peer finds the answer unfinished, and not merely short
			_ = control.SetWriteDeadline(time.Now().Add(-time.Second))
		}
	})
}

// podExec runs a command over a WebSocket. Who did is in the log.
func (s *Server) podExec(w http.ResponseWriter, r *http.Request) error {
	q, namespace, name, err := s.pod(r, podstream.ExecParams...)
	if err != nil {
		return err
	}
	ask, stdout, stderr, err := podstream.ParseExec(q)
	if err == nil {
		err = podstream.CheckUpgrade(r)
	}
	if err != nil {
		return err
	}
	ask.Namespace, ask.Pod = namespace, name
	serve := func(ctx context.Context, begin func() (net.Conn, error)) error {
		return s.cfg.Desk.ServeExec(ctx, ask, begin)
	}
	return near(r.Context(), serve, func(conn net.Conn) {
		s.cfg.Log.Info("a command is run in a pod", "namespace", namespace, "pod", name, "container", ask.Container, "program", ask.Command[0], "by", by)
		podstream.Bridge(r.Context(), w, r, ask, stdout, stderr, podstream.NewCommand(conn), func(code int, err error) {
			s.cfg.Log.Info("a command in a pod has ended", "namespace", namespace, "pod", name, "exitCode", code, "error", err)
		})
	})
}

// near connects an asker to the desk without a network between. It returns why the
// desk refuses, or nil when ask has been called and both are through.
func near(ctx context.Context, serve func(context.Context, func() (net.Conn, error)) error, ask func(net.Conn)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began, ended := make(chan net.Conn, 1), make(chan error, 1)
	go func() { // awaited below
		var far net.Conn
		err := serve(ctx, func() (net.Conn, error) {
			var here net.Conn
			here, far = net.Pipe()
			began <- here
			return far, nil
		})
		if far != nil {
			_ = far.Close()
		}
		ended <- err
	}()
	select {
	case err := <-ended:
		select {
		case conn := <-began: // it began, and ended at once
			ask(conn)
			_ = conn.Close()
			return nil
		default:
			return err
		}
	case conn := <-began:
		free := context.AfterFunc(ctx, func() { _ = conn.Close() })
		ask(conn)
		free()
		_ = conn.Close()
		cancel()
		<-ended
		return nil
	}
}
