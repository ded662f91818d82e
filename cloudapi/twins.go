package cloudapi

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// twinList is how /twins answers.
type twinList struct {
	Kind     string          `json:"kind"`
	Metadata listMeta        `json:"metadata"`
	Items    []twin.Document `json:"items"`
}

func (a *api) twinRoutes() []route {
	return []route{
		{a.schemas.twinOp(), models.Viewer, a.getTwin},
		{a.schemas.desiredOp(), models.Viewer, a.getDesired},
		{a.schemas.patchDesiredOp(), models.Operator, a.patchDesired},
		{a.schemas.twinsOp(), models.Viewer, a.listTwins},
		{a.schemas.streamOp(), models.Viewer, a.streamTwins},
	}
}

// device reads which device a request is about, and checks the caller's role
// there.
func (c *call) device(need models.Role) (namespace, name string, err error) {
	if namespace, err = c.namespace(); err != nil {
		return "", "", err
	}
	return namespace, c.param("name"), c.caller.may(need, namespace)
}

// getTwin answers the twin. There is no 304 here: a twin whose node is away
// ages without a change of its version, and a cached one would look fresh.
func (a *api) getTwin(c *call) (answer, error) {
	namespace, name, err := c.device(models.Viewer)
	if err != nil {
		return answer{}, err
	}
	if c.query.Get("at") != "" {
		at, err := c.moment("at", time.Time{}, time.Now())
		if err != nil {
			return answer{}, err
		}
		doc, err := a.Twins.TwinAt(c.Context(), namespace, name, c.query.Get("uid"), at)
		return answer{status: http.StatusOK, body: doc}, err
	}
	if c.query.Get("uid") != "" {
		return answer{}, models.BadParameter(models.KindInvalid, "uid", "needs at: a device that was deleted has a twin only in the past")
	}
	doc, err := a.Twins.Twin(c.Context(), namespace, name)
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: doc, etag: etag(versionOf(doc.Version))}, nil
}

// getDesired answers what a PATCH would patch: property to desired value.
func (a *api) getDesired(c *call) (answer, error) {
	namespace, name, err := c.device(models.Viewer)
	if err != nil {
		return answer{}, err
	}
	doc, err := a.Twins.Twin(c.Context(), namespace, name)
	if err != nil {
		return answer{}, err
	}
	tag := desiredTag(doc)
	if same, err := c.notModified(tag); err != nil || same {
		return answer{status: http.StatusNotModified, etag: tag}, err
	}
	desired := map[string]models.Value{}
	for name, p := range doc.Properties {
		if p.Desired != nil {
			desired[name] = p.Desired.Value
		}
	}
	return answer{status: http.StatusOK, body: desired, etag: tag}, nil
}

func desiredTag(doc twin.Document) string {
	return etag(strconv.FormatInt(doc.DesiredVersion, 10))
}

func (a *api) patchDesired(c *call) (answer, error) {
	namespace, name, err := c.device(models.Operator)
	if err != nil {
		return answer{}, err
	}
	wait, err := c.duration("wait", 0, maxWait)
	if err != nil {
		return answer{}, err
	}
	opts := models.DesiredOptions{By: c.caller.Name, Trace: c.trace}
	if opts.Expire, err = c.duration("expire", time.Millisecond, maxExpire); err != nil {
		return answer{}, err
	}
	if opts.Reason, err = c.reason(); err != nil {
		return answer{}, err
	}
	if opts.IfMatch, err = c.ifMatch(); err != nil {
		return answer{}, err
	}
	text, err := c.body()
	if err != nil {
		return answer{}, err
	}
	patch, meta, err := models.DecodePatch(text)
	if err != nil {
		return answer{}, err
	}
	if len(meta) > 0 {
		var fields []models.FieldError
		for _, k := range slices.Sorted(maps.Keys(meta)) {
			fields = append(fields, models.FieldError{Pointer: pointer(k), Detail: "names that start with $ are for MQTT, and not known here"})
		}
		return answer{}, &models.Error{Kind: models.KindInvalid, Fields: fields[:min(len(fields), maxFields)]}
	}
	return c.once(text, func() (answer, error) {
		doc, writes, err := a.Twins.PatchDesired(c.Context(), namespace, name, patch, opts)
		if err != nil {
			return answer{}, err
		}
		accepted := answer{status: http.StatusAccepted, body: doc, etag: desiredTag(doc)}
		if wait == 0 {
			return accepted, nil
		}
		return a.await(c, namespace, name, writes, wait, accepted)
	})
}

// maxFields bounds how many things one problem names.
const maxFields = 20

// await waits for the writes of a patch that is stored already. A caller who
// leaves meanwhile finds the write accepted when the request is repeated.
func (a *api) await(c *call, namespace, name string, writes map[string]string, wait time.Duration, accepted answer) (answer, error) {
	ctx, cancel := c.long()
	defer cancel(nil)
	limited, stop := context.WithTimeout(ctx, wait)
	defer stop()
	var failure error
	if len(writes) > 0 {
		failure = a.Twins.AwaitWrites(limited, namespace, name, writes)
	}
	if c.Context().Err() != nil {
		return accepted, nil
	}
	if errors.Is(failure, context.DeadlineExceeded) && models.KindOf(failure) == models.KindInternal {
		failure = models.Errorf(models.KindTimeout, "not confirmed within %s; the write stays pending", wait)
	}
	if cause := context.Cause(ctx); failure != nil && cause != nil {
		failure = cause
	}
	doc, err := a.Twins.Twin(c.Context(), namespace, name)
	if err != nil {
		c.api.Log.WarnContext(c.Context(), "a device went while a write to it was awaited", "namespace", namespace, "device", name, "error", err)
		doc, _ = accepted.body.(twin.Document)
	}
	if failure != nil {
		return answer{}, fate{failure, doc}
	}
	return answer{status: http.StatusOK, body: doc, etag: desiredTag(doc)}, nil
}

func (a *api) listTwins(c *call) (answer, error) {
	opts, err := c.listOptions("Device", models.Viewer, true)
	if err != nil {
		return answer{}, err
	}
	docs, next, err := a.Twins.Twins(c.Context(), opts)
	if err != nil {
		return answer{}, err
	}
	if docs == nil {
		docs = []twin.Document{}
	}
	return answer{status: http.StatusOK, body: twinList{Kind: "TwinList", Metadata: listMeta{Continue: next}, Items: docs}}, nil
}

// pointer is the JSON Pointer to a member of the document.
func pointer(key string) string {
	return "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}
