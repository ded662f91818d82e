package cloudapi_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/models"
)

func TestObjectLife(t *testing.T) {
	p := newPlant(t)
	r := p.want(201, "POST", "/api/v1/devicemodels", boilerModel)
	if got := r.Header.Get("Location"); got != "/api/v1/devicemodels/boiler" {
		t.Errorf("Location %q", got)
	}
	tag := r.Header.Get("ETag")
	if want := `"` + fmt.Sprint(r.at("metadata", "resourceVersion")) + `"`; tag != want {
		t.Errorf("ETag %s, want %s", tag, want)
	}
	if r.at("metadata", "namespace") != "default" || r.at("metadata", "uid") == nil {
		t.Errorf("metadata %v", r.at("metadata"))
	}
	p.want(409, "POST", "/api/v1/devicemodels", boilerModel)

	// GET, then sent back as it is: nothing changes, nothing is refused.
	got := p.want(200, "GET", "/api/v1/devicemodels/boiler", "")
	if got.Header.Get("ETag") != tag {
		t.Errorf("GET has ETag %s, POST had %s", got.Header.Get("ETag"), tag)
	}
	back := p.want(200, "PUT", "/api/v1/devicemodels/boiler", got.text, headers{"If-Match": tag})
	if back.Header.Get("ETag") != tag {
		t.Errorf("a PUT of the same made %s of %s", back.Header.Get("ETag"), tag)
	}

	r = p.want(201, "PUT", "/api/v1/devices/boiler-1", device("boiler-1"))
	if r.at("status", "state") != "unknown" || r.Header.Get("Location") != "/api/v1/devices/boiler-1" {
		t.Errorf("device %s, Location %q", r.text, r.Header.Get("Location"))
	}
	p.want(409, "DELETE", "/api/v1/devicemodels/boiler", "")

	r = p.want(200, "PATCH", "/api/v1/devices/boiler-1", `{"spec":{"locked":true},"metadata":{"labels":{"area":null,"line":"2"}}}`,
		headers{"Content-Type": "application/merge-patch+json"})
	if r.at("spec", "locked") != true || fmt.Sprint(r.at("metadata", "labels")) != "map[line:2]" || r.at("spec", "model") != "boiler" {
		t.Errorf("patched %s", r.text)
	}
	p.want(404, "PATCH", "/api/v1/devices/boiler-2", `{"spec":{"locked":true}}`)

	r = p.want(200, "DELETE", "/api/v1/devices/boiler-1", "")
	if r.at("metadata", "name") != "boiler-1" {
		t.Errorf("deleted %s", r.text)
	}
	p.want(404, "GET", "/api/v1/devices/boiler-1", "")
	p.want(404, "DELETE", "/api/v1/devices/boiler-1", "")
	p.want(200, "DELETE", "/api/v1/devicemodels/boiler", "")
}

