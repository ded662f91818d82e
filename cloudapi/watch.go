package cloudapi

import (
	"context"
	"net/http"
	"strconv"

	"github.com/whimbrel-edge/whimbrel/models"
)

// watchEvent is a line of a watch.
type watchEvent struct {
	Type   models.EventType `json:"type"`
	Object any              `json:"object"`
}

// failed is the type of a watch's last line when it ends for a reason, as in
// Kubernetes: its object is the problem. A watcher lists again after a 410.
const failed models.EventType = "ERROR"

func (o *collection) watch(c *call, opts models.ListOptions) (answer, error) {
	if c.Method != http.MethodGet {
		return answer{}, models.BadParameter(models.KindMalformed, "watch", "needs the method GET")
	}
	if opts.Limit != 0 || opts.Continue != "" {
		return answer{}, models.BadParameter(models.KindMalformed, "watch", "cannot be paged: leave limit and continue out")
	}
	from := c.query.Get("resourceVersion")
	if from != "" && !isVersion(from) {
		return answer{}, models.BadParameter(models.KindMalformed, "resourceVersion", "must be one that a list or a watch gave, got %.40q", from)
	}
	if from == "0" { // Kubernetes' word for "from what there is"
		from = ""
	}
	s := &stream{c: c, contentType: "application/json"}
	err := s.run(func(ctx context.Context) error {
		return o.api.Objects.Watch(ctx, opts, from, func(ev models.Event) error {
			return s.event(watchEvent{ev.Type, models.Redacted(ev.Object)})
		})
	})
	if !s.started() {
		return answer{}, err
	}
	if err != nil && c.Context().Err() == nil {
		_ = s.event(watchEvent{failed, problemOf(err)}) // the last thing said, if it still can be
	}
	return answer{sent: true}, nil
}

func (s *stream) event(ev watchEvent) error {
	line, err := encode(ev)
	if err != nil {
		return err
	}
	return s.write(line)
}

func versionOf(n uint64) string { return strconv.FormatUint(n, 10) }
