package cloudapi

import (
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

// schemas describes the API's types and operations in the OpenAPI document.
// The types' schemas are made from the Go types; the parameters of an operation
// are what its query is checked against.
type schemas struct{ registry huma.Registry }

// Types that JSON shows otherwise than reflection sees them. Each gives its own
// schema; newSchemas says whose it is.
type (
	anyValue      struct{}
	deadbandValue struct{}
	durationValue struct{}
	qualityValue  struct{}
	typeValue     struct{}
	accessValue   struct{}
	writeValue    struct{}
	uplinkValue   struct{}
	roleValue     struct{}
	stateValue    struct{}
	fateValue     struct{}
	eventValue    struct{}
	quantityValue struct{}
	portValue     struct{}
	podCountValue struct{}
	choiceValue   struct{}
)

func (anyValue) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Description: "Any JSON value; bytes are a base64 string."}
}

func (deadbandValue) Schema(huma.Registry) *huma.Schema {
	least := 0.0
	return &huma.Schema{OneOf: []*huma.Schema{{Type: huma.TypeNumber, Minimum: &least}, {Type: huma.TypeString, Pattern: "%$"}}}
}

func (durationValue) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Description: `A duration such as "500ms", "30s", "1h30m", "7d" or "2w".`, Examples: []any{"1s"}}
}

func (qualityValue) Schema(huma.Registry) *huma.Schema {
	return oneOf(models.Good.String(), models.Uncertain.String(), models.Bad.String())
}
func (typeValue) Schema(huma.Registry) *huma.Schema { return oneOf(models.Types...) }
func (accessValue) Schema(huma.Registry) *huma.Schema {
	return oneOf(models.Read, models.Write, models.ReadWrite)
}
func (writeValue) Schema(huma.Registry) *huma.Schema { return oneOf(models.Once, models.Hold) }
func (uplinkValue) Schema(huma.Registry) *huma.Schema {
	return oneOf(models.UplinkAll, models.UplinkNone)
}
func (roleValue) Schema(huma.Registry) *huma.Schema {
	return oneOf(models.Viewer, models.Operator, models.Admin)
}
func (stateValue) Schema(huma.Registry) *huma.Schema {
	return oneOf(models.StateUnknown, models.StateOnline, models.StateDegraded, models.StateOffline)
}
func (fateValue) Schema(huma.Registry) *huma.Schema {
	return oneOf(twin.Pending, twin.Applied, twin.Failed, twin.Superseded, twin.Expired, twin.Unknown)
}
func (eventValue) Schema(huma.Registry) *huma.Schema {
	return oneOf(models.Added, models.Modified, models.Deleted, models.Bookmark, failed)
}

func (quantityValue) Schema(huma.Registry) *huma.Schema {
	least := 0.0
	return &huma.Schema{OneOf: []*huma.Schema{{Type: huma.TypeString}, {Type: huma.TypeNumber, Minimum: &least}}, Description: "An amount as Kubernetes writes it.", Examples: []any{"250m", "64Mi"}}
}
func (portValue) Schema(huma.Registry) *huma.Schema {
	least, most := 1.0, 65535.0
	return &huma.Schema{OneOf: []*huma.Schema{{Type: huma.TypeInteger, Minimum: &least, Maximum: &most}, {Type: huma.TypeString}}, Description: "A port's number or name."}
}
func (podCountValue) Schema(huma.Registry) *huma.Schema {
	least := 0.0
	return &huma.Schema{OneOf: []*huma.Schema{{Type: huma.TypeInteger, Minimum: &least}, {Type: huma.TypeString, Pattern: "^[0-9]+%$"}}, Description: "A number of pods, or a part of all of them."}
}
func (choiceValue) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{OneOf: []*huma.Schema{{Type: huma.TypeString, Description: "A label selector."},
		{Type: huma.TypeArray, Items: text(), Description: "Names."}}, Description: "Devices of the namespace."}
}

func oneOf[S ~string](names ...S) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString}
	for _, n := range names {
		s.Enum = append(s.Enum, string(n))
	}
	return s
}

