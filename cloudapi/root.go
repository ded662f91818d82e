package cloudapi

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/whimbrel-edge/whimbrel/models"
)

// health is how /healthz and /readyz answer.
type health struct {
	Status string            `json:"status"`
	Checks map[string]string `json:"checks,omitempty"`
}

func (a *api) rootRoutes() []route {
	return []route{
		{a.schemas.healthOp(), "", a.healthz},
		{a.schemas.readyOp(), "", a.readyz},
		{a.schemas.metricsOp(), models.Viewer, a.serveMetrics},
		{a.schemas.openAPIOp(), models.Viewer, a.openAPI},
	}
}

// healthz says that the process answers.
func (a *api) healthz(*call) (answer, error) {
	return answer{status: http.StatusOK, body: health{Status: "ok"}}, nil
}

// readyz runs every check. Why one fails is for the log: whoever asks has shown
// no token.
func (a *api) readyz(c *call) (answer, error) {
	ctx, cancel := context.WithTimeout(c.Context(), readyTimeout)
	defer cancel()
	names := slices.Sorted(maps.Keys(a.Ready))
	results := make([]error, len(names))
	var checks sync.WaitGroup
	for i, name := range names {
		checks.Go(func() { results[i] = a.Ready[name](ctx) })
	}
	checks.Wait()
	h := health{Status: "ready", Checks: map[string]string{}}
	var failed []models.FieldError
	for i, name := range names {
		h.Checks[name] = "ok"
		if results[i] != nil {
			a.Log.WarnContext(c.Context(), "not ready", "check", name, "error", results[i])
			failed = append(failed, models.FieldError{Pointer: "/checks" + pointer(name), Detail: "not ready"})
		}
	}
	if len(failed) > 0 {
		return answer{}, &models.Error{Kind: models.KindUnavailable, Detail: "the hub is not ready", Fields: failed}
	}
	return answer{status: http.StatusOK, body: h}, nil
}

func metricsHandler(c Config) http.Handler {
	return promhttp.HandlerFor(c.Gatherer, promhttp.HandlerOpts{ErrorLog: errorLog{c.Log}, ErrorHandling: promhttp.ContinueOnError})
}

type errorLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (l errorLog) Println(v ...any) { l.log.Error("metrics", "error", v) }

func (a *api) serveMetrics(c *call) (answer, error) {
	a.metrics.ServeHTTP(c.w, c.Request)
	return answer{sent: true}, nil
}

func (a *api) openAPI(*call) (answer, error) {
	return answer{status: http.StatusOK, raw: a.spec}, nil
}
