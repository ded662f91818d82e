package cloudapi_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestServices sends requests to an app; internal/appproxy tests how they get there.
func TestServices(t *testing.T) {
	p := newPlant(t)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/half" {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Cache-Control", "max-age=5")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprint(w, r.RequestURI, " ", r.Host, " ", r.Header.Get("X-Whimbrel-User"))
	}))
	t.Cleanup(app.Close)
	p.hub.ServeService("default", "web", app.Listener.Addr().String())
	p.hub.ServeService("plant", "web", app.Listener.Addr().String())
	operator, viewer, admin := p.tokens["plant-operator"], p.tokens["viewer"], p.tokens["admin"]
	for _, c := range []struct {
		token, method, path string
		status              int
		say                 string
	}{
		{admin, "GET", "/api/v1/services/web/proxy", 418, "/ web.default admin"},
		{admin, "GET", "/api/v1/services/web/proxy/", 418, "/ web.default admin"},
		{admin, "PUT", "/api/v1/services/web:http/proxy/a//b%20c?x=%31&namespace=plant&y", 418, "/a//b%20c?x=%31&y web.plant admin"},
		{admin, "GET", "/api/v1/services/plant.web/proxy/a?namespace=mine", 418, "/a?namespace=mine web.plant admin"},
		{operator, "GET", "/api/v1/services/plant.web/proxy/", 418, "web.plant plant-operator"},
		{operator, "GET", "/api/v1/services/web/proxy/", 403, "needs the role operator in namespace default"},
		{viewer, "GET", "/api/v1/services/web/proxy/", 403, "operator"},
		{"nobodys", "GET", "/api/v1/services/web/proxy/", 401, ""},
		{admin, "GET", "/api/v1/nodes/n-9/services/web/proxy/", 404, "n-9"},
		{admin, "GET", "/api/v1/services/nix/proxy/", 404, "no service nix"},
		{admin, "GET", "/api/v1/services/web/proxy/?namespace=a&namespace=b", 400, "more than once"},
		{admin, "GET", "/api/v1/services/web/proxy/?namespace=A", 400, "namespace"},
		{admin, "GET", "/api/v1/services/web/proxy/%2e%2e/%2e%2e/users", 400, ". and .."},
		{admin, "GET", "/api/v1/services/web/proxyx", 404, "does not exist"},
	} {
		req, err := http.NewRequest(c.method, p.url+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+c.token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != c.status || !strings.Contains(string(text), c.say) {
			t.Errorf("%s: %d %s", c.path, res.StatusCode, text)
		}
		if app := res.Header.Get("X-Whimbrel-Answer") == "app"; app != (c.status == 418) || app != (res.Header.Get("Cache-Control") == "max-age=5") {
			t.Errorf("%s: %v", c.path, res.Header)
		}
	}
	req, _ := http.NewRequest("GET", p.url+"/api/v1/services/web/proxy/half", nil)
	req.Header.Set("Authorization", "Bearer "+admin)
	if res, err := http.DefaultClient.Do(req); err == nil {
		if text, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("half an answer looks whole: %s", text)
		}
		_ = res.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
}
