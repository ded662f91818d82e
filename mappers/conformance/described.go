package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/schema"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
)

// This file is the requirements about what a driver says of itself, and what Open refuses.

func infoNames(t T, e *env) {
	info := e.Driver.Info()
	if models.CheckLabelName(info.Name) != "" || info.Version == "" {
		t.Errorf("name %q, version %q", info.Name, info.Version)
	}
}

func compile(t T, how func([]byte) (*schema.Schema, error), text []byte) *schema.Schema {
	t.Helper()
	s, err := how(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func schemasCompile(t T, e *env) {
	info := e.Driver.Info()
	for _, s := range []struct {
		name string
		text json.RawMessage
		how  func([]byte) (*schema.Schema, error)
	}{{"connection", info.Connection, schema.Compile}, {"address", info.Address, schema.Compile}, {"property", info.Property, schema.CompileProperty}} {
		if s.name == "property" && len(s.text) == 0 {
			continue
		}
		var head struct {
			Schema string `json:"$schema"`
		}
		if err := json.Unmarshal(s.text, &head); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if head.Schema != "https://json-schema.org/draft/2020-12/schema" {
			t.Errorf("%s: $schema is %q", s.name, head.Schema)
		}
		compile(t, s.how, s.text)
	}
}

func schemasFit(t T, e *env) {
	info := e.Driver.Info()
	connection, address := compile(t, schema.Compile, info.Connection), compile(t, schema.Compile, info.Address)
	check := func(s *schema.Schema, text json.RawMessage) {
		for _, f := range s.Check(text, "") {
			t.Errorf("%s: %v", text, f)
		}
		var doc map[string]json.RawMessage
		if err := json.Unmarshal(text, &doc); err != nil {
			t.Fatal(err)
		}
		doc["noSuchField"] = json.RawMessage("true")
		more, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Check(more, "")) == 0 {
			t.Errorf("%s with an unknown field is accepted", text)
		}
	}
	check(connection, e.Connection)
	for _, p := range e.Points {
		check(address, p.Address)
	}
	if len(info.Property) == 0 {
		return
	}
	property := compile(t, schema.CompileProperty, info.Property)
	for _, p := range e.points() {
		doc := fmt.Appendf(nil, `{"name": %q, "type": %q, "access": %q, "address": %s}`, p.Property, p.Type, p.Access, p.Address)
		for _, f := range property.Check(doc, "") {
			t.Errorf("property %s: %v", p.Property, f)
		}
		for _, c := range property.CheckAgainst(doc, e.Connection) {
			t.Errorf("property %s with the connection %s: %v", p.Property, e.Connection, c.Property)
		}
	}
}

// refusal checks that err is a models.Error with a field at, or below, at.
func refusal(t T, err error, at string) {
	t.Helper()
	var e *models.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v: does not say what is wrong where (a *models.Error in Go, a state message with errors from a process)", err)
	}
	if !slices.ContainsFunc(e.Fields, func(f models.FieldError) bool { return f.Pointer == at || strings.HasPrefix(f.Pointer, at+"/") }) {
		t.Errorf("%v points to nothing under %s", err, at)
	}
}

func openRefusesAddress(t T, e *env) {
	points := e.points()
	points[len(points)-1].Address = e.BadAddress
	dev, err := e.Driver.Open(e.config(e.Connection, points))
	if err == nil {
		dev.Close()
		t.Fatalf("%s was accepted", e.BadAddress)
	}
	refusal(t, err, "/spec/properties/"+points[len(points)-1].Property+"/address")
}

func openRefusesConnection(t T, e *env) {
	var fields map[string]any
	if err := json.Unmarshal(e.Connection, &fields); err != nil {
		t.Fatal(err)
	}
	fields["noSuchField"] = true
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := e.Driver.Open(e.config(text, e.points()))
	if err == nil {
		dev.Close()
		t.Fatal("it was accepted")
	}
	refusal(t, err, "/spec/connection/noSuchField")
}

func openIsQuiet(t T, e *env) {
	e.Unplug()
	began := time.Now()
	dev := e.opened(t)
	within := e.OpenWithin
	if within == 0 {
		within = 100 * time.Millisecond
	}
	if took := time.Since(began); took > within {
		t.Errorf("open took %v", took)
	}
	e.Plug()
	e.waitGood(t, dev)
}

func plans(t T, e *env) {
	dev := e.opened(t)
	if planner, ok := dev.(mappers.Planner); ok {
		covered := 0
		for _, r := range planner.Plan(upTo(len(e.Points))) {
			if r.Text == "" {
				t.Error("a request without text")
			}
			covered += r.Points
		}
		if covered != len(e.Points) {
			t.Errorf("the plan covers %d of %d points", covered, len(e.Points))
		}
		if got := planner.Plan(nil); len(got) != 0 {
			t.Errorf("nothing takes %d requests", len(got))
		}
	}
	if sharer, ok := dev.(mappers.LineSharer); ok {
		again := e.opened(t).(mappers.LineSharer)
		if sharer.Line() != again.Line() {
			t.Errorf("one connection is two lines, %q and %q", sharer.Line(), again.Line())
		}
	}
}
