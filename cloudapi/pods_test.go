package cloudapi_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/cloudapi"
	"github.com/whimbrel-edge/whimbrel/cloudapi/client"
	"github.com/whimbrel-edge/whimbrel/models"
)

func addPod(t *testing.T, p *plant, namespace, name string) {
	t.Helper()
	pod := &models.Pod{TypeMeta: models.TypeMeta{APIVersion: "v1", Kind: "Pod"}, Metadata: models.ObjectMeta{Name: name, Namespace: namespace},
		Spec: models.PodSpec{Containers: []models.Container{{Name: "main", Image: "x:1"}}}}
	if _, _, err := p.hub.Update(t.Context(), models.KeyOf(pod), models.WriteOptions{}, func(models.Object) (models.Object, error) { return pod, nil }); err != nil {
		t.Fatal(err)
	}
}

func (p *plant) as(t *testing.T, user string) *client.Client {
	t.Helper()
	c, err := client.New(p.url, p.tokens[user], "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestPodLog(t *testing.T) {
	p := newPlant(t)
	addPod(t, p, "default", "web-0")
	addPod(t, p, "plant", "web-0")
	p.hub.Say("default", "web-0", "one")
	p.hub.Say("default", "web-0", "two")
	for _, c := range []struct {
		user, path string
		status     int
		say        string
	}{
		{"admin", "/api/v1/pods/web-0/log", 200, "one\ntwo\n"},
		{"admin", "/api/v1/pods/web-0/log?tailLines=1&timestamps=true", 200, "2026-01-01T00:00:02Z two\n"},
		{"plant-operator", "/api/v1/pods/web-0/log?namespace=plant", 200, ""},
		{"plant-operator", "/api/v1/pods/web-0/log", 403, "needs the role operator in namespace default"},
		{"viewer", "/api/v1/pods/web-0/log", 403, "operator"},
		{"admin", "/api/v1/pods/web-1/log", 404, "web-1"},
		{"admin", "/api/v1/pods/web-0/log?container=side", 404, "it has: main"},
		{"admin", "/api/v1/pods/web-0/log?previous=true", 404, "no earlier life"},
		{"admin", "/api/v1/pods/web-0/log?tail=1", 400, "tailLines"},
		{"admin", "/api/v1/pods/web-0/log?tailLines=1&tailLines=2", 400, "2 times"},
		{"admin", "/api/v1/pods/web-0/log?sinceSeconds=x", 400, "sinceSeconds"},
		{"plant-operator", "/api/v1/pods/web-0/exec?namespace=plant&command=x", 403, "needs the role admin"},
		{"admin", "/api/v1/pods/web-0/exec?command=x", 400, "WebSocket"},
		{"admin", "/api/v1/pods/web-0/exec?command=x&env=A%3Db", 400, "env"},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", p.url+c.path, nil)
		req.Header.Set("Authorization", "Bearer "+p.tokens[c.user])
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != c.status || !strings.Contains(string(text), c.say) || c.status == 200 && (string(text) != c.say || res.Header.Get("Content-Type") != "text/plain; charset=utf-8") {
			t.Errorf("%s: %d %s", c.path, res.StatusCode, text)
		}
	}
	http.DefaultClient.CloseIdleConnections()

	body, err := p.as(t, "admin").PodLog(t.Context(), "default", "web-0", client.LogOptions{Follow: true, Tail: 0})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	p.hub.Say("default", "web-0", "three")
	line := make([]byte, 6)
	if _, err := io.ReadFull(body, line); err != nil || string(line) != "three\n" {
		t.Fatalf("%q, %v", line, err)
	}
	p.hub.CutPod("default", "web-0", true)
	if _, err := io.ReadAll(body); err == nil {
		t.Error("a log that breaks off looks whole")
	}
	if _, err := p.as(t, "admin").PodLog(t.Context(), "default", "web-0", client.LogOptions{Tail: -1}); models.KindOf(err) != models.KindUnavailable {
		t.Errorf("of an offline node: %v", err)
	}
}

func TestPodExec(t *testing.T) {
	p := newPlant(t, func(c *cloudapi.Config) { c.Heartbeat = 50 * time.Millisecond })
	addPod(t, p, "default", "web-0")
	admin := p.as(t, "admin")
	var out, errs bytes.Buffer
	code, err := admin.Exec(t.Context(), "default", "web-0", client.ExecOptions{Command: []string{"cat"}, Stdin: strings.NewReader("hello"), Stdout: &out, Stderr: &errs})
	if code != 0 || err != nil || out.String() != "hello" {
		t.Errorf("%q, exit %d, %v", out.String(), code, err)
	}
	code, err = admin.Exec(t.Context(), "default", "web-0", client.ExecOptions{Command: []string{"exit", "42"}, Stdout: &out, Stderr: &errs})
	if code != 42 || err != nil || errs.String() != "it exits\n" {
		t.Errorf("%q, exit %d, %v", errs.String(), code, err)
	}
	for _, c := range []struct {
		pod  string
		o    client.ExecOptions
		kind models.ErrorKind
	}{
		{"web-0", client.ExecOptions{Command: []string{"fail"}}, models.KindRefused},
		{"web-0", client.ExecOptions{Command: []string{"cat"}, Container: "side"}, models.KindNotFound},
		{"web-0", client.ExecOptions{}, models.KindMalformed},
		{"web-9", client.ExecOptions{Command: []string{"cat"}}, models.KindNotFound},
	} {
		c.o.Stdout, c.o.Stderr = io.Discard, io.Discard
		if _, err := admin.Exec(t.Context(), "default", c.pod, c.o); models.KindOf(err) != c.kind {
			t.Errorf("%s %v: %v, want %s", c.pod, c.o.Command, err, c.kind)
		}
	}
	// Who leaves, whose token is revoked and whose node is cut off end a command.
	await := func(what string) {
		t.Helper()
		deadline := time.Now().Add(10 * time.Second)
		for all := ""; !strings.Contains(all, what); all = strings.Join(p.hub.Commands(), "\n") {
			if time.Now().After(deadline) {
				t.Fatalf("nothing ended with %q:\n%s", what, all)
			}
			time.Sleep(10 * time.Millisecond) //sleep: the record comes after the answer
		}
	}
	await("admin: exit 42: 42 <nil>")
	for what, end := range map[string]func(cancel func()){
		"leave":  func(cancel func()) { cancel() },
		"cut":    func(func()) { p.hub.CutPod("default", "web-0", false) },
		"revoke": func(func()) { p.revoke(t, "second") },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		who := admin
		if what == "revoke" {
			token, err := p.hub.AddUser("second", models.Admin, "*")
			if err != nil {
				t.Fatal(err)
			}
			p.tokens["second"] = token
			who = p.as(t, "second")
		}
		began := make(chan struct{})
		_, err := who.Exec(ctx, "default", "web-0", client.ExecOptions{Command: []string{"sleep"}, Stderr: io.Discard, Stdout: writing(func() {
			close(began)
			end(cancel)
		})})
		want := map[string]models.ErrorKind{"leave": models.KindInternal, "cut": models.KindUnavailable, "revoke": models.KindUnauthorized}[what]
		if models.KindOf(err) != want || what == "leave" && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", what, err)
		}
		cancel()
		// Before the next: a cut must not reach whom it is not meant for.
		await(map[string]string{"leave": "admin: sleep: 0 the caller has left", "cut": "admin: sleep: 0 the connection to the node was lost",
			"revoke": "second: sleep: 0 the token is not known"}[what])
	}
}

type writing func()

func (w writing) Write(p []byte) (int, error) { w(); return len(p), nil }

// revoke deletes a user's tokens.
func (p *plant) revoke(t *testing.T, user string) {
	t.Helper()
	tokens, err := p.hub.Tokens(t.Context())
	if err != nil {
		t.Error(err)
	}
	for _, k := range tokens {
		if k.User == user {
			if err := p.hub.DeleteToken(t.Context(), k.ID, "test"); err != nil {
				t.Error(err)
			}
		}
	}
}