func TestConditions(t *testing.T) {
	p := newPlant(t)
	p.boilers("boiler-1")
	path := "/api/v1/devices/boiler-1"
	tag := p.want(200, "GET", path, "").Header.Get("ETag")
	bare := strings.Trim(tag, `"`)
	patch := func(n int) string { return fmt.Sprintf(`{"metadata":{"labels":{"n":"%d"}}}`, n) }

	for _, stale := range []string{`"1"`, `W/` + tag, `"1", "2"`} {
		p.want(412, "PATCH", path, patch(1), headers{"If-Match": stale})
		p.want(412, "PUT", path, device("boiler-1"), headers{"If-Match": stale})
		p.want(412, "DELETE", path, "", headers{"If-Match": stale})
	}
	if now := p.want(200, "GET", path, "").Header.Get("ETag"); now != tag {
		t.Fatalf("a 412 changed the object: %s to %s", tag, now)
	}
	p.want(400, "PATCH", path, patch(1), headers{"If-Match": "not an etag"})
	p.want(412, "PUT", "/api/v1/devices/boiler-9", device("boiler-9"), headers{"If-Match": "*"})
	p.want(412, "PUT", path, device("boiler-1"), headers{"If-None-Match": "*"})
	p.want(400, "PUT", path, device("boiler-1"), headers{"If-None-Match": tag})
	p.want(201, "PUT", "/api/v1/devices/boiler-9", device("boiler-9"), headers{"If-None-Match": "*"})

	for _, same := range []string{tag, "W/" + tag, `"0", ` + tag, "*"} {
		r := p.want(304, "GET", path, "", headers{"If-None-Match": same})
		if r.text != "" || r.Header.Get("ETag") != tag {
			t.Errorf("304 for %s: %q, ETag %s", same, r.text, r.Header.Get("ETag"))
		}
	}
	p.want(200, "GET", path, "", headers{"If-None-Match": `"0"`})
	p.want(200, "PATCH", path, patch(2), headers{"If-Match": `"0", ` + tag})
	p.want(412, "PATCH", path, patch(3), headers{"If-Match": bare})
	p.want(200, "PATCH", path, patch(3), headers{"If-Match": "*"})
	tag = p.want(200, "GET", path, "").Header.Get("ETag")
	p.want(200, "DELETE", path, "", headers{"If-Match": strings.Trim(tag, `"`)})
}

func TestLists(t *testing.T) {
	p := newPlant(t)
	r := p.want(200, "GET", "/api/v1/devices", "")
	if !strings.Contains(r.text, `"items":[]`) || r.json["kind"] != "DeviceList" || r.at("metadata", "continue") != "" {
		t.Errorf("empty list %s", r.text)
	}
	p.boilers("b-1", "b-2", "b-3")
	p.want(201, "POST", "/api/v1/devicemodels?namespace=plant", boilerModel)
	r = p.want(201, "POST", "/api/v1/devices?namespace=plant", device("p-1"))
	if r.Header.Get("Location") != "/api/v1/devices/p-1?namespace=plant" || r.at("metadata", "namespace") != "plant" {
		t.Errorf("Location %q of %s", r.Header.Get("Location"), r.text)
	}
	p.want(200, "PATCH", "/api/v1/devices/b-2", `{"metadata":{"labels":{"area":"hall-b"}}}`)

	names := func(r reply) (out []string) {
		items, _ := r.json["items"].([]any)
		for _, i := range items {
			out = append(out, fmt.Sprint(dig(i, "metadata", "name")))
		}
		return out
	}
	for _, c := range []struct {
		query string
		as    string
		want  []string
	}{
		{"", "viewer", []string{"b-1", "b-2", "b-3", "p-1"}},
		{"?namespace=*", "viewer", []string{"b-1", "b-2", "b-3", "p-1"}},
		{"?namespace=default", "viewer", []string{"b-1", "b-2", "b-3"}},
		{"", "plant-viewer", []string{"p-1"}}, // what the caller may see
		{"?namespace=plant", "plant-viewer", []string{"p-1"}},
		{"?namespace=nowhere", "viewer", nil},
		{"?labelSelector=area%3Dhall-b", "viewer", []string{"b-2"}},
		{"?labelSelector=area+notin+(hall-b),area&namespace=default", "viewer", []string{"b-1", "b-3"}},
	} {
		if got := names(p.want(200, "GET", "/api/v1/devices"+c.query, "", headers{"as": c.as})); !slices.Equal(got, c.want) {
			t.Errorf("%s as %s: %v, want %v", c.query, c.as, got, c.want)
		}
	}
	p.want(403, "GET", "/api/v1/devices?namespace=default", "", headers{"as": "plant-viewer"})
	p.want(403, "GET", "/api/v1/devices?namespace=*", "", headers{"as": "plant-viewer"})

	var paged []string
	next := ""
	for range 5 {
		r := p.want(200, "GET", "/api/v1/devices?limit=3&continue="+strings.ReplaceAll(next, "/", "%2F"), "")
		paged = append(paged, names(r)...)
		if next, _ = r.at("metadata", "continue").(string); next == "" {
			break
		}
	}
	if want := []string{"b-1", "b-2", "b-3", "p-1"}; !slices.Equal(paged, want) {
		t.Errorf("paged %v, want %v", paged, want)
	}
}