func newSchemas(doc *huma.OpenAPI) schemas {
	s := schemas{doc.Components.Schemas}
	for of, as := range map[reflect.Type]reflect.Type{
		reflect.TypeFor[models.Value]():        reflect.TypeFor[anyValue](),
		reflect.TypeFor[models.Deadband]():     reflect.TypeFor[deadbandValue](),
		reflect.TypeFor[models.Duration]():     reflect.TypeFor[durationValue](),
		reflect.TypeFor[models.Quality]():      reflect.TypeFor[qualityValue](),
		reflect.TypeFor[models.Type]():         reflect.TypeFor[typeValue](),
		reflect.TypeFor[models.Access]():       reflect.TypeFor[accessValue](),
		reflect.TypeFor[models.WriteMode]():    reflect.TypeFor[writeValue](),
		reflect.TypeFor[models.Uplink]():       reflect.TypeFor[uplinkValue](),
		reflect.TypeFor[models.Role]():         reflect.TypeFor[roleValue](),
		reflect.TypeFor[models.DeviceState]():  reflect.TypeFor[stateValue](),
		reflect.TypeFor[twin.WriteState]():     reflect.TypeFor[fateValue](),
		reflect.TypeFor[models.EventType]():    reflect.TypeFor[eventValue](),
		reflect.TypeFor[models.Quantity]():     reflect.TypeFor[quantityValue](),
		reflect.TypeFor[models.PortRef]():      reflect.TypeFor[portValue](),
		reflect.TypeFor[models.PodCount]():     reflect.TypeFor[podCountValue](),
		reflect.TypeFor[models.DeviceChoice](): reflect.TypeFor[choiceValue](),
	} {
		s.registry.RegisterTypeAlias(of, as)
	}
	doc.Info.Description = "Devices, their models and their twins. Objects are Kubernetes-shaped. Errors are RFC 9457 problems: " +
		"400 for what cannot be read, 422 for what can and is wrong, with JSON Pointers. Bodies may be JSON or YAML; answers are JSON, " +
		"or YAML where Accept prefers it. Every answer has a traceparent header, the request's own or a fresh one."
	doc.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer", Description: "An API token."}}
	doc.Security = []map[string][]string{{"token": {}}}
	return s
}

// document returns the finished document.
func (s schemas) document(doc *huma.OpenAPI) ([]byte, error) {
	for _, schema := range s.registry.Map() {
		exact(schema)
	}
	text, err := encode(doc)
	if err != nil {
		return nil, fmt.Errorf("openapi document: %w", err)
	}
	return text, nil
}

// exact takes back what huma says of every Go slice: that it may be null. What
// the API answers never is.
func exact(s *huma.Schema) {
	if s == nil {
		return
	}
	if s.Type == huma.TypeArray {
		s.Nullable = false
	}
	exact(s.Items)
	for _, p := range s.Properties {
		exact(p)
	}
	if more, ok := s.AdditionalProperties.(*huma.Schema); ok {
		exact(more)
	}
}

func (s schemas) of(t reflect.Type) *huma.Schema { return s.registry.Schema(t, true, "") }

func schemaFor[T any](s schemas) *huma.Schema { return s.of(reflect.TypeFor[T]()) }

// object is the schema of a kind.
func (s schemas) object(info models.KindInfo) *huma.Schema {
	return s.of(reflect.TypeOf(info.New()).Elem())
}

// named keeps a schema that is not made from a Go type.
func (s schemas) named(name string, schema *huma.Schema) *huma.Schema {
	s.registry.Map()[name] = schema
	return &huma.Schema{Ref: "#/components/schemas/" + name}
}

func object(required []string, properties map[string]*huma.Schema) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, Properties: properties, Required: required}
}

// Parameters.

func param(in, name, description string, schema *huma.Schema) *huma.Param {
	return &huma.Param{In: in, Name: name, Description: description, Schema: schema, Required: in == "path"}
}

func text() *huma.Schema { return &huma.Schema{Type: huma.TypeString} }

func bounded(most int) *huma.Schema { return &huma.Schema{Type: huma.TypeString, MaxLength: &most} }

