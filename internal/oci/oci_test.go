package oci

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/models"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestReference(t *testing.T) {
	for in, want := range map[string]string{
		"app":                                " app latest",
		"app:1":                              " app 1",
		"docker.io/library/app:1":            " app 1",
		"docker.io/example/app":              " example/app latest",
		"example/anomaly:1":                  " example/anomaly 1",
		"127.0.0.1:8080/app:1":               "127.0.0.1:8080 app 1",
		"hub.example.com/plant-a/app:v2":     "hub.example.com plant-a/app v2",
		"localhost/app":                      "localhost app latest",
		"app@" + someDigest:                  " app " + someDigest,
		"ghcr.io/a/b:1.2.3@" + someDigest:    "ghcr.io a/b " + someDigest,
		"registry.local:5000/a.b/c__d-e_f:x": "registry.local:5000 a.b/c__d-e_f x",
	} {
		r, err := ParseReference(in)
		if got := r.Host + " " + r.Repository + " " + r.At(); err != nil || got != want {
			t.Errorf("%s: %q, want %q: %v", in, got, want, err)
		}
		again, err := ParseReference(r.String())
		if err != nil || again.String() != r.String() {
			t.Errorf("%s: %s is read as %s, %v", in, r, again, err)
		}
	}
	for _, in := range []string{"", "App", "a:b:c", "a@sha256:12", "../x", "a b", "x/../y", "a@sha512:" + strings.Repeat("0", 128)} {
		if r, err := ParseReference(in); err == nil || models.KindOf(err) != models.KindMalformed {
			t.Errorf("%q is %v, %v", in, r, err)
		}
	}
	for _, name := range []string{"", "A", "a//b", "/a", "a/", "a/../b", "_x", "a/_tags", "a..b", strings.Repeat("a", 256)} {
		if ValidRepository(name) {
			t.Errorf("%q is taken for a repository", name)
		}
	}
}

func TestManifest(t *testing.T) {
	part := `{"mediaType":"x","digest":"` + someDigest + `","size":3}`
	for _, c := range []struct{ name, mediaType, text, want string }{
		{"image", OCIManifest, `{"schemaVersion":2,"config":` + part + `,"layers":[` + part + `]}`, ""},
		{"the type is in it", "", `{"schemaVersion":2,"mediaType":"` + DockerManifest + `","config":` + part + `,"layers":[]}`, ""},
		{"index", DockerList + "; charset=utf-8", `{"schemaVersion":2,"manifests":[` + part + `]}`, ""},
		{"no JSON", OCIManifest, `{`, "no JSON"},
		{"old", "application/vnd.docker.distribution.manifest.v1+json", `{"schemaVersion":1}`, "schemaVersion is 1"},
		{"two types", OCIManifest, `{"schemaVersion":2,"mediaType":"` + DockerManifest + `","config":` + part + `}`, "came as"},
		{"no type", "", `{"schemaVersion":2,"config":` + part + `}`, "not known"},
		{"both", OCIManifest, `{"schemaVersion":2,"config":` + part + `,"manifests":[]}`, "no manifests"},
		{"an index with layers", OCIIndex, `{"schemaVersion":2,"layers":[` + part + `]}`, "no config or layers"},
		{"a path for a digest", OCIIndex, `{"schemaVersion":2,"manifests":[{"digest":"sha256:../../x","size":1}]}`, "SHA-256"},
		{"a size below nothing", OCIIndex, `{"schemaVersion":2,"manifests":[{"digest":"` + someDigest + `","size":-1}]}`, "-1 bytes"},
		{"too many", OCIIndex, `{"schemaVersion":2,"manifests":[` + strings.Repeat(part+",", maxParts) + part + `]}`, "parts"},
	} {
		m, err := ParseManifest(c.mediaType, []byte(c.text))
		switch {
		case c.want == "" && (err != nil || m.Size() < 0):
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestErrors(t *testing.T) {
	status, text := Document(Errorf(CodeBlobUnknown, "not here"))
	if status != 404 || string(text) != `{"errors":[{"code":"BLOB_UNKNOWN","message":"not here"}]}` {
		t.Errorf("%d %s", status, text)
	}
	var e *Error
	if err := ParseDocument(status, text); !errors.As(err, &e) || models.KindOf(err) != models.KindNotFound {
		t.Errorf("%v", err)
	}
	if status, text = Document(errors.New("the password is 1234")); status != 500 || strings.Contains(string(text), "1234") {
		t.Errorf("%d %s", status, text)
	}
	if status, _ = Document(models.Errorf(models.KindForbidden, "no")); status != 403 {
		t.Error(status)
	}
	if err := ParseDocument(502, []byte("<html>")); models.KindOf(err) != models.KindRefused {
		t.Error(err)
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add(OCIManifest, []byte(`{"schemaVersion":2,"config":{"digest":"`+someDigest+`","size":1},"layers":[]}`))
	f.Add(DockerList, []byte(`{"schemaVersion":2,"manifests":[{"digest":"`+someDigest+`","size":1}]}`))
	f.Fuzz(func(t *testing.T, mediaType string, text []byte) {
		m, err := ParseManifest(mediaType, text)
		if err != nil {
			return
		}
		for _, d := range m.parts() {
			if len(d.Digest.Encoded()) != 64 || strings.ContainsAny(d.Digest.Encoded(), "/.") {
				t.Errorf("%s could be a path", d.Digest)
			}
		}
		if !json.Valid(text) || m.Index() && m.Config != nil {
			t.Errorf("%+v", m)
		}
	})
}

func FuzzParseReference(f *testing.F) {
	f.Add("app:1")
	f.Add("127.0.0.1:8080/a/b@" + someDigest)
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err != nil {
			return
		}
		if again, err := ParseReference(r.String()); err != nil || again.At() != r.At() || again.Repository != r.Repository {
			t.Errorf("%q is %s, then %s: %v", s, r, again, err)
		}
	})
}