// TestRefusals checks what is refused, how, and that it changes nothing.
func TestRefusals(t *testing.T) {
	p := newPlant(t)
	p.boilers("boiler-1")
	version := func() any { return p.want(200, "GET", "/api/v1/devices", "").at("metadata", "resourceVersion") }
	before := version()
	spec := `"spec":{"model":"boiler"}`
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		pointer                  string // "-" for none asked
	}{
		{"not JSON", "POST", "/devices", `{"metadata":`, 400, "-"},
		{"not an object", "POST", "/devices", `[1,2]`, 400, "-"},
		{"empty", "POST", "/devices", ``, 400, "-"},
		{"two documents", "POST", "/devices", "kind: Device\n---\nkind: Device\n", 400, "-"},
		{"a key twice", "POST", "/devices", `{"kind":"Device","kind":"Device"}`, 400, "-"},
		{"misspelt", "POST", "/devices", `{"metadata":{"name":"x"},"spec":{"modle":"boiler"}}`, 422, "/spec/modle"},
		{"wrong type", "POST", "/devices", `{"metadata":{"name":"x"},"spec":{"model":7}}`, 422, "/spec/model"},
		{"no name", "POST", "/devices", `{"metadata":{},` + spec + `}`, 422, "/metadata/name"},
		{"bad name", "POST", "/devices", `{"metadata":{"name":"Boiler_1"},` + spec + `}`, 422, "/metadata/name"},
		{"other kind", "POST", "/devices", `{"kind":"Node","metadata":{"name":"x"}}`, 422, "/kind"},
		{"other version", "POST", "/devices", `{"apiVersion":"v7","metadata":{"name":"x"},` + spec + `}`, 422, "/apiVersion"},
		{"no such model", "POST", "/devices", `{"metadata":{"name":"x"},"spec":{"model":"nix"}}`, 422, "/spec/model"},
		{"two namespaces", "POST", "/devices?namespace=plant", `{"metadata":{"name":"x","namespace":"default"},` + spec + `}`, 422, "/metadata/namespace"},
		{"two namespaces on PUT", "PUT", "/devices/x", `{"metadata":{"name":"x","namespace":"plant"},` + spec + `}`, 422, "/metadata/namespace"},
		{"two names", "PUT", "/devices/y", `{"metadata":{"name":"x"},` + spec + `}`, 422, "/metadata/name"},
		{"a patch renames", "PATCH", "/devices/boiler-1", `{"metadata":{"name":"x"}}`, 422, "/metadata/name"},
		{"a patch moves", "PATCH", "/devices/boiler-1", `{"metadata":{"namespace":"plant"}}`, 422, "/metadata/namespace"},
		{"a patch misspells", "PATCH", "/devices/boiler-1", `{"spec":{"lockd":true}}`, 422, "/spec/lockd"},
		{"a patch takes too much", "PATCH", "/devices/boiler-1", `{"spec":null}`, 422, "/spec/model"},
		{"a patch is a list", "PATCH", "/devices/boiler-1", `[]`, 400, "-"},
		{"a patch is nothing", "PATCH", "/devices/boiler-1", ``, 400, "-"},
		{"a patch of nothing", "PATCH", "/devices/nix", `[`, 400, "-"},
		{"namespace on a node", "POST", "/nodes", `{"metadata":{"name":"x","namespace":"default"},"spec":{}}`, 422, "/metadata/namespace"},
		{"pointer escapes", "POST", "/devices", `{"metadata":{"name":"x","labels":{"a/b/c":"d"}},` + spec + `}`, 422, "/metadata/labels/a~1b~1c"},
		{"bad selector", "GET", "/devices?labelSelector=a+in+(b", "", 400, "-"},
		{"bad limit", "GET", "/devices?limit=many", "", 400, "-"},
		{"negative limit", "GET", "/devices?limit=-1", "", 400, "-"},
		{"bad namespace", "GET", "/devices?namespace=UPPER", "", 400, "-"},
		{"bad continue", "GET", "/devices?continue=x", "", 400, "-"},
		{"bad watch", "GET", "/devices?watch=perhaps", "", 400, "-"},
		{"bad version", "GET", "/devices?watch=true&resourceVersion=x", "", 400, "-"},
		{"paged watch", "GET", "/devices?watch=true&limit=1", "", 400, "-"},
		{"misspelt parameter", "DELETE", "/devices/boiler-1?namspace=plant", "", 400, "-"},
		{"parameter twice", "GET", "/devices?namespace=a&namespace=b", "", 400, "-"},
		{"broken query", "GET", "/devices?a=%zz", "", 400, "-"},
		{"name of nothing", "GET", "/devices/", "", 404, "-"},
		{"escaped name", "GET", "/devices/a%2Fb", "", 404, "-"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := p.want(c.status, c.method, "/api/v1"+c.path, c.body)
			if c.pointer != "-" && !slices.Contains(r.pointers(), c.pointer) {
				t.Errorf("pointers %v, want %s: %s", r.pointers(), c.pointer, r.text)
			}
			if c.status == 422 && r.json["detail"] == nil {
				t.Errorf("no detail: %s", r.text)
			}
		})
	}
	if after := version(); after != before {
		t.Errorf("refused requests moved the version from %v to %v", before, after)
	}
	// An escape that means what it says is followed.
	p.want(200, "GET", "/api/v1/devices/boiler%2D1", "")
}

