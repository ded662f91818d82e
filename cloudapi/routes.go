package cloudapi

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Routes is what the endpoints of routes' messages need.
type Routes interface {
	// PublishRoute takes a message for a route whose source is REST, and waits for
	// the target's answer. Those with one key that is not "" are one message. A message that was taken stays so whatever is
	// returned, unless the error is not nil.
	PublishRoute(ctx context.Context, namespace, name, key, contentType string, payload []byte, wait time.Duration) (models.RouteReply, error)
	// DeadLetters returns dead letters, oldest first: those with ids above after.
	DeadLetters(ctx context.Context, namespace, name string, after int64, limit int) ([]models.DeadLetter, error)
	// ReplayDeadLetters and DropDeadLetters are for all, or for those with the ids.
	ReplayDeadLetters(ctx context.Context, namespace, name string, ids []int64) (int, error)
	DropDeadLetters(ctx context.Context, namespace, name string, ids []int64) (int, error)
}

// routeWait is how long a publisher waits for the target's answer when nothing is
// said.
const routeWait = 10 * time.Second

func (a *api) routeRoutes() []route {
	return []route{
		{a.schemas.publishOp(), models.Operator, a.publishRoute},
		{a.schemas.deadLettersOp(), models.Operator, a.listDeadLetters},
		{a.schemas.replayOp(), models.Operator, a.replayDeadLetters},
		{a.schemas.dropDeadLettersOp(), models.Operator, a.dropDeadLetters},
	}
}

// routeTaken is how a message is answered that has no answer of its own.
type routeTaken struct {
	ID        string `json:"id,omitempty"`        // the Idempotency-Key that its target sees
	Matched   bool   `json:"matched"`             // false: the route's when was not, and nothing is sent
	Published bool   `json:"published,omitempty"` // it is on the brokers of all nodes that it is for
	Detail    string `json:"detail,omitempty"`    // why it waits
}

// publishRoute answers what the target does, with its status, when it does so in
// time; else 202: the message is queued. Who asks to wait is told with 503
// or 504 that there was no answer, and everybody with 502 that there will be none.
func (a *api) publishRoute(c *call) (answer, error) {
	namespace, name, err := c.device(models.Operator)
	if err != nil {
		return answer{}, err
	}
	wait, err := c.duration("wait", 0, models.MaxRouteTimeout)
	if err != nil {
		return answer{}, err
	}
	insists := wait > 0
	if !c.query.Has("wait") {
		wait = routeWait
	}
	payload, err := c.body()
	if err != nil {
		return answer{}, err
	}
	return c.once(payload, func() (answer, error) {
		ctx, cancel := c.long()
		defer cancel(nil)
		key := c.Header.Get("Idempotency-Key") // a problem is not kept, but the message may be
		if key != "" {
			key = c.caller.Name + "\x00" + key
		}
		reply, err := a.Routes.PublishRoute(ctx, namespace, name, key, c.Header.Get("Content-Type"), payload, wait)
		if err != nil {
			return answer{}, err
		}
		switch {
		case reply.Answered:
			return answer{status: reply.Status, raw: append([]byte{}, reply.Body...), contentType: replyType(reply.ContentType), fromTarget: true}, nil
		case !reply.Matched:
			return answer{status: http.StatusOK, body: routeTaken{}}, nil
		case reply.Kind == models.KindRefused, insists && reply.Error != "": // the former waits no more
			return answer{}, models.Errorf(reply.Kind, "%s", reply.Error)
		case reply.Published:
			return answer{status: http.StatusOK, body: routeTaken{ID: reply.Key, Matched: true, Published: true}}, nil
		}
		return answer{status: http.StatusAccepted, body: routeTaken{ID: reply.Key, Matched: true, Detail: reply.Error}}, nil
	})
}

// replyType keeps a target from having its answer run in a browser as the hub's.
func replyType(t string) string {
	if t == "" || strings.ContainsFunc(t, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "application/octet-stream"
	}
	return t
}

type deadLetterList struct {
	Kind     string              `json:"kind"`
	Metadata listMeta            `json:"metadata"`
	Items    []models.DeadLetter `json:"items"`
}

func (a *api) listDeadLetters(c *call) (answer, error) {
	namespace, name, err := c.device(models.Operator)
	if err != nil {
		return answer{}, err
	}
	limit, at, err := c.page()
	if err != nil {
		return answer{}, err
	}
	after := int64(0)
	if at != "" {
		if after, err = strconv.ParseInt(at, 10, 64); err != nil || after < 1 {
			return answer{}, models.BadParameter(models.KindMalformed, "continue", "must be what the page before gave, got %.40q", at)
		}
	}
	items, err := a.Routes.DeadLetters(c.Context(), namespace, name, after, limit+1)
	if err != nil {
		return answer{}, err
	}
	list := deadLetterList{Kind: "DeadLetterList", Items: append([]models.DeadLetter{}, items...)}
	if len(items) > limit {
		list.Items = list.Items[:limit]
		list.Metadata.Continue = strconv.FormatInt(list.Items[limit-1].ID, 10)
	}
	return answer{status: http.StatusOK, body: list}, nil
}

