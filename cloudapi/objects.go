package cloudapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/whimbrel-edge/whimbrel/models"
)

// resource is a kind of object that the API serves, and who may read it. Of one
// that has secrets (models.Redacted) only GET of the one object shows them.
type resource struct {
	kind string
	read models.Role
	made made
}

// made says who makes the objects of a kind.
type made int

const (
	byUsers made = iota
	byHub        // users can read them, and no more
	anew         // by the hub, which makes one that a user deletes anew
)

// resources lists the kinds served. Changing one takes the role admin: in the
// object's namespace, in all of them where it has none.
var resources = []resource{
	{kind: "DeviceModel", read: models.Viewer},
	{kind: "Device", read: models.Viewer},
	{kind: "Node", read: models.Viewer},
	{kind: "Mapper", read: models.Viewer},
	{kind: "Deployment", read: models.Viewer},
	{kind: "DaemonSet", read: models.Viewer},
	{kind: "StatefulSet", read: models.Viewer},
	{kind: "Pod", read: models.Viewer, made: anew},
	{kind: "ControllerRevision", read: models.Viewer, made: byHub},
	{kind: "Service", read: models.Viewer},
	{kind: "ConfigMap", read: models.Viewer},
	{kind: "Route", read: models.Viewer},
	{kind: "Secret", read: models.Admin},
	{kind: "User", read: models.Admin},
}

// collection is a resource at work.
type collection struct {
	resource
	info models.KindInfo
	api  *api
}

// objectList is how a list is answered.
type objectList struct {
	Kind     string          `json:"kind"`
	Metadata listMeta        `json:"metadata"`
	Items    []models.Object `json:"items"`
}

type listMeta struct {
	ResourceVersion string `json:"resourceVersion,omitempty"`
	Continue        string `json:"continue"`
}

func (a *api) objectRoutes(r resource) ([]route, error) {
	info, ok := models.KindByName(r.kind)
	if !ok {
		return nil, fmt.Errorf("kind %s is not known", r.kind)
	}
	o := &collection{resource: r, info: info, api: a}
	routes := []route{
		{a.schemas.listOp(info), r.read, o.list},
		{a.schemas.getOp(info), r.read, o.get},
	}
	if r.made == byUsers {
		routes = append(routes,
			route{a.schemas.createOp(info), models.Admin, o.create},
			route{a.schemas.replaceOp(info), models.Admin, o.replace},
			route{a.schemas.patchOp(info), models.Admin, o.patch})
	}
	if r.made != byHub {
		routes = append(routes, route{a.schemas.deleteOp(info), models.Admin, o.remove})
	}
	return routes, nil
}

// key reads which object a request is about, and checks that the caller holds a
// role there.
func (o *collection) key(c *call, need models.Role) (models.Key, error) {
	key := models.Key{Kind: o.kind, Name: c.param("name")}
	if o.info.Namespaced {
		var err error
		if key.Namespace, err = c.namespace(); err != nil {
			return key, err
		}
	} else if need == models.Admin {
		return key, c.caller.may(need, models.AllNamespaces)
	}
	return key, c.caller.may(need, key.Namespace)
}

func (o *collection) list(c *call) (answer, error) {
	need := o.read
	opts, err := c.listOptions(o.kind, need, o.info.Namespaced)
	if err != nil {
		return answer{}, err
	}
	if watch, err := c.flag("watch"); err != nil || watch {
		if err != nil {
			return answer{}, err
		}
		return o.watch(c, opts)
	}
	l, err := o.api.Objects.List(c.Context(), opts)
	if err != nil {
		return answer{}, err
	}
	items := make([]models.Object, len(l.Items))
	for i, item := range l.Items {
		items[i] = models.Redacted(item)
	}
	return answer{status: http.StatusOK, body: objectList{Kind: o.kind + "List",
		Metadata: listMeta{ResourceVersion: l.ResourceVersion, Continue: l.Continue}, Items: items}}, nil
}

func (o *collection) get(c *call) (answer, error) {
	key, err := o.key(c, o.read)
	if err != nil {
		return answer{}, err
	}
	object, err := o.api.Objects.Get(c.Context(), key)
	if err != nil {
		return answer{}, err
	}
	tag := etag(object.Meta().ResourceVersion)
	if same, err := c.notModified(tag); err != nil || same {
		return answer{status: http.StatusNotModified, etag: tag}, err
	}
	return answer{status: http.StatusOK, body: object, etag: tag}, nil
}

func (o *collection) create(c *call) (answer, error) {
	text, err := c.body()
	if err != nil {
		return answer{}, err
	}
	object, err := o.decode(c, text, "")
	if err != nil {
		return answer{}, err
	}
	return c.once(o.print(text, object), func() (answer, error) {
		return o.update(c, models.KeyOf(object), models.WriteOptions{By: c.caller.Name, Create: true},
			func(models.Object) (models.Object, error) { return o.decode(c, text, "") })
	})
}

// print is what an Idempotency-Key is kept with of a body. Of one that has
// secrets it is nothing that they could be guessed from.
func (o *collection) print(text []byte, object models.Object) []byte {
	if models.Redacted(object) == object {
		return text
	}
	h := hmac.New(sha256.New, o.api.salt)
	h.Write(text)
	return h.Sum(nil)
}