func namePath() *huma.Param { return param("path", "name", "The object's name.", text()) }

func oneNamespace() *huma.Param {
	return param("query", "namespace", `The namespace, "default" when left out. Means nothing for kinds without namespaces.`, text())
}

func bodyNamespace() *huma.Param {
	return param("query", "namespace", `The namespace; when left out, the body's, and "default" where that says none. Means nothing for kinds without namespaces.`, text())
}

func someNamespaces() *huma.Param {
	return param("query", "namespace", `The namespace, or "*" for all. When left out: every one that the caller may see. Means nothing for kinds without namespaces.`, text())
}

func ifMatchHeader() *huma.Param {
	return param("header", "If-Match", "The ETag that the object must have, else 412. Without it the last write wins.", text())
}

func ifNoneMatchHeader(description string) *huma.Param {
	return param("header", "If-None-Match", description, text())
}

func idempotencyHeader() *huma.Param {
	return param("header", "Idempotency-Key", "The same request with the same key is done once and answered the same again, with the header Idempotency-Replayed. Another request with the key is 409.", bounded(maxIdempotent))
}

func selectionParams() []*huma.Param {
	least := 0.0
	return []*huma.Param{
		someNamespaces(),
		param("query", "labelSelector", "Kubernetes' syntax: a=b, a!=b, a in (b,c), a notin (b), a, !a, joined by commas.", text()),
		param("query", "limit", "At most this many; metadata.continue then says where to go on. 0: all.", &huma.Schema{Type: huma.TypeInteger, Minimum: &least}),
		param("query", "continue", "The metadata.continue of the page before.", text()),
	}
}

// Bodies and answers.

func content(schema *huma.Schema, types ...string) map[string]*huma.MediaType {
	m := map[string]*huma.MediaType{}
	for _, t := range types {
		m[t] = &huma.MediaType{Schema: schema}
	}
	return m
}

func body(schema *huma.Schema, description string, types ...string) *huma.RequestBody {
	return &huma.RequestBody{Required: true, Description: description, Content: content(schema, append(types, append([]string{"application/json"}, yamlTypes...)...)...)}
}

func ok(description string, schema *huma.Schema) *huma.Response {
	return &huma.Response{Description: description, Content: content(schema, "application/json", "application/yaml")}
}

func tagged(r *huma.Response, of string) *huma.Response {
	r.Headers = map[string]*huma.Header{"ETag": {Description: "The version of the " + of + ", for If-Match.", Schema: text()}}
	return r
}

func withLocation(r *huma.Response) *huma.Response {
	r.Headers["Location"] = &huma.Header{Description: "Where the new object is.", Schema: text()}
	return r
}

// problems completes an operation with its errors: those that any request may
// get and those of its own.
func (s schemas) problems(op huma.Operation, statuses ...int) huma.Operation {
	for _, status := range append(statuses, 400, 401, 403, 429, 500, 503) {
		op.Responses[strconv.Itoa(status)] = &huma.Response{Description: statusText(status),
			Content: content(schemaFor[problem](s), "application/problem+json")}
	}
	return op
}

func statusText(status int) string {
	return models.ProblemOf(models.Errorf(models.KindOfStatus(status), "")).Title
}

// op starts the description of an operation.
func op(method, path, id, summary string, params []*huma.Param, responses map[string]*huma.Response) huma.Operation {
	return huma.Operation{Method: method, Path: path, OperationID: id, Summary: summary, Parameters: params, Responses: responses}
}

func (s schemas) kindOp(info models.KindInfo, method, path, verb, summary string, params []*huma.Param, responses map[string]*huma.Response) huma.Operation {
	o := op(method, Prefix+"/"+info.Plural+path, verb+info.Kind, summary, params, responses)
	o.Tags = []string{info.Plural}
	return o
}