type replayRequest struct {
	IDs []int64 `json:"ids,omitempty"` // all when left out
}

type deadLettersDone struct {
	Count int `json:"count"`
}

func (a *api) replayDeadLetters(c *call) (answer, error) {
	namespace, name, err := c.device(models.Operator)
	if err != nil {
		return answer{}, err
	}
	text, err := c.body()
	if err != nil {
		return answer{}, err
	}
	var req replayRequest
	if len(text) > 0 {
		if err := models.DecodeInto(text, &req); err != nil {
			return answer{}, malformed(err)
		}
		if req.IDs != nil && len(req.IDs) == 0 {
			return answer{}, models.Invalid("/ids", "names none; leave it out for all of the route")
		}
	}
	return c.once(text, func() (answer, error) {
		n, err := a.Routes.ReplayDeadLetters(c.Context(), namespace, name, req.IDs)
		return answer{status: http.StatusOK, body: deadLettersDone{n}}, err
	})
}

func (a *api) dropDeadLetters(c *call) (answer, error) {
	namespace, name, err := c.device(models.Operator)
	if err != nil {
		return answer{}, err
	}
	var ids []int64
	if c.query.Has("ids") {
		text := c.query.Get("ids")
		for part := range strings.SplitSeq(text, ",") {
			id, err := strconv.ParseInt(part, 10, 64)
			if err != nil {
				return answer{}, models.BadParameter(models.KindMalformed, "ids", "must be ids of dead letters joined by commas, got %.40q", text)
			}
			ids = append(ids, id)
		}
	}
	n, err := a.Routes.DropDeadLetters(c.Context(), namespace, name, ids)
	return answer{status: http.StatusOK, body: deadLettersDone{n}}, err
}

func (s schemas) publishOp() huma.Operation {
	o := op(http.MethodPost, Prefix+"/routes/{name}/publish", "publishRoute", "Give a route a message", []*huma.Param{
		namePath(), oneNamespace(), idempotencyHeader(),
		param("query", "wait", `Wait up to this long for the target's answer, at most 5m, and tell it with 502, 503 or 504 when there is none; "0s": do not wait. Left out: up to 10s, and then 202.`, durationValue{}.Schema(nil)),
	}, map[string]*huma.Response{
		"200":     ok("The target's own answer (see default); or published true: it is on the brokers that the route is for, which give no answer; or matched false: the route does not want the message.", schemaFor[routeTaken](s)),
		"202":     ok("Queued; it will be delivered.", schemaFor[routeTaken](s)),
		"default": {Description: "The target's own answer, with its own status, type and body, and the header X-Whimbrel-Answer: target."},
	})
	o.Tags = []string{"routes"}
	o.RequestBody = &huma.RequestBody{Description: "The message, of any content type, at most 1 MiB. 502: the target cannot be given it. 503: no node or target is there. 504: no answer in time. After 503 and 504 the message stays queued.",
		Content: content(text(), "application/octet-stream")}
	return s.problems(o, 404, 409, 413, 422, 429, 502, 503, 504)
}

func (s schemas) deadLettersOp() huma.Operation {
	o := op(http.MethodGet, Prefix+"/routes/{name}/deadletters", "listDeadLetters", "Messages that could not be delivered", append([]*huma.Param{namePath(), oneNamespace()}, pageParams()...),
		map[string]*huma.Response{"200": ok("Dead letters, oldest first.", schemaFor[deadLetterList](s))})
	o.Tags = []string{"routes"}
	return s.problems(o, 404, 422)
}

func (s schemas) replayOp() huma.Operation {
	o := op(http.MethodPost, Prefix+"/routes/{name}/deadletters/replay", "replayDeadLetters", "Try dead letters again", []*huma.Param{namePath(), oneNamespace(), idempotencyHeader()},
		map[string]*huma.Response{"200": ok("How many wait again.", schemaFor[deadLettersDone](s))})
	o.Tags = []string{"routes"}
	o.RequestBody = body(schemaFor[replayRequest](s), "Which ones; without ids all of the route.")
	o.RequestBody.Required = false
	return s.problems(o, 404, 409, 413, 422)
}

func (s schemas) dropDeadLettersOp() huma.Operation {
	o := op(http.MethodDelete, Prefix+"/routes/{name}/deadletters", "dropDeadLetters", "Delete dead letters", []*huma.Param{namePath(), oneNamespace(),
		param("query", "ids", "Ids joined by commas; all of the route when left out.", text())},
		map[string]*huma.Response{"200": ok("How many were deleted.", schemaFor[deadLettersDone](s))})
	o.Tags = []string{"routes"}
	return s.problems(o, 404)
}
