package cloudapi

import (
	"bytes"
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Events is what the events endpoint needs.
type Events interface {
	// Events returns a page of events, the latest first. Limit is set.
	Events(ctx context.Context, o models.EventOptions) (models.LoggedEvents, error)
	// WatchEvents calls send with every event that is new or has changed after a
	// resourceVersion ("" for: first every event there is), in the order in which
	// they are recorded, until ctx ends or send fails. A Bookmark is sent about every
	// 30 s. KindGone: the version is not of this database.
	WatchEvents(ctx context.Context, o models.EventOptions, resourceVersion string, send func(models.EventChange) error) error
}

type eventList struct {
	Kind     string               `json:"kind"`
	Metadata listMeta             `json:"metadata"`
	Items    []models.LoggedEvent `json:"items"`
}

// The bounds of a page of events, writes and the audit.
const (
	defaultPage = 500
	maxPage     = 10_000
)

const typeSSE = "text/event-stream"

func (a *api) eventRoutes() []route {
	return []route{{a.schemas.eventsOp(), models.Viewer, a.getEvents}}
}

// page reads limit and continue.
func (c *call) page() (limit int, at string, err error) {
	limit = defaultPage
	if text := c.query.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 0 {
			return 0, "", models.BadParameter(models.KindMalformed, "limit", "must be an int from 0, got %.40q", text)
		}
		if limit > maxPage {
			return 0, "", models.BadParameter(models.KindInvalid, "limit", "must be at most %d, got %d; continue gives the rest", maxPage, limit)
		}
		if limit == 0 {
			limit = defaultPage
		}
	}
	return limit, c.query.Get("continue"), nil
}

func (c *call) eventOptions() (o models.EventOptions, err error) {
	given := c.query.Get("namespace")
	switch {
	case given == models.AllNamespaces || given == "" && c.caller.Namespace == models.AllNamespaces:
		err = c.caller.may(models.Viewer, models.AllNamespaces)
	case given != "":
		if given, err = c.givenNamespace(); err == nil {
			o.Namespaces, err = []string{given}, c.caller.may(models.Viewer, given)
		}
	default: // all that the caller may see: its own, and of what is in none
		o.Namespaces, err = []string{c.caller.Namespace, ""}, c.caller.may(models.Viewer, c.caller.Namespace)
	}
	if err != nil {
		return o, err
	}
	if c.caller.may(models.Admin, models.AllNamespaces) != nil {
		o.HideKinds = []string{"User"} // as these are themselves
	}
	if o.Kind = c.query.Get("kind"); o.Kind != "" {
		if o.Kind, err = models.EventKind(o.Kind); err != nil {
			return o, err
		}
	}
	o.Name, o.Reason = c.query.Get("name"), c.query.Get("reason")
	switch text := c.query.Get("type"); {
	case text == "":
	case strings.EqualFold(text, string(models.SeverityNormal)):
		o.Type = models.SeverityNormal
	case strings.EqualFold(text, string(models.SeverityWarning)):
		o.Type = models.SeverityWarning
	default:
		return o, models.BadParameter(models.KindInvalid, "type", "must be Normal or Warning, got %.40q", text)
	}
	o.Since, err = c.moment("since", time.Time{}, time.Now())
	return o, err
}

func (a *api) getEvents(c *call) (answer, error) {
	opts, err := c.eventOptions()
	if err != nil {
		return answer{}, err
	}
	watch, err := c.flag("watch")
	if err != nil {
		return answer{}, err
	}
	if watch {
		return a.watchEvents(c, opts)
	}
	if c.query.Has("resourceVersion") {
		return answer{}, models.BadParameter(models.KindMalformed, "resourceVersion", "is for watch=true")
	}
	if opts.Limit, opts.Continue, err = c.page(); err != nil {
		return answer{}, err
	}
	list, err := a.Events.Events(c.Context(), opts)
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: eventList{Kind: "EventList", Items: append([]models.LoggedEvent{}, list.Items...),
		Metadata: listMeta{ResourceVersion: list.ResourceVersion, Continue: list.Continue}}}, nil
}

func (a *api) watchEvents(c *call, opts models.EventOptions) (answer, error) {
	return c.follow("event", func(ctx context.Context, from string, send func(string, watchEvent) error) error {
		return a.Events.WatchEvents(ctx, opts, from, func(ch models.EventChange) error {
			if ch.Type == models.Bookmark {
				return send(ch.Event.Metadata.ResourceVersion, watchEvent{ch.Type, bookmarkOf("Event", ch.Event.Metadata.ResourceVersion)})
			}
			return send(ch.Event.Metadata.ResourceVersion, watchEvent{ch.Type, ch.Event})
		})
	})
}

// bookmark is the object of a BOOKMARK line.
type bookmark struct {
	Kind     string `json:"kind"`
	Metadata struct {
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
}

func bookmarkOf(kind, version string) (b bookmark) {
	b.Kind, b.Metadata.ResourceVersion = kind, version
	return b
}

// follow answers a watch of something that is not objects: lines of JSON, or
// Server-Sent Events of the given name where the caller accepts those, whose
// ids are where to go on.
func (c *call) follow(name string, feed func(ctx context.Context, from string, send func(version string, ev watchEvent) error) error) (answer, error) {
	if c.Method != http.MethodGet {
		return answer{}, models.BadParameter(models.KindMalformed, "watch", "needs the method GET")
	}
	if c.query.Get("limit") != "" || c.query.Get("continue") != "" {
		return answer{}, models.BadParameter(models.KindMalformed, "watch", "cannot be paged: leave limit and continue out")
	}
	from, given := c.query.Get("resourceVersion"), "resourceVersion"
	s := &stream{c: c, contentType: "application/json"}
	send := func(_ string, ev watchEvent) error { return s.event(ev) }
	if acceptsSSE(c.Header.Values("Accept")) {
		s.contentType, s.first, s.beat = typeSSE, []byte(": "+name+"s\n\n"), []byte(": beat\n\n")
		if id := c.Header.Get("Last-Event-ID"); id != "" {
			from, given = id, "Last-Event-ID"
		}
		send = func(version string, ev watchEvent) error { return s.sse(name, version, ev) }
	}
	if from != "" && !isVersion(from) {
		return answer{}, models.BadParameter(models.KindMalformed, given, "must be one that a list or a watch gave, got %.40q", from)
	}
	err := s.run(func(ctx context.Context) error { return feed(ctx, from, send) })
	if !s.started() {
		return answer{}, err
	}
	if err != nil && c.Context().Err() == nil {
		_ = send("", watchEvent{failed, problemOf(err)}) // the last thing said, if it still can be
	}
	return answer{sent: true}, nil
}

func acceptsSSE(accept []string) bool {
	return strings.Contains(strings.Join(accept, ","), typeSSE)
}

// sse writes a Server-Sent Event. A bookmark is one too: its id counts.
func (s *stream) sse(name, id string, ev watchEvent) error {
	data, err := encode(ev)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	b.WriteString("event: " + name + "\n")
	if id != "" {
		b.WriteString("id: " + id + "\n")
	}
	b.WriteString("data: ")
	b.Write(data) // one line: JSON escapes line ends
	b.WriteString("\n")
	return s.write(b.Bytes())
}