func TestYAML(t *testing.T) {
	p := newPlant(t)
	model := "kind: DeviceModel\nmetadata: {name: boiler}\nspec:\n  protocol: modbus\n  properties:\n" +
		"  - {name: mode, type: int, access: ReadWrite, enum: {0: \"off\", 1: heat}}\n  - {name: big, type: int, access: ReadWrite, maximum: 18446744073709551615}\n"
	for i, contentType := range []string{"application/yaml", "application/x-yaml", "text/yaml", "", "application/json"} {
		body := strings.Replace(model, "boiler", fmt.Sprintf("boiler-%d", i), 1)
		r := p.want(201, "POST", "/api/v1/devicemodels", body, headers{"Content-Type": contentType})
		if r.at("spec", "protocol") != "modbus" {
			t.Errorf("%s: %s", contentType, r.text)
		}
	}
	r := p.want(200, "PATCH", "/api/v1/devicemodels/boiler-0", "metadata:\n  annotations:\n    note: \"on\"\n    time: 12:30\n", headers{"Content-Type": "application/yaml"})
	if r.at("metadata", "annotations", "note") != "on" {
		t.Errorf("patched %s", r.text)
	}
	r = p.want(200, "GET", "/api/v1/devicemodels/boiler-0", "", headers{"Accept": "application/yaml"})
	if r.Header.Get("Content-Type") != "application/yaml" || !strings.HasPrefix(r.text, "apiVersion: whimbrel/v1\nkind: DeviceModel\n") ||
		!strings.Contains(r.text, "18446744073709551615") || !strings.Contains(r.text, `"0": "off"`) || !strings.Contains(r.text, `note: "on"`) || !strings.Contains(r.text, `time: "12:30"`) || strings.Contains(r.text, "!!") {
		t.Errorf("YAML:\n%s", r.text)
	}
	// What comes out as YAML goes in again.
	tag := r.Header.Get("ETag")
	if r = p.want(200, "PUT", "/api/v1/devicemodels/boiler-0", r.text); r.Header.Get("ETag") != tag {
		t.Errorf("sent back as YAML it became another object: %s", r.text)
	}
	for accept, want := range map[string]string{
		"*/*": "application/json", "application/json, application/yaml;q=0.5": "application/json", "text/yaml;q=0.9, application/json;q=0.1": "application/yaml",
	} {
		if got := p.want(200, "GET", "/api/v1/devicemodels", "", headers{"Accept": accept}).Header.Get("Content-Type"); got != want {
			t.Errorf("Accept %s gives %s", accept, got)
		}
	}
	p.want(404, "GET", "/api/v1/devicemodels/nix", "", headers{"Accept": "application/yaml"})
}

