package localapi

import (
	"context"
	"net"
	"net/http"
	"strings"

	"github.com/whimbrel-edge/whimbrel/internal/appproxy"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Services reaches apps.
type Services interface {
	// Dial connects to a ready pod of a Service; KindUnavailable: there is none.
	Dial(ctx context.Context, namespace, name, port string) (net.Conn, error)
}

// servicesPath is where they are. The rest of such a path is the app's, and must
// stay as it is: no router looks at it.
const servicesPath = "/v1/services/"

// service carries a request to an app. An app may ask those of its own namespace,
// called by their names alone; who has the edge's own token may ask all.
func (s *Server) service(w http.ResponseWriter, r *http.Request) {
	fail := func(w http.ResponseWriter, err error) { s.problem(w, r, err, nil) }
	if s.cfg.Services == nil {
		fail(w, models.Errorf(models.KindUnavailable, "this edge runs no apps"))
		return
	}
	name, path, slash := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), servicesPath), "/")
	if slash {
		path = "/" + path
	}
	to, err := appproxy.Parse(name, path)
	if err == nil && to.Namespace == "" {
		to.Namespace = models.DefaultNamespace
		if a := appOf(r); a != nil {
			to.Namespace = a.Namespace()
		}
	}
	if a := appOf(r); err == nil && a != nil && a.Namespace() != to.Namespace {
		err = models.Errorf(models.KindForbidden, "an app may ask services of its own namespace only, which is %s", a.Namespace())
	}
	if err != nil {
		fail(w, err)
		return
	}
	appproxy.Serve(w, r, appproxy.Request{Target: to, User: who(r), Prefix: servicesPath + name, Query: r.URL.RawQuery, Log: s.cfg.Log, Fail: fail,
		Dial: func(ctx context.Context) (net.Conn, error) {
			return s.cfg.Services.Dial(ctx, to.Namespace, to.Name, to.Port)
		}})
}