func (s schemas) listOp(info models.KindInfo) huma.Operation {
	list := s.named(info.Kind+"List", object([]string{"kind", "metadata", "items"}, map[string]*huma.Schema{
		"kind":     oneOf(info.Kind + "List"),
		"metadata": schemaFor[listMeta](s),
		"items":    {Type: huma.TypeArray, Items: s.object(info)},
	}))
	event := s.named(info.Kind+"Event", object([]string{"type", "object"}, map[string]*huma.Schema{
		"type":   eventValue{}.Schema(nil),
		"object": {AnyOf: []*huma.Schema{s.object(info), bookmarkSchema(info), schemaFor[problem](s)}},
	}))
	params := append(selectionParams(),
		param("query", "watch", "Answer changes as they happen instead, one "+info.Kind+"Event a line. A last line of type ERROR holds the problem that ended the watch.", &huma.Schema{Type: huma.TypeBoolean}),
		param("query", "resourceVersion", "Watch from after this version on, as a list or a BOOKMARK gave it. Without it the objects there are come first, as ADDED. A list is always of now.", text()))
	answer := &huma.Response{Description: "The objects by namespace and name; with watch=true, lines.", Content: map[string]*huma.MediaType{
		"application/json": {Schema: &huma.Schema{OneOf: []*huma.Schema{list, event}}}, "application/yaml": {Schema: list}}}
	return s.problems(s.kindOp(info, http.MethodGet, "", "list", "List or watch "+info.Plural, params,
		map[string]*huma.Response{"200": answer}), 410)
}

// bookmarkSchema is an object of which only metadata.resourceVersion counts.
func bookmarkSchema(info models.KindInfo) *huma.Schema {
	return object([]string{"kind", "metadata"}, map[string]*huma.Schema{"kind": oneOf(info.Kind),
		"metadata": object([]string{"resourceVersion", "name"}, map[string]*huma.Schema{"resourceVersion": text(), "name": oneOf("")})})
}

const strictBody = "Unknown fields are refused. status and server-owned metadata are ignored, so that what GET answers can be edited and sent back; kind and apiVersion may be left out."

func (s schemas) createOp(info models.KindInfo) huma.Operation {
	o := s.kindOp(info, http.MethodPost, "", "create", "Create a "+info.Kind, []*huma.Param{bodyNamespace(), idempotencyHeader()},
		map[string]*huma.Response{"201": withLocation(tagged(ok("Created.", s.object(info)), "object"))})
	o.RequestBody = body(s.object(info), strictBody)
	return s.problems(o, 409, 413, 422)
}

func (s schemas) getOp(info models.KindInfo) huma.Operation {
	return s.problems(s.kindOp(info, http.MethodGet, "/{name}", "get", "Read a "+info.Kind,
		[]*huma.Param{namePath(), oneNamespace(), ifNoneMatchHeader("The ETag that the caller has: 304 while the object has not been changed. Its status is not part of the version.")},
		map[string]*huma.Response{"200": tagged(ok("The object.", s.object(info)), "object"), "304": {Description: "Not modified."}}), 404)
}

func (s schemas) replaceOp(info models.KindInfo) huma.Operation {
	o := s.kindOp(info, http.MethodPut, "/{name}", "replace", "Create or replace a "+info.Kind,
		[]*huma.Param{namePath(), oneNamespace(), ifMatchHeader(), ifNoneMatchHeader("*: create only, 412 when it exists.")},
		map[string]*huma.Response{"200": tagged(ok("Replaced.", s.object(info)), "object"), "201": withLocation(tagged(ok("Created.", s.object(info)), "object"))})
	o.RequestBody = body(s.object(info), strictBody)
	return s.problems(o, 409, 412, 413, 422)
}

func (s schemas) patchOp(info models.KindInfo) huma.Operation {
	o := s.kindOp(info, http.MethodPatch, "/{name}", "patch", "Change a "+info.Kind,
		[]*huma.Param{namePath(), oneNamespace(), ifMatchHeader()},
		map[string]*huma.Response{"200": tagged(ok("Changed.", s.object(info)), "object")})
	o.RequestBody = body(&huma.Schema{Type: huma.TypeObject}, "A merge patch (RFC 7396): null takes a field out, lists are replaced whole.", "application/merge-patch+json")
	return s.problems(o, 404, 409, 412, 413, 422)
}

