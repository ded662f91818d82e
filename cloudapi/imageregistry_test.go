package cloudapi_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/whimbrel-edge/whimbrel/cloudapi"
	"github.com/whimbrel-edge/whimbrel/devicehub/images"
	"github.com/whimbrel-edge/whimbrel/internal/oci"
)

// shelf is a real store of images.
type shelf struct{ *images.Store }

func (s shelf) Prune(ctx context.Context, by string) (int, int64, error) {
	return s.Store.Prune(ctx, func(string, digest.Digest) bool { return false }, by)
}

func newRegistry(t testing.TB) *plant {
	t.Helper()
	store, err := images.Open(images.Config{Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return newPlant(t, func(c *cloudapi.Config) { c.Images = shelf{store} })
}

// registry sends a request as a user, with Basic authentication unless that is
// "bearer", and returns the answer and its body.
func (p *plant) registry(as, method, path string, body []byte, h ...string) (*http.Response, string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, bytes.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if as != "" {
		req.SetBasicAuth(as, p.tokens[as])
	}
	for i := 0; i < len(h); i += 2 {
		req.Header.Set(h[i], h[i+1])
	}
	resp, err := p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp, string(text)
}

func (p *plant) registryWants(status int, code, as, method, path string, body []byte, h ...string) *http.Response {
	p.t.Helper()
	resp, text := p.registry(as, method, path, body, h...)
	if resp.StatusCode != status || code != "" && !strings.Contains(text, `"code":"`+code+`"`) {
		p.t.Errorf("%s %s as %s: %s %s, want %d %s", method, path, as, resp.Status, text, status, code)
	}
	return resp
}

func TestRegistryAccess(t *testing.T) {
	p := newRegistry(t)
	resp := p.registryWants(401, "UNAUTHORIZED", "", "GET", "/v2/", nil)
	if got := resp.Header.Get("WWW-Authenticate"); got != `Basic realm="whimbrel"` {
		t.Errorf("challenge %q", got)
	}
	if got := resp.Header.Get("Docker-Distribution-Api-Version"); got != "registry/2.0" {
		t.Errorf("version %q", got)
	}
	p.registryWants(200, "", "viewer", "GET", "/v2/", nil)
	p.registryWants(200, "", "", "GET", "/v2/", nil, "Authorization", "Bearer "+p.tokens["viewer"])
	req, _ := http.NewRequestWithContext(t.Context(), "GET", p.url+"/v2/", nil)
	req.SetBasicAuth("admin", p.tokens["viewer"]) // another user's token
	if resp, err := p.client.Do(req); err != nil || resp.StatusCode != 401 {
		t.Errorf("%v %v", resp, err)
	} else {
		_ = resp.Body.Close()
	}
	const up = "/blobs/uploads/"
	for as, want := range map[string]map[string]int{
		"viewer":       {"app": 403, "plant/app": 403},
		"operator":     {"app": 403, "plant/app": 403},
		"plant-viewer": {"app": 403, "plant/app": 403},
		"plant-admin":  {"app": 403, "plant/app": 202, "plants/app": 403, "plant": 403, "other/plant/app": 403},
		"admin":        {"app": 202, "plant/app": 202},
	} {
		for repo, status := range want {
			p.registryWants(status, "", as, "POST", "/v2/"+repo+up, nil)
		}
	}
	p.pushImage("admin", "app", "1", "secret of all")
	p.pushImage("plant-admin", "plant/app", "1", "secret of the plant")
	p.registryWants(200, "", "viewer", "GET", "/v2/app/manifests/1", nil)
	p.registryWants(200, "", "viewer", "GET", "/v2/plant/app/manifests/1", nil)
	p.registryWants(200, "", "plant-viewer", "GET", "/v2/plant/app/manifests/1", nil)
	p.registryWants(403, "DENIED", "plant-viewer", "GET", "/v2/app/manifests/1", nil)
	// Nor by way of a mount.
	secret := digest.FromString("secret of all").String()
	for _, query := range []string{"?mount=" + secret + "&from=app", "?mount=" + secret} {
		p.registryWants(202, "", "plant-admin", "POST", "/v2/plant/app"+up+query, nil)
	}
	p.registryWants(201, "", "admin", "POST", "/v2/other"+up+"?mount="+secret+"&from=app", nil)
	if _, text := p.registry("plant-viewer", "GET", "/v2/_catalog", nil); text != `{"repositories":["plant/app"]}`+"\n" {
		t.Errorf("catalog %s", text)
	}
	if r := p.want(200, "GET", "/api/v1/images", "", headers{"as": "plant-viewer"}); strings.Count(r.text, `"repository"`) != 1 {
		t.Errorf("%s", r.text)
	}
	p.want(403, "POST", "/api/v1/images/prune", "", headers{"as": "plant-admin"})
	p.want(200, "POST", "/api/v1/images/prune", "")
}

// pushImage pushes an image of one layer, whole.
func (p *plant) pushImage(as, repo, tag, layer string) digest.Digest {
	p.t.Helper()
	part := func(text string) string {
		d := digest.FromString(text)
		p.registryWants(201, "", as, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+d.String(), []byte(text))
		return fmt.Sprintf(`{"mediaType":"x","digest":"%s","size":%d}`, d, len(text))
	}
	text := `{"schemaVersion":2,"config":` + part("config of "+layer) + `,"layers":[` + part(layer) + `]}`
	d := digest.FromString(text)
	resp := p.registryWants(201, "", as, "PUT", "/v2/"+repo+"/manifests/"+tag, []byte(text), "Content-Type", oci.OCIManifest)
	if resp.Header.Get("Docker-Content-Digest") != d.String() {
		p.t.Errorf("the manifest became %s", resp.Header.Get("Docker-Content-Digest"))
	}
	return d
}

func TestRegistryProtocol(t *testing.T) {
	p := newRegistry(t)
	const as = "admin"
	text := []byte(strings.Repeat("0123456789", 100))
	d := digest.FromBytes(text).String()
	resp := p.registryWants(202, "", as, "POST", "/v2/a/b/blobs/uploads/?expect="+d, nil)
	at := resp.Header.Get("Location")
	if resp.Header.Get("Upload-Offset") != "0" || resp.Header.Get("Range") != "0-0" || !strings.HasPrefix(at, "/v2/a/b/blobs/uploads/") {
		t.Errorf("%v", resp.Header)
	}
	resp = p.registryWants(202, "", as, "PATCH", at, text[:300], "Content-Range", "0-299")
	if resp.Header.Get("Range") != "0-299" {
		t.Errorf("%v", resp.Header)
	}
	resp = p.registryWants(416, "RANGE_INVALID", as, "PATCH", at, text[:300], "Content-Range", "0-299")
	if resp.Header.Get("Upload-Offset") != "300" {
		t.Errorf("%v", resp.Header)
	}
	p.registryWants(416, "", as, "PATCH", at, text[300:400], "Content-Range", "300-300")
	p.registryWants(416, "", as, "PATCH", at, text[300:400], "Content-Range", "x")
	p.registryWants(204, "", as, "GET", at, nil)
	if resp := p.registryWants(202, "", as, "POST", "/v2/a/b/blobs/uploads/?expect="+d, nil); resp.Header.Get("Location") != at || resp.Header.Get("Upload-Offset") != "300" {
		t.Errorf("the upload is not found again: %v", resp.Header)
	}
	p.registryWants(202, "", as, "PATCH", at, text[300:500]) // a stream, as docker sends it
	p.registryWants(400, "DIGEST_INVALID", as, "PUT", at, text[500:])
	resp = p.registryWants(201, "", as, "PUT", at+"?digest="+d, text[500:])
	blob := resp.Header.Get("Location")
	if blob != "/v2/a/b/blobs/"+d {
		t.Errorf("Location %s", blob)
	}
	p.registryWants(404, "BLOB_UPLOAD_UNKNOWN", as, "GET", at, nil)
	resp = p.registryWants(200, "", as, "HEAD", blob, nil)
	if resp.ContentLength != 1000 || resp.Header.Get("Docker-Content-Digest") != d {
		t.Errorf("%v", resp.Header)
	}
	if resp, got := p.registry(as, "GET", blob, nil, "Range", "bytes=10-19"); resp.StatusCode != 206 || got != "0123456789" {
		t.Errorf("%s %q", resp.Status, got)
	}
	wrong := digest.FromString("wrong").String()
	p.registryWants(400, "DIGEST_INVALID", as, "POST", "/v2/a/b/blobs/uploads/?digest="+wrong, text)
	p.registryWants(404, "BLOB_UNKNOWN", as, "GET", "/v2/a/b/blobs/"+wrong, nil)
	p.registryWants(400, "DIGEST_INVALID", as, "GET", "/v2/a/b/blobs/md5:1", nil)
	p.registryWants(404, "MANIFEST_UNKNOWN", as, "GET", "/v2/a/b/manifests/1", nil)
	p.registryWants(400, "MANIFEST_INVALID", as, "PUT", "/v2/a/b/manifests/1", []byte("{}"), "Content-Type", oci.OCIManifest)
	p.registryWants(413, "SIZE_INVALID", as, "PUT", "/v2/a/b/manifests/1", make([]byte, oci.MaxManifest+1), "Content-Type", oci.OCIManifest)
	p.registryWants(400, "NAME_INVALID", as, "GET", "/v2/A/manifests/1", nil)
	p.registryWants(400, "NAME_INVALID", as, "GET", "/v2/a/../../x/manifests/1", nil)
	p.registryWants(404, "NAME_UNKNOWN", as, "GET", "/v2/a/b/tags/list", nil)
	p.registryWants(404, "", as, "GET", "/v2/a/b/referrers/"+d, nil)
	p.registryWants(405, "", as, "POST", "/v2/a/b/manifests/1", nil)
	for _, tag := range []string{"1", "2", "3"} {
		p.pushImage(as, "a/b", tag, "layer")
	}
	if _, got := p.registry(as, "GET", "/v2/a/b/tags/list", nil); got != `{"name":"a/b","tags":["1","2","3"]}`+"\n" {
		t.Errorf("%s", got)
	}
	if resp, got := p.registry(as, "GET", "/v2/a/b/tags/list?n=1&last=1", nil); got != `{"name":"a/b","tags":["2"]}`+"\n" || resp.Header.Get("Link") != `</v2/a/b/tags/list?last=2&n=1>; rel="next"` {
		t.Errorf("%s %v", got, resp.Header)
	}
	m := p.pushImage(as, "a/b", "1", "layer")
	if resp, got := p.registry(as, "GET", "/v2/a/b/manifests/"+m.String(), nil); resp.Header.Get("Content-Type") != oci.OCIManifest || digest.FromString(got) != m {
		t.Errorf("%v %s", resp.Header, got)
	}
	if resp, got := p.registry(as, "HEAD", "/v2/a/b/manifests/1", nil); got != "" || resp.ContentLength < 100 {
		t.Errorf("%v %s", resp.Header, got)
	}
	p.registryWants(202, "", as, "DELETE", "/v2/a/b/manifests/1", nil)
	p.registryWants(404, "MANIFEST_UNKNOWN", as, "DELETE", "/v2/a/b/manifests/1", nil)
	p.registryWants(202, "", as, "DELETE", "/v2/a/b/manifests/"+m.String(), nil)
	p.registryWants(404, "", as, "GET", "/v2/a/b/manifests/3", nil)
	p.registryWants(202, "", as, "DELETE", blob, nil)
	resp = p.registryWants(202, "", as, "POST", "/v2/a/b/blobs/uploads/", nil)
	p.registryWants(204, "", as, "DELETE", resp.Header.Get("Location"), nil)
	p.registryWants(404, "", as, "GET", resp.Header.Get("Location"), nil)
}
