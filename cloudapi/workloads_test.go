package cloudapi_test

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/models"
)

func app(name, spec string) string {
	return `{"metadata":{"name":"` + name + `"},"spec":{"template":{"spec":{"containers":[{"name":"c","image":"i"}]` + spec + `}}}}`
}

// TestWorkloadKinds serves the kinds of apps: what users make and what only the
// hub makes, every answer as the OpenAPI document says.
func TestWorkloadKinds(t *testing.T) {
	p := newPlant(t)
	text, err := os.ReadFile("../models/testdata/workloads/full.good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := models.DecodeObjects(text)
	if err != nil {
		t.Fatal(err)
	}
	docs := strings.Split(string(text), "\n---\n")
	for i, o := range objects {
		info, _ := models.KindByName(o.Type().Kind)
		path := "/api/v1/" + info.Plural
		p.want(201, "POST", path, docs[i], headers{"Content-Type": "application/yaml"})
		got := p.want(200, "GET", path+"/"+o.Meta().Name, "", headers{"as": "viewer"}).text
		p.want(200, "PUT", path+"/"+o.Meta().Name, got)
		if again := p.want(200, "GET", path+"/"+o.Meta().Name, "").text; again != got {
			t.Errorf("put as it is, it became\n%s\nfrom\n%s", again, got)
		}
		p.want(200, "GET", path, "", headers{"as": "viewer"})
	}
	r := p.want(422, "POST", "/api/v1/deployments", app("x", `,"initContainers":[]`))
	if got := r.pointers(); !reflect.DeepEqual(got, []string{"/spec/template/spec/initContainers"}) {
		t.Errorf("%v", got)
	}

	// What the hub makes.
	pod := &models.Pod{TypeMeta: models.TypeMeta{APIVersion: "v1", Kind: "Pod"}, Metadata: models.ObjectMeta{Name: "x-0", Namespace: "default",
		OwnerReferences: []models.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "x", UID: "u"}}}, Spec: objects[0].(*models.Deployment).Spec.Template.Spec}
	revision := &models.ControllerRevision{TypeMeta: models.TypeMeta{APIVersion: "apps/v1", Kind: "ControllerRevision"}, Metadata: models.ObjectMeta{Name: "x-1", Namespace: "default"}, Revision: 1}
	revision.Data.Spec.Template = objects[0].(*models.Deployment).Spec.Template
	for _, o := range []models.Object{pod, revision} {
		if err := p.hub.Put(o); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"POST", "/api/v1/pods", 405}, {"PUT", "/api/v1/pods/x-0", 405}, {"PATCH", "/api/v1/pods/x-0", 405}, {"GET", "/api/v1/pods/x-0", 200}, {"GET", "/api/v1/pods", 200}, {"DELETE", "/api/v1/pods/x-0", 200},
		{"POST", "/api/v1/controllerrevisions", 405}, {"PUT", "/api/v1/controllerrevisions/x-1", 405}, {"DELETE", "/api/v1/controllerrevisions/x-1", 405}, {"GET", "/api/v1/controllerrevisions/x-1", 200},
	} {
		p.want(c.status, c.method, c.path, "{}")
	}
}

// TestReachingIntoNodes checks who may give an app what is the node's, by every
// way to write one.
func TestReachingIntoNodes(t *testing.T) {
	for _, plural := range []string{"deployments", "daemonsets", "statefulsets"} {
		t.Run(plural, func(t *testing.T) { reachingIntoNodes(t, "/api/v1/"+plural) })
	}
}

func reachingIntoNodes(t *testing.T, kind string) {
	p := newPlant(t)
	const ns = "?namespace=plant"
	tty := `,"volumes":[{"name":"tty","hostPath":{"path":"/dev/ttyUSB0"}}]`
	as := headers{"as": "plant-admin"}
	p.want(201, "POST", kind+ns, app("a", ""), as)
	p.want(403, "POST", kind+ns, app("b", ""), headers{"as": "plant-operator"})
	for _, c := range []struct{ method, path, body string }{
		{"POST", kind + ns, app("b", tty)},
		{"PUT", kind + "/a" + ns, app("a", tty)},
		{"PUT", kind + "/a" + ns, app("a", `,"hostNetwork":true`)},
		{"PATCH", kind + "/a" + ns, `{"spec":{"template":{"spec":{"hostNetwork":true}}}}`},
		{"PATCH", kind + "/a" + ns, `{"spec":{"template":{"spec":{"volumes":[{"name":"v","hostPath":{"path":"/"}}]}}}}`},
	} {
		r := p.want(403, c.method, c.path, c.body, as)
		if len(r.pointers()) != 1 || !strings.HasPrefix(r.pointers()[0], "/spec/template/spec/") {
			t.Errorf("%s names %v", c.body, r.pointers())
		}
	}
	if got := p.want(200, "GET", kind+"/a"+ns, "", as).text; strings.Contains(got, "host") {
		t.Errorf("refused, and stored: %s", got)
	}
	p.want(200, "PUT", kind+"/a"+ns, app("a", tty))
	// Who may not give it may not keep it either, nor anything else of the app; but take it away.
	p.want(403, "PATCH", kind+"/a"+ns, `{"metadata":{"labels":{"a":"b"}}}`, as)
	p.want(200, "PATCH", kind+"/a"+ns, `{"spec":{"template":{"spec":{"volumes":null}}}}`, as)
}