func (s schemas) deleteOp(info models.KindInfo) huma.Operation {
	return s.problems(s.kindOp(info, http.MethodDelete, "/{name}", "delete", "Delete a "+info.Kind,
		[]*huma.Param{namePath(), oneNamespace(), ifMatchHeader()},
		map[string]*huma.Response{"200": ok("The object as it was.", s.object(info))}), 404, 409, 412)
}

func (s schemas) twinOp() huma.Operation {
	o := op(http.MethodGet, Prefix+"/devices/{name}/twin", "getTwin", "Read a twin", []*huma.Param{namePath(), oneNamespace(),
		param("query", "at", "The twin as it was at this time: what was reported from history, what was desired from the ledger of writes. 404 before the device was created."+momentForms, text()),
		uidParam()},
		map[string]*huma.Response{"200": tagged(ok("The twin.", schemaFor[twin.Document](s)), "twin")})
	o.Tags = []string{"twins"}
	return s.problems(o, 404, 422)
}

func (s schemas) desiredOp() huma.Operation {
	desired := &huma.Schema{Type: huma.TypeObject, AdditionalProperties: schemaFor[models.Value](s)}
	o := op(http.MethodGet, Prefix+"/devices/{name}/twin/desired", "getDesired", "Read a twin's desired values",
		[]*huma.Param{namePath(), oneNamespace(), ifNoneMatchHeader("The ETag that the caller has: 304 while desired has not changed.")},
		map[string]*huma.Response{"200": tagged(ok("Property to desired value: what a PATCH patches.", desired), "desired values"), "304": {Description: "Not modified."}})
	o.Tags = []string{"twins"}
	return s.problems(o, 404)
}

func (s schemas) patchDesiredOp() huma.Operation {
	twinSchema := schemaFor[twin.Document](s)
	o := op(http.MethodPatch, Prefix+"/devices/{name}/twin/desired", "patchDesired", "Change desired values", []*huma.Param{
		namePath(), oneNamespace(), ifMatchHeader(), idempotencyHeader(),
		param("query", "wait", `Wait up to this long ("5s", at most 5m) for the device: 200 when every written property is confirmed, 502 when it was refused, 503 at once when the node is offline, 504 when not confirmed in time. After 503 and 504 the write stays pending. The problem has the twin in its member "twin".`, durationValue{}.Schema(nil)),
		param("query", "expire", "Withdraw the write when it is unconfirmed for that long.", durationValue{}.Schema(nil)),
		param("header", "X-Whimbrel-Reason", "Why, for the record.", bounded(maxReason)),
		param("header", "traceparent", "W3C trace context, carried to the device write.", text()),
	}, map[string]*huma.Response{
		"200": tagged(ok("Every written property is confirmed.", twinSchema), "desired values"),
		"202": tagged(ok("Stored, and on its way to the device, reachable or not.", twinSchema), "desired values"),
	})
	o.Tags = []string{"twins"}
	o.RequestBody = body(&huma.Schema{Type: huma.TypeObject, AdditionalProperties: schemaFor[models.Value](s)},
		"A merge patch of property to value: null withdraws, objects and lists are replaced whole, an enum takes its names.", "application/merge-patch+json")
	return s.problems(o, 404, 409, 412, 413, 422, 423, 502, 504)
}

func (s schemas) recordOp() huma.Operation {
	o := op(http.MethodGet, Prefix+"/devices/{name}/recording", "recordDevice", "Record what the mapper sees on the wire", []*huma.Param{
		namePath(), oneNamespace(),
		param("query", "for", `How long ("10m", at most 24h; 1m when left out).`, durationValue{}.Schema(nil)),
		param("header", "traceparent", "W3C trace context, carried to the edge.", text()),
	}, map[string]*huma.Response{"200": {Description: "The lines of a recording, as they come. The last one has \"over\": true; without it the recording was cut short.",
		Content: map[string]*huma.MediaType{typeLines: {Schema: text()}}}})
	o.Tags = []string{"devices"}
	return s.problems(o, 404, 409, 502, 504)
}

