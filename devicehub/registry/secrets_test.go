package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/devicehub/store"
	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/models"
)

const marker = "correct-horse-battery-staple"

const secretText = `{kind: Secret, apiVersion: v1, metadata: {name: plc}, stringData: {password: ` + marker + `, other: x}}`

// needing is a device whose connection refers to a secret.
func needing(name, node, key string) string {
	return strings.Replace(deviceText(name, node), `connection: {url: "tcp://h:1"}`, `connection: {url: "tcp://h:1", passwordFrom: {secret: plc, key: `+key+`}}`, 1)
}

// secretPlant is a plant whose mapper takes secrets.
func secretPlant(t *testing.T, s store.Objects) *Registry {
	r := running(t, s)
	apply(t, r, strings.Replace(mapperText, "unit: {", `passwordFrom: {type: object}, unit: {`, 1))
	apply(t, r, modelText)
	return r
}

// stored is everything in a store, as text.
func stored(t *testing.T, s store.Objects) string {
	t.Helper()
	var b strings.Builder
	_, err := s.Load(t.Context(), func(o store.Object) error { _, err := fmt.Fprintf(&b, "%s\n", o.JSON); return err }, func(d store.Desired) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func leaks(text string) bool {
	return strings.Contains(text, marker) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(marker)))
}

func sealKey(t *testing.T, seeds ...byte) pki.SealKey {
	t.Helper()
	var text []byte
	for _, b := range seeds {
		text = append(text, base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32))+"\n"...)
	}
	key, err := pki.ParseSealKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestSecretsAreSealedAtRest(t *testing.T) {
	s := storetest.NewMemory()
	open := func(key pki.SealKey) (*Registry, error) {
		return Open(t.Context(), Config{Store: s, Key: key, Log: slog.New(slog.DiscardHandler)})
	}
	serve := func(key pki.SealKey, do func(*Registry)) {
		t.Helper()
		r, err := open(key)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		do(r)
		cancel()
		<-ended
	}
	password := func(r *Registry) string {
		o, err := r.Get(t.Context(), models.Key{Kind: "Secret", Namespace: "default", Name: "plc"})
		if err != nil {
			t.Fatal(err)
		}
		return string(o.(*models.Secret).Data["password"])
	}
	var version string
	serve(sealKey(t, 1), func(r *Registry) {
		version = apply(t, r, secretText).Meta().ResourceVersion
		if again := apply(t, r, secretText).Meta().ResourceVersion; again != version {
			t.Errorf("the same again has version %s instead of %s", again, version)
		}
	})
	text := stored(t, s)
	if leaks(text) || !strings.Contains(text, `"sealed"`) {
		t.Errorf("stored: %s", text)
	}
	audit, err := s.AuditPage(t.Context(), store.AuditQuery{}, 0, 100)
	if err != nil || leaks(fmt.Sprint(audit)) {
		t.Errorf("audit: %v, %v", audit, err)
	}
	if _, err := open(sealKey(t, 2)); !errors.Is(err, pki.ErrUnseal) {
		t.Errorf("another key: %v", err)
	}
	// A new first key takes over; the objects stay what they are.
	serve(sealKey(t, 2, 1), func(r *Registry) {
		if password(r) != marker {
			t.Error("another password")
		}
	})
	if stored(t, s) == text {
		t.Error("not sealed with the new key")
	}
	serve(sealKey(t, 2), func(r *Registry) {
		o, _ := r.Get(t.Context(), models.Key{Kind: "Secret", Namespace: "default", Name: "plc"})
		if password(r) != marker || o.Meta().ResourceVersion != version {
			t.Errorf("with the new key alone: version %s, was %s", o.Meta().ResourceVersion, version)
		}
		apply(t, r, strings.Replace(secretText, "other: x", "other: y", 1)) // changes are still possible
	})
	if _, err := open(sealKey(t, 1)); !errors.Is(err, pki.ErrUnseal) {
		t.Errorf("the old key: %v", err)
	}
	if leaks(stored(t, s)) {
		t.Error("stored in the clear")
	}
}

