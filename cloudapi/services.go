package cloudapi

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/whimbrel-edge/whimbrel/internal/appproxy"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Services is what the proxy to apps needs.
type Services interface {
	// DialService connects to a ready pod of a Service, on one node when that is not
	// "". port is the name or the number of one of the Service's, "" for the first.
	// The error may come with the first Read, too; the connection then has a method
	// Refusal. KindNotFound: there is no such Service, node or port;
	// KindUnavailable: no pod is ready, or its node is offline.
	DialService(ctx context.Context, node, namespace, name, port, trace string) (net.Conn, error)
	// ServicePlace chooses a pod for a request that may go over a kept connection, for
	// the same arguments. false: it is DialService that is to be asked, also why there
	// is none.
	ServicePlace(node, namespace, name, port, trace string) (appproxy.Place, bool)
}

// proxied is what the path of a request to an app says.
type proxied struct {
	node, service string
	prefix        string // up to the service
	path          string // after proxy, escaped
}

// proxiedPath reads an escaped path. Nothing else in the API has "proxy" there.
func proxiedPath(escaped string) (p proxied, ok bool) {
	rest, ok := strings.CutPrefix(escaped, Prefix+"/")
	if !ok {
		return p, false
	}
	p.prefix = Prefix + "/services/"
	if after, ok := strings.CutPrefix(rest, "nodes/"); ok {
		node, after, _ := strings.Cut(after, "/")
		p.node, rest = node, after
		p.prefix = Prefix + "/nodes/" + node + "/services/"
	}
	if rest, ok = strings.CutPrefix(rest, "services/"); !ok {
		return p, false
	}
	p.service, rest, ok = strings.Cut(rest, "/")
	if !ok {
		return p, false
	}
	if p.path, ok = strings.CutPrefix(rest, "proxy"); !ok || p.path != "" && p.path[0] != '/' {
		return p, false
	}
	return p, p.service != ""
}

// proxy carries a request to an app and its answer back. It is past the router:
// the path is the app's and must stay as it is.
func (c *call) proxy(p proxied) {
	fail := func(_ http.ResponseWriter, err error) { c.send(answer{}, err) }
	to, err := appproxy.Parse(p.service, p.path)
	query := c.URL.RawQuery
	if err == nil && to.Namespace == "" {
		to.Namespace, query, err = takeNamespace(query)
	}
	if err == nil && p.node != "" {
		if p.node, err = url.PathUnescape(p.node); err != nil || models.CheckSubdomain(p.node) != "" {
			err = errNoPath
		}
	}
	if err == nil {
		err = c.caller.may(models.Operator, to.Namespace)
	}
	if err == nil && c.api.Services == nil {
		err = errNoPath
	}
	if err != nil {
		fail(nil, err)
		return
	}
	ctx, cancel := c.long()
	defer cancel(nil)
	h := c.w.Header()
	for _, name := range []string{"Traceparent", "Cache-Control", "X-Content-Type-Options"} {
		h.Del(name) // they are the app's to say
	}
	c.Request = c.WithContext(ctx)
	c.Header.Set("Traceparent", c.trace)
	appproxy.Serve(c.w, c.Request, appproxy.Request{Target: to, User: c.caller.Name, Prefix: p.prefix + p.service + "/proxy", Query: query, Log: c.api.Log, Fail: func(_ http.ResponseWriter, err error) {
		h.Set("Traceparent", c.trace)
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		if errors.Is(err, context.Canceled) && c.Context().Err() != nil {
			err = context.Cause(ctx) // the server shuts down, or the caller has gone
		}
		c.send(answer{}, err)
	}, Dial: func(ctx context.Context) (net.Conn, error) {
		return c.api.Services.DialService(ctx, p.node, to.Namespace, to.Name, to.Port, c.trace)
	}, Place: func() (appproxy.Place, bool) {
		return c.api.Services.ServicePlace(p.node, to.Namespace, to.Name, to.Port, c.trace)
	}})
}

// takeNamespace takes the parameter namespace out of an escaped query. The rest is
// the app's, as it is.
func takeNamespace(query string) (namespace, rest string, err error) {
	namespace = models.DefaultNamespace
	var others []string
	found := false
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		if name != "namespace" {
			others = append(others, part)
			continue
		}
		if found {
			return "", "", models.BadParameter(models.KindMalformed, "namespace", "is given more than once; if it is the app's, write the service as NAMESPACE.NAME")
		}
		found = true
		if namespace, err = url.QueryUnescape(value); err != nil || models.CheckLabelName(namespace) != "" {
			return "", "", models.BadParameter(models.KindMalformed, "namespace", "%.80q is none; if the parameter is the app's, write the service as NAMESPACE.NAME", value)
		}
	}
	return namespace, strings.Join(others, "&"), nil
}

// proxyOps are for the document only: ServeHTTP takes these requests before the
// router.
func (s schemas) proxyOps() (ops []*huma.Operation) {
	for _, at := range []struct{ path, id, on string }{
		{Prefix + "/services/{name}/proxy/{path}", "App", ""},
		{Prefix + "/nodes/{node}/services/{name}/proxy/{path}", "AppOnNode", " on one node"},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			params := []*huma.Param{}
			if at.on != "" {
				params = append(params, param("path", "node", "A node's name.", text()))
			}
			params = append(params, param("path", "name", "[NAMESPACE.]NAME[:PORT] of a Service; the port by its name or number, the first when left out.", text()),
				param("path", "path", "Of the app. It may have any number of segments.", text()),
				param("query", "namespace", "Of the Service, unless the path says it; then the whole query is the app's.", text()))
			for _, p := range params {
				p.Required = p.In == "path"
			}
			o := op(method, at.path, "ask"+at.id+"By"+method, "Ask an app"+at.on, params,
				map[string]*huma.Response{"default": {Description: "What the app answers: status, headers and body are its own, and X-Whimbrel-Answer is app."}})
			o.Tags = []string{"apps"}
			if method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch {
				o.RequestBody = &huma.RequestBody{Description: "What the app takes, of any type.", Content: map[string]*huma.MediaType{"*/*": {}}}
			}
			o = s.problems(o, 404, 413, 502, 503, 504)
			ops = append(ops, &o)
		}
	}
	return ops
}