func (s schemas) readOp() huma.Operation {
	o := op(http.MethodPost, Prefix+"/devices/{name}/read", "readDevice", "Read from the device, now", []*huma.Param{
		namePath(), oneNamespace(), idempotencyHeader(),
		param("query", "wait", `Wait up to this long for the device ("5s", at most 1m; 10s when left out).`, durationValue{}.Schema(nil)),
		param("header", "traceparent", "W3C trace context, carried to the edge.", text()),
	}, map[string]*huma.Response{"200": ok("What the device answered, which is in the twin, too. A property that is bad beside others that are not says why.", schemaFor[models.Readings](s))})
	o.Tags = []string{"twins"}
	o.RequestBody = body(schemaFor[models.ReadingsRequest](s), "The properties to read; without them all that can be. 502: the device, or its mapper, refuses. 503: its node is offline. 504: the device does not answer.")
	return s.problems(o, 404, 409, 413, 422, 502, 504)
}

func (s schemas) browseOp() huma.Operation {
	schemaFor[browseLine](s) // named in the description
	o := op(http.MethodPost, Prefix+"/devices/{name}/browse", "browseDevice", "Look around in a device", []*huma.Param{namePath(), oneNamespace(),
		param("header", "traceparent", "W3C trace context, carried to the edge.", text())},
		map[string]*huma.Response{"200": {Description: "What the device offers, a BrowseLine each line. A last line with problem tells of what ended it before its end.",
			Content: content(text(), typeLines)}})
	o.Tags = []string{"devices"}
	o.RequestBody = body(&huma.Schema{Type: huma.TypeObject, AdditionalProperties: false}, "Nothing, or an empty object. 502: the device refuses, or its protocol has nothing to look around in. 503: its node is offline. 504: the device does not answer.")
	return s.problems(o, 404, 413, 422, 502, 504)
}

func (s schemas) twinsOp() huma.Operation {
	o := op(http.MethodGet, Prefix+"/twins", "listTwins", "List twins", selectionParams(),
		map[string]*huma.Response{"200": ok("The twins by namespace and name.", schemaFor[twinList](s))})
	o.Tags = []string{"twins"}
	return s.problems(o, 410)
}

func (s schemas) streamOp() huma.Operation {
	schemaFor[twinEvent](s) // named in the description
	o := op(http.MethodGet, Prefix+"/twins/stream", "streamTwins", "Follow twins", []*huma.Param{
		someNamespaces(), selectionParams()[1],
		param("header", "Last-Event-ID", "Go on after this event. Without it, or where it is too old, every twin comes first.", text()),
	}, map[string]*huma.Response{"200": {Description: "Server-Sent Events. twin: its data is a TwinEvent, the state of the properties that changed, not every change on the way. deleted: a device is gone, or its labels are no longer chosen; its data names it. reset: the Last-Event-ID is too old; every twin follows, and what does not was deleted.",
		Content: content(text(), "text/event-stream")}})
	o.Tags = []string{"twins"}
	return s.problems(o)
}

func (s schemas) historyOp() huma.Operation {
	least, most := 0.0, float64(maxPoints)
	o := op(http.MethodGet, Prefix+"/devices/{name}/properties/{property}/history", "getHistory", "Read a property's history", []*huma.Param{
		namePath(), param("path", "property", "The property's name.", text()), oneNamespace(), uidParam(),
		param("query", "from", "The first time, inclusive; an hour before to when left out."+momentForms, text()),
		param("query", "to", "The end, exclusive; now when left out."+momentForms, text()),
		param("query", "step", "Buckets of this width instead of the samples, aligned to 1970. Those without a value are left out.", durationValue{}.Schema(nil)),
		param("query", "agg", "What buckets tell: some of avg, min, max, count, first, last, joined by commas; avg,min,max,count when left out.", text()),
		param("query", "limit", "At most this many points or buckets; continue then says where to go on. 10000 when left out or 0; an export then has all.",
			&huma.Schema{Type: huma.TypeInteger, Minimum: &least, Maximum: &most}),
		param("query", "continue", "The continue of the page before, with the same from, to and step.", text()),
	}, map[string]*huma.Response{"200": {Description: "A page. With Accept: text/csv or application/x-ndjson everything that was asked for, as it is read; a gap is then a line of its own, or left out of CSV. " +
		"With a step, gaps also tell of times whose samples have no value.", Content: content(schemaFor[models.History](s), "application/json", "application/yaml")}})
	for _, t := range []string{typeCSV, typeLines} {
		o.Responses["200"].Content[t] = &huma.MediaType{Schema: text()}
	}
	o.Tags = []string{"history"}
	return s.problems(o, 404, 422)
}