func TestSecretsGoOnlyWhereTheyAreNeeded(t *testing.T) {
	r := secretPlant(t, storetest.NewMemory())
	ref := Ref{Kind: "Secret", Namespace: "default", Name: "plc"}
	needs := func(node string) bool {
		_, item := r.Item(node, ref)
		listed := slices.ContainsFunc(r.Wanted(node), func(i Item) bool { return i.Kind == "Secret" })
		if listed != item {
			t.Errorf("%s: listed %v, to be had %v", node, listed, item)
		}
		return item
	}
	n1, n2 := r.Follow("n1"), r.Follow("n2")
	defer n1.Close()
	defer n2.Close()
	heard := func(f *Follower) bool { return slices.Contains(f.Take(), ref) }

	apply(t, r, needing("boiler-1", "n1", "password"))
	apply(t, r, deviceText("boiler-2", "n2"))
	if needs("n1") || !heard(n1) {
		t.Error("before the secret is there")
	}
	apply(t, r, secretText)
	if !needs("n1") || needs("n2") || !heard(n1) || heard(n2) {
		t.Error("when it has come")
	}
	if order := r.Wanted("n1"); order[0].Kind != "Secret" {
		t.Errorf("sent in the order %v", order)
	}
	apply(t, r, strings.Replace(secretText, "other: x", "other: y", 1))
	if !heard(n1) || heard(n2) {
		t.Error("when it has changed")
	}
	apply(t, r, needing("boiler-1", "n2", "password"))
	if needs("n1") || !needs("n2") || !heard(n1) || !heard(n2) {
		t.Error("when the device has moved")
	}
	apply(t, r, deviceText("boiler-1", "n2"))
	if needs("n2") || !heard(n2) {
		t.Error("when nobody refers to it any more")
	}
	// An app's pod needs it, too.
	pod := apply(t, r, `{kind: Pod, apiVersion: v1, metadata: {name: p}, spec: {nodeName: n2, containers: [{name: c, image: i, envFrom: [{secretRef: {name: plc}}]}]}}`)
	if !needs("n2") || !heard(n2) {
		t.Error("when a pod refers to it")
	}
	if _, err := r.Delete(t.Context(), models.KeyOf(pod), models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if needs("n2") || !heard(n2) {
		t.Error("when the pod is gone")
	}
	apply(t, r, needing("boiler-1", "n2", "password"))
	heard(n2)
	if _, err := r.Delete(t.Context(), models.Key(ref), models.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if needs("n2") || !heard(n2) {
		t.Error("when it is deleted")
	}
}

// A route's broker is reached by the nodes that hold the route.
func TestSecretsOfRoutes(t *testing.T) {
	r := secretPlant(t, storetest.NewMemory())
	ref := Ref{Kind: "Secret", Namespace: "default", Name: "plc"}
	needs := func(node string) bool { _, ok := r.Item(node, ref); return ok }
	n1 := r.Follow("n1")
	defer n1.Close()
	heard := func() bool { return slices.Contains(n1.Take(), ref) }
	route := func(field, more string) string {
		return `{apiVersion: whimbrel/v1, kind: Route, metadata: {name: out}, spec: {from: {mqtt: "a/#"` + more + `}, to: {broker: {url: "mqtts://h", topic: a, username: u, ` + field + `: {secret: plc, key: password}}}}}`
	}
	apply(t, r, secretText)
	if needs("n1") {
		t.Error("before a route refers to it")
	}
	for _, field := range []string{"passwordFrom", "caFrom"} {
		heard()
		apply(t, r, route(field, ""))
		if !needs("n1") || !needs("n2") || !heard() {
			t.Errorf("%s: when a route refers to it", field)
		}
		apply(t, r, route(field, ", nodeSelector: {site: elsewhere}"))
		if needs("n1") || !heard() {
			t.Errorf("%s: when the route is other nodes'", field)
		}
	}
	// What the hub itself uses does not leave it.
	apply(t, r, `{apiVersion: whimbrel/v1, kind: Route, metadata: {name: post}, spec: {from: {mqtt: a}, to: {http: {url: "http://h", headersFrom: {secret: plc}}}}}`)
	if needs("n1") {
		t.Error("headersFrom")
	}
}

func TestSecretCondition(t *testing.T) {
	r := secretPlant(t, storetest.NewMemory())
	r.SetStatuses(&fakeStatuses{})
	condition := func() string {
		o, err := r.Get(t.Context(), deviceKey("boiler-1"))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range o.(*models.Device).Status.Conditions {
			if c.Type == "SecretsAvailable" {
				return c.Status + " " + c.Reason + " " + c.Message
			}
		}
		return ""
	}
	apply(t, r, deviceText("boiler-1", "n1"))
	if got := condition(); got != "" {
		t.Errorf("a device without secrets: %s", got)
	}
	apply(t, r, needing("boiler-1", "n1", "pin"))
	if got := condition(); got != "False SecretNotFound passwordFrom refers to Secret plc, which is not there" {
		t.Error(got)
	}
	apply(t, r, secretText)
	if got := condition(); got != "False SecretKeyNotFound passwordFrom refers to key pin of Secret plc, which has no such key" {
		t.Error(got)
	}
	apply(t, r, needing("boiler-1", "n1", "password"))
	if got := condition(); got != "True SecretsFound " {
		t.Error(got)
	}
}
