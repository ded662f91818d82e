package cloudapi_test

import (
	"encoding/base64"
	"strings"
	"testing"
)

func TestSecrets(t *testing.T) {
	p := newPlant(t)
	const path = "/api/v1/secrets"
	const value = "correct-horse"
	encoded := base64.StdEncoding.EncodeToString([]byte(value))
	hides := func(what string, r reply) {
		t.Helper()
		if strings.Contains(r.text, value) || strings.Contains(r.text, encoded) {
			t.Errorf("%s shows the secret: %s", what, r.text)
		}
	}
	body := `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"plc"},"stringData":{"password":"` + value + `"}}`
	keyed := headers{"Idempotency-Key": "k"}
	r := p.want(201, "POST", path, body, keyed)
	hides("POST", r)
	if r.at("type") != "Opaque" {
		t.Errorf("made %s", r.text)
	}
	hides("a repeated POST", p.want(201, "POST", path, body, keyed))
	p.want(409, "POST", path, strings.Replace(body, value, "another", 1), keyed)
	list := p.want(200, "GET", path, "")
	hides("a list", list)
	if !strings.Contains(list.text, `"keys":["password"]`) {
		t.Errorf("listed %s", list.text)
	}
	one := p.want(200, "GET", path+"/plc", "")
	if one.at("data", "password") != encoded || strings.Contains(one.text, "stringData") {
		t.Errorf("GET %s", one.text)
	}
	// GET, then sent back as it is, changes nothing; what a list shows is refused.
	back := p.want(200, "PUT", path+"/plc", one.text)
	if back.Header.Get("ETag") != one.Header.Get("ETag") {
		t.Errorf("ETag %s instead of %s", back.Header.Get("ETag"), one.Header.Get("ETag"))
	}
	hides("PUT", back)
	p.want(422, "PUT", path+"/plc", `{"metadata":{"name":"plc"}}`)
	hides("PATCH", p.want(200, "PATCH", path+"/plc", `{"stringData":{"pin":"1234"}}`))
	if one = p.want(200, "GET", path+"/plc", ""); one.at("data", "password") != encoded || one.at("data", "pin") != "MTIzNA==" {
		t.Errorf("patched %s", one.text)
	}
	p.want(200, "PATCH", path+"/plc", `{"data":{"pin":null}}`)
	for _, wrong := range []string{`{"metadata":{"name":"x"},"data":{"a":"` + value + `"}}`, `{"metadata":{"name":"x"},"stringData":{"a":12345}}`,
		`{"metadata":{"name":"x"},"stringData":{"a b":"` + value + `"}}`, `{"metadata":{"name":"x"},"type":"kubernetes.io/tls","stringData":{"a":"` + value + `"}}`} {
		hides(wrong, p.want(422, "POST", path, wrong))
	}
	for _, role := range []string{"viewer", "operator"} {
		as := headers{"as": role}
		for _, c := range [][2]string{{"GET", path}, {"GET", path + "?watch=true"}, {"GET", path + "/plc"}, {"POST", path}, {"PUT", path + "/plc"}, {"PATCH", path + "/plc"}, {"DELETE", path + "/plc"}} {
			hides(role, p.want(403, c[0], c[1], body, as))
		}
	}
	hides("DELETE", p.want(200, "DELETE", path+"/plc", ""))
}