// TestRoles is the table of who may do what.
func TestRoles(t *testing.T) {
	p := newPlant(t)
	p.boilers("boiler-1")
	p.want(201, "POST", "/api/v1/devicemodels?namespace=plant", boilerModel)
	p.want(201, "POST", "/api/v1/devices?namespace=plant", device("boiler-1"))
	p.want(201, "POST", "/api/v1/nodes", `{"metadata":{"name":"gw1"},"spec":{}}`)

	const all = "viewer operator admin plant-viewer plant-operator plant-admin"
	plain, plantSpec := `{"metadata":{"labels":{"a":"b"}}}`, boilerModel
	for _, c := range []struct {
		method, path, body, may string
	}{
		{"GET", "/api/v1/devices", "", all},
		{"GET", "/api/v1/devices/boiler-1", "", "viewer operator admin"},
		{"GET", "/api/v1/devices/boiler-1?namespace=plant", "", all},
		{"GET", "/api/v1/devicemodels?namespace=plant", "", all},
		{"GET", "/api/v1/nodes", "", all},
		{"GET", "/api/v1/nodes/gw1", "", all},
		{"GET", "/api/v1/mappers", "", all},
		{"GET", "/api/v1/users", "", "admin"},
		{"GET", "/api/v1/users/viewer", "", "admin"},
		{"GET", "/api/v1/users?watch=true&resourceVersion=999999", "", "admin"},
		{"GET", "/api/v1/devices/boiler-1/twin", "", "viewer operator admin"},
		{"GET", "/api/v1/devices/boiler-1/twin?namespace=plant", "", all},
		{"GET", "/api/v1/devices/boiler-1/twin/desired?namespace=plant", "", all},
		{"PATCH", "/api/v1/devices/boiler-1/twin/desired", `{"setpoint":4}`, "operator admin"},
		{"PATCH", "/api/v1/devices/boiler-1/twin/desired?namespace=plant", `{"setpoint":4}`, "operator admin plant-operator plant-admin"},
		{"GET", "/api/v1/twins", "", all},
		{"GET", "/api/v1/twins?namespace=plant", "", all},
		{"GET", "/api/v1/twins?namespace=default", "", "viewer operator admin"},
		{"GET", "/api/v1/tokens", "", "admin"},
		{"POST", "/api/v1/tokens", `{"node":"gw7"}`, "admin"},
		{"DELETE", "/api/v1/tokens/nix", "", "admin"},
		{"PATCH", "/api/v1/devices/boiler-1", plain, "admin"},
		{"PATCH", "/api/v1/devices/boiler-1?namespace=plant", plain, "admin plant-admin"},
		{"PUT", "/api/v1/devicemodels/boiler?namespace=plant", plantSpec, "admin plant-admin"},
		{"POST", "/api/v1/devicemodels", `{"metadata":{"name":"boiler","namespace":"plant"},"spec":{"protocol":"modbus","properties":[{"name":"a","type":"int"}]}}`, "admin plant-admin"},
		{"POST", "/api/v1/devicemodels", boilerModel, "admin"},
		{"DELETE", "/api/v1/devices/nix?namespace=plant", "", "admin plant-admin"},
		{"DELETE", "/api/v1/devices/nix", "", "admin"},
		{"POST", "/api/v1/nodes", `{"metadata":{"name":"gw1"}}`, "admin"},
		{"PATCH", "/api/v1/nodes/gw1", plain, "admin"},
		{"DELETE", "/api/v1/nodes/nix", "", "admin"},
		{"DELETE", "/api/v1/mappers/nix", "", "admin"},
		{"PATCH", "/api/v1/users/viewer", plain, "admin"},
		{"GET", "/metrics", "", all},
		{"GET", "/openapi.json", "", all},
	} {
		for who := range strings.FieldsSeq(all) {
			r := p.do(c.method, c.path, c.body, headers{"as": who})
			allowed := slices.Contains(strings.Fields(c.may), who)
			if allowed != (r.StatusCode != 403) || r.StatusCode == 401 || r.StatusCode >= 500 {
				t.Errorf("%s %s as %s: %d %s, allowed should be %v", c.method, c.path, who, r.StatusCode, r.text, allowed)
			}
			if r.StatusCode == 403 && !strings.Contains(fmt.Sprint(r.json["detail"]), "the role ") {
				t.Errorf("403 does not name the role: %s", r.text)
			}
		}
		r := p.want(401, c.method, c.path, c.body, headers{"as": ""})
		if r.Header.Get("WWW-Authenticate") != `Bearer realm="whimbrel"` {
			t.Errorf("401 with WWW-Authenticate %q", r.Header.Get("WWW-Authenticate"))
		}
	}
	// A role counts from the next request on.
	if err := p.hub.Put(&models.User{TypeMeta: models.TypeMeta{APIVersion: models.APIVersion, Kind: "User"},
		Metadata: models.ObjectMeta{Name: "viewer"}, Spec: models.UserSpec{Role: models.Admin, Namespace: "*"}}); err != nil {
		t.Fatal(err)
	}
	p.want(200, "GET", "/api/v1/tokens", "", headers{"as": "viewer"})
}