// pageParams are limit and continue of a list that is always paged.
func pageParams() []*huma.Param {
	least, most := 0.0, float64(maxPage)
	return []*huma.Param{
		param("query", "limit", fmt.Sprintf("At most this many; metadata.continue then says where to go on. %d when left out or 0.", defaultPage), &huma.Schema{Type: huma.TypeInteger, Minimum: &least, Maximum: &most}),
		param("query", "continue", "The metadata.continue of the page before.", text()),
	}
}

// momentForms are the forms of a parameter that is a time.
const momentForms = " A time such as 2026-01-02T15:04:05Z, or how long ago it was: 30m, 12h, 7d, 2w."

func sinceParam() *huma.Param {
	return param("query", "since", "Only from then on."+momentForms, text())
}

// watchParams are those of a watch of something that is not objects.
func watchParams() []*huma.Param {
	return []*huma.Param{
		param("query", "watch", "Answer changes as they happen instead: a JSON document each line, or Server-Sent Events with Accept: text/event-stream. A last one of type ERROR holds the problem that ended the watch.", &huma.Schema{Type: huma.TypeBoolean}),
		param("query", "resourceVersion", "Watch from after this version on, as a list's metadata gave it. Without it what there is comes first.", text()),
		param("header", "Last-Event-ID", "The same for Server-Sent Events.", text()),
	}
}

// followed describes an answer that is a list, or with watch=true a stream.
func (s schemas) followed(description, name string, list, item *huma.Schema) *huma.Response {
	change := s.named(name+"Change", object([]string{"type", "object"}, map[string]*huma.Schema{
		"type":   eventValue{}.Schema(nil),
		"object": {AnyOf: []*huma.Schema{item, schemaFor[bookmark](s), schemaFor[problem](s)}},
	}))
	return &huma.Response{Description: description, Content: map[string]*huma.MediaType{
		"application/json": {Schema: &huma.Schema{OneOf: []*huma.Schema{list, change}}}, "application/yaml": {Schema: list}, typeSSE: {Schema: text()}}}
}

func (s schemas) eventsOp() huma.Operation {
	params := append([]*huma.Param{someNamespaces(),
		param("query", "kind", "Only of objects of this kind, such as Device. 422: there is no such kind.", text()),
		param("query", "name", "Only of objects with this name.", text()),
		param("query", "type", "Normal or Warning.", text()),
		param("query", "reason", "Only with this reason, such as DeviceOffline.", text()),
		sinceParam()}, append(pageParams(), watchParams()...)...)
	o := op(http.MethodGet, Prefix+"/events", "listEvents", "What happened", params, map[string]*huma.Response{"200": s.followed(
		"Events, the latest first; things that are alike within ten minutes are one, with a count. With watch=true those that are new or have changed, in the order in which they are recorded.",
		"Event", schemaFor[eventList](s), schemaFor[models.LoggedEvent](s))})
	o.Tags = []string{"events"}
	return s.problems(o, 410, 422)
}

func uidParam() *huma.Param {
	return param("query", "uid", "Of a device of this name that was deleted: its metadata.uid. What is kept of it is kept for 30 days.", text())
}