func (o *collection) replace(c *call) (answer, error) {
	key, err := o.key(c, models.Admin)
	if err != nil {
		return answer{}, err
	}
	text, err := c.body()
	if err != nil {
		return answer{}, err
	}
	if _, err := o.decode(c, text, key.Name); err != nil {
		return answer{}, err
	}
	createOnly, err := c.createOnly()
	if err != nil {
		return answer{}, err
	}
	ifMatch, err := c.ifMatch()
	if err != nil {
		return answer{}, err
	}
	return o.update(c, key, models.WriteOptions{By: c.caller.Name, IfMatch: ifMatch}, func(current models.Object) (models.Object, error) {
		if createOnly && current != nil {
			return nil, models.Errorf(models.KindPrecondition, "%s already exists, and If-None-Match asks that it does not", key)
		}
		return o.decode(c, text, key.Name)
	})
}

func (o *collection) patch(c *call) (answer, error) {
	key, err := o.key(c, models.Admin)
	if err != nil {
		return answer{}, err
	}
	text, err := c.body()
	if err != nil {
		return answer{}, err
	}
	if _, err := models.MergePatch([]byte("{}"), text); err != nil { // malformed even where the object is not there
		return answer{}, malformed(err)
	}
	ifMatch, err := c.ifMatch()
	if err != nil {
		return answer{}, err
	}
	return o.update(c, key, models.WriteOptions{By: c.caller.Name, IfMatch: ifMatch}, func(current models.Object) (models.Object, error) {
		if current == nil {
			return nil, models.Errorf(models.KindNotFound, "%s does not exist", key)
		}
		before, err := json.Marshal(current)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", key, err)
		}
		after, err := models.MergePatch(before, text)
		if err != nil {
			return nil, malformed(err)
		}
		return o.decode(c, after, key.Name)
	})
}

// malformed gives an error of the decoder that has no kind one: the text is
// what is wrong, not the hub.
func malformed(err error) error {
	if models.KindOf(err) == models.KindInternal {
		return models.Errorf(models.KindMalformed, "%s", err.Error())
	}
	return err
}

func (o *collection) remove(c *call) (answer, error) {
	key, err := o.key(c, models.Admin)
	if err != nil {
		return answer{}, err
	}
	ifMatch, err := c.ifMatch()
	if err != nil {
		return answer{}, err
	}
	object, err := o.api.Objects.Delete(c.Context(), key, models.WriteOptions{By: c.caller.Name, IfMatch: ifMatch})
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: models.Redacted(object)}, nil
}

func (o *collection) update(c *call, key models.Key, opts models.WriteOptions, change func(models.Object) (models.Object, error)) (answer, error) {
	object, created, err := o.api.Objects.Update(c.Context(), key, opts, change)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: http.StatusOK, body: models.Redacted(object), etag: etag(object.Meta().ResourceVersion)}
	if created {
		a.status = http.StatusCreated
		a.location = location(o.info, object.Meta().Namespace, object.Meta().Name)
	}
	return a, nil
}

func location(info models.KindInfo, namespace, name string) string {
	path := Prefix + "/" + info.Plural + "/" + url.PathEscape(name)
	if info.Namespaced && namespace != models.DefaultNamespace {
		path += "?namespace=" + url.QueryEscape(namespace)
	}
	return path
}

// decode reads an object from a body and checks that the caller may write it
// where it says it is. name is the one in the path, "" when there is none. A
// namespace that the body leaves out is the request's.
func (o *collection) decode(c *call, text []byte, name string) (models.Object, error) {
	object, err := models.DecodeKind(o.kind, text)
	if err != nil {
		return nil, err
	}
	meta := object.Meta()
	if name != "" && meta.Name != name {
		return nil, models.Invalid("/metadata/name", "must be %s, the name in the path", name)
	}
	if !o.info.Namespaced {
		return object, c.caller.may(models.Admin, models.AllNamespaces)
	}
	given, err := c.givenNamespace()
	if err != nil {
		return nil, err
	}
	if given == "" && name != "" {
		given = models.DefaultNamespace
	}
	if given != "" && given != meta.Namespace {
		if namesNamespace(text) {
			return nil, models.Invalid("/metadata/namespace", "must be %s, the request's namespace", given)
		}
		meta.Namespace = given
	}
	if err := c.caller.may(models.Admin, meta.Namespace); err != nil {
		return nil, err
	}
	return object, c.mayReachHost(object)
}

// mayReachHost checks that the caller may give an app what is the node's: files,
// devices, the network. A node is everyone's, so that takes the role admin in all
// namespaces. (What spec.access gives of devices needs no more than the role
// here, admin, which includes to write them: it ends with the namespace.)
func (c *call) mayReachHost(object models.Object) error {
	app, ok := object.(models.Workload)
	if !ok {
		return nil
	}
	fields := app.PodTemplate().Spec.NeedsHost()
	if len(fields) == 0 || c.caller.may(models.Admin, models.AllNamespaces) == nil {
		return nil
	}
	e := models.Errorf(models.KindForbidden, "an app that reaches into its node needs the role admin in all namespaces; %s has the role %s in namespace %s",
		c.caller.Name, c.caller.Role, c.caller.Namespace)
	for _, f := range fields {
		e.Fields = append(e.Fields, models.FieldError{Pointer: "/spec/template/spec" + f, Detail: "reaches into the node"})
	}
	return e
}

// namesNamespace reports whether a document that DecodeKind took says its
// namespace itself: DecodeKind fills in the default.
func namesNamespace(text []byte) bool {
	plain, err := models.MergePatch([]byte("{}"), text) // to JSON, whatever it is
	if err != nil {
		return false
	}
	var named struct {
		Metadata struct {
			Namespace string `json:"namespace"`
		} `json:"metadata"`
	}
	return json.Unmarshal(plain, &named) == nil && named.Metadata.Namespace != ""
}