func TestTokens(t *testing.T) {
	p := newPlant(t)
	r := p.want(201, "POST", "/api/v1/tokens", `{"node":"gw1","ttl":"1h"}`)
	if r.json["token"] == "" || r.json["expires"] == nil || !strings.Contains(fmt.Sprint(r.json["command"]), "whimbrel edge") {
		t.Errorf("join token %s", r.text)
	}
	r = p.want(201, "POST", "/api/v1/tokens", `{"user":"viewer"}`)
	if r.json["expires"] != nil || r.json["id"] == nil {
		t.Errorf("user token %s", r.text)
	}
	secret, id := fmt.Sprint(r.json["token"]), fmt.Sprint(r.json["id"])
	as := headers{"Authorization": "Bearer " + secret}
	p.want(200, "GET", "/api/v1/devices", "", as)
	list := p.want(200, "GET", "/api/v1/tokens", "")
	if !strings.Contains(list.text, id) || strings.Contains(list.text, secret) {
		t.Errorf("tokens %s", list.text)
	}
	p.want(204, "DELETE", "/api/v1/tokens/"+id, "")
	p.want(404, "DELETE", "/api/v1/tokens/"+id, "")
	p.want(401, "GET", "/api/v1/devices", "", as)
	p.want(404, "POST", "/api/v1/tokens", `{"user":"nobody"}`)

	for body, pointer := range map[string]string{
		`{}`: "", `{"node":"a","user":"b"}`: "/user", `{"node":"UP"}`: "/node", `{"user":"a b"}`: "/user",
		`{"node":"a","ttl":"0s"}`: "/ttl", `{"node":"a","ttl":"9000h"}`: "/ttl", `{"node":"a","ttl":5}`: "/ttl", `{"node":"a","tll":"1h"}`: "/tll",
	} {
		if r := p.want(422, "POST", "/api/v1/tokens", body); !slices.Contains(r.pointers(), pointer) {
			t.Errorf("%s: pointers %v, want %q", body, r.pointers(), pointer)
		}
	}
	p.want(400, "POST", "/api/v1/tokens", `{`)

	// A repeated request does not make a second token, and does not tell the first.
	key := headers{"Idempotency-Key": "t-1"}
	secret = fmt.Sprint(p.want(201, "POST", "/api/v1/tokens", `{"node":"gw2"}`, key).json["token"])
	if r := p.want(409, "POST", "/api/v1/tokens", `{"node":"gw2"}`, key); strings.Contains(r.text, secret) {
		t.Errorf("the secret was kept: %s", r.text)
	}
}