func (s schemas) writesOp() huma.Operation {
	o := op(http.MethodGet, Prefix+"/devices/{name}/writes", "listWrites", "Who wrote what, and what became of it", append([]*huma.Param{
		namePath(), oneNamespace(), uidParam(),
		param("query", "property", "Only writes of this property.", text()),
		param("query", "state", "Only writes in this state: "+strings.Join(writeStates, ", ")+".", text()),
		sinceParam()}, pageParams()...),
		map[string]*huma.Response{"200": ok("Desired writes, the newest first.", schemaFor[writeList](s))})
	o.Tags = []string{"twins"}
	return s.problems(o, 404, 422)
}

func (s schemas) auditOp() huma.Operation {
	params := append([]*huma.Param{param("query", "namespace", "Only of objects in this namespace.", text()),
		param("query", "by", "Only what this user did.", text()),
		param("query", "action", "Only this: "+strings.Join(models.AuditActions, ", ")+".", text()),
		param("query", "kind", "Only of objects of this kind, such as Device, or Token or Image. 422: there is no such kind.", text()),
		param("query", "name", "Only of objects with this name; of a token it is its user or node.", text()),
		param("query", "uid", "Only of the object with this uid.", text()),
		sinceParam()}, append(pageParams(), watchParams()...)...)
	o := op(http.MethodGet, Prefix+"/audit", "listAudit", "Who did what", params, map[string]*huma.Response{"200": s.followed(
		"Changes of objects, tokens and identities, and commands in pods, newest first. With watch=true in the order of ids.", "Audit", schemaFor[auditList](s), schemaFor[models.AuditEntry](s))})
	o.Tags = []string{"audit"}
	return s.problems(o, 422)
}

func (s schemas) tokensOp() huma.Operation {
	o := op(http.MethodGet, Prefix+"/tokens", "listTokens", "List tokens", nil,
		map[string]*huma.Response{"200": ok("API and join tokens, without their secrets.", schemaFor[tokenList](s))})
	o.Tags = []string{"tokens"}
	return s.problems(o)
}

func (s schemas) createTokenOp() huma.Operation {
	o := op(http.MethodPost, Prefix+"/tokens", "createToken", "Make a token", []*huma.Param{idempotencyHeader()},
		map[string]*huma.Response{"201": ok("The token, told here and never again.", schemaFor[tokenAnswer](s))})
	o.Tags = []string{"tokens"}
	o.RequestBody = body(schemaFor[tokenRequest](s), "node for a token with which a node can join once (ttl 1h when left out), or user for an API token (without ttl it does not expire).")
	return s.problems(o, 404, 409, 413, 422)
}

func (s schemas) deleteTokenOp() huma.Operation {
	o := op(http.MethodDelete, Prefix+"/tokens/{id}", "deleteToken", "Revoke a token", []*huma.Param{param("path", "id", "The token's id.", text())},
		map[string]*huma.Response{"204": {Description: "Revoked."}})
	o.Tags = []string{"tokens"}
	return s.problems(o, 404)
}

// noToken marks an operation that takes none.
func noToken(o huma.Operation) huma.Operation {
	o.Security = []map[string][]string{{}}
	return o
}

func (s schemas) healthOp() huma.Operation {
	return noToken(op(http.MethodGet, "/healthz", "healthz", "Is the process there?", nil,
		map[string]*huma.Response{"200": ok("It is.", schemaFor[health](s))}))
}

func (s schemas) readyOp() huma.Operation {
	o := s.problems(op(http.MethodGet, "/readyz", "readyz", "Can it serve?", nil,
		map[string]*huma.Response{"200": ok("It can.", schemaFor[health](s))}))
	for _, status := range []string{"400", "401", "403", "429"} {
		delete(o.Responses, status)
	}
	return noToken(o)
}

func (s schemas) metricsOp() huma.Operation {
	return s.problems(op(http.MethodGet, "/metrics", "metrics", "Metrics for Prometheus", nil,
		map[string]*huma.Response{"200": {Description: "Prometheus' text format.", Content: content(text(), "text/plain")}}))
}

func (s schemas) openAPIOp() huma.Operation {
	return s.problems(op(http.MethodGet, "/openapi.json", "openapi", "This document", nil,
		map[string]*huma.Response{"200": ok("OpenAPI 3.1.", &huma.Schema{Type: huma.TypeObject})}))
}
