package localapi

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/routes"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Routes takes messages for routes. *routes.Router is one.
type Routes interface {
	// Post returns what the target answered, if it has and did within wait.
	Post(ctx context.Context, p routes.Posted, wait time.Duration) (models.RouteReply, error)
}

// routeWait is how long a post waits for the target's answer when nothing is
// said.
const routeWait = 10 * time.Second

// post is a message for a route whose source is REST. The answer is the
// target's, when it has one and it comes in time; else 202: the message is queued.
// Who asks to wait is told with 503 or 504 that there was none, and everybody with 502
// that there will be none.
func (s *Server) post(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "wait")
	if err != nil {
		return err
	}
	wait, err := duration(q, routeWait, 0, models.MaxRouteTimeout)
	if err != nil {
		return err
	}
	namespace, name := models.DefaultNamespace, r.PathValue("name")
	a := appOf(r)
	if a != nil && !a.Route(name) {
		return forbidden("publishing to route %s", name)
	}
	payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, routes.MaxPayload))
	if err != nil {
		return models.Errorf(models.KindTooLarge, "the message is too large or broke off: %v; at most %d bytes are carried", err, routes.MaxPayload)
	}
	p := routes.Posted{Namespace: namespace, Route: name, ContentType: r.Header.Get("Content-Type"), Payload: payload, By: who(r), Key: r.Header.Get("Idempotency-Key")}
	if a != nil { // it calls those of its own namespace by their names alone
		p.Namespace = a.Namespace()
	}
	reply, err := s.cfg.Routes.Post(r.Context(), p, wait)
	if before, after, ok := strings.Cut(name, "."); ok && a == nil && models.KindOf(err) == models.KindNotFound {
		p.Namespace, p.Route = before, after
		reply, err = s.cfg.Routes.Post(r.Context(), p, wait)
	}
	if err != nil {
		return err
	}
	return writeReply(w, reply, q.Has("wait") && wait > 0)
}

func writeReply(w http.ResponseWriter, reply models.RouteReply, insists bool) error {
	if reply.Key != "" {
		w.Header().Set("Idempotency-Key", reply.Key)
	}
	switch {
	case reply.Answered:
		w.Header().Set("X-Whimbrel-Answer", "target") // not the edge's own
		if reply.ContentType != "" {
			w.Header().Set("Content-Type", reply.ContentType)
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(reply.Status)
		_, _ = w.Write(reply.Body) // the client may be gone
		return nil
	case !reply.Matched:
		return writeJSON(w, http.StatusOK, map[string]any{"matched": false})
	case reply.Kind == models.KindRefused, insists && reply.Error != "": // the former waits no more
		return models.Errorf(reply.Kind, "%s", reply.Error)
	}
	status := http.StatusAccepted
	if reply.Published {
		status = http.StatusOK
	}
	return writeJSON(w, status, struct {
		ID        string `json:"id"`
		Matched   bool   `json:"matched"`
		Published bool   `json:"published,omitempty"`
		Detail    string `json:"detail,omitempty"`
	}{reply.Key, true, reply.Published, reply.Error})
}
