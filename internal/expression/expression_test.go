package expression

import (
	"strings"
	"testing"
)

func TestCondition(t *testing.T) {
	for _, c := range []struct {
		source, payload string
		want            bool
		err             string
	}{
		{`payload.severity >= 3`, `{"severity": 3}`, true, ""},
		{`payload.severity >= 3`, `{"severity": 2.5}`, false, ""},
		{`payload.severity >= 3`, `{}`, false, "severity"},
		{`payload.severity >= 3`, `not json`, false, "severity"},
		{`payload?.severity != nil && payload.severity >= 3`, `not json`, false, ""},
		{`payload == nil`, `not json`, true, ""},
		{`topic startsWith "alarms/" && node == "gw-1"`, ``, true, ""},
		{`payload.id == 9007199254740993`, `{"id": 9007199254740993}`, true, ""},
		{`payload.id == 9007199254740993`, `{"id": 9007199254740992}`, false, ""},
		{`any(payload.values, # > 10)`, `{"values": [1, 11]}`, true, ""},
		{`device == "boiler-1" && property in ["temperature"]`, ``, true, ""},
		{`payload.name matches "^a+$"`, `{"name": "aaa"}`, true, ""},
		{`payload.ok`, `{"ok": "yes"}`, false, "bool"},
	} {
		t.Run(c.source+" "+c.payload, func(t *testing.T) {
			p, err := Condition(c.source)
			if err != nil {
				t.Fatal(err)
			}
			got, err := p.True(Message{Payload: []byte(c.payload), Topic: "alarms/x", Node: "gw-1", Device: "boiler-1", Property: "temperature"})
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Fatalf("error %v, want %q in it", err, c.err)
			}
			if got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestTransform(t *testing.T) {
	for _, c := range []struct{ source, payload, want, err string }{
		{`{"id": payload.id, "node": node}`, `{"id": 18446744073709551615}`, `{"id":18446744073709551615,"node":"gw-1"}`, ""},
		{`payload`, `{"a": [1, 2.5, null, "<b>"]}`, `{"a":[1,2.5,null,"<b>"]}`, ""},
		{`map(payload, # * 2)`, `[1, 2]`, `[2,4]`, ""},
		{`payload.a / 0`, `{"a": 1}`, ``, "no JSON"},
		{`"plain " + topic`, `x`, `"plain alarms/x"`, ""},
		{`replace(topic, "/", ".")`, ``, `"alarms.x"`, ""},
	} {
		t.Run(c.source, func(t *testing.T) {
			p, err := Transform(c.source)
			if err != nil {
				t.Fatal(err)
			}
			got, err := p.Value(Message{Payload: []byte(c.payload), Topic: "alarms/x", Node: "gw-1"})
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Fatalf("error %v, want %q in it", err, c.err)
			}
			if string(got) != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// What has no bound is refused before it is stored.
func TestRefused(t *testing.T) {
	for source, want := range map[string]string{
		``:                                        "is empty",
		`payload.a >`:                             "line 1, column",
		`1 + 1`:                                   "bool",
		`severity > 3`:                            "unknown name severity",
		`let a = topic; a == topic`:               "let is not allowed",
		`all(1..1000000, # > 0)`:                  "range",
		`any(payload, any(#, # > 0))`:             "loop inside a loop",
		`repeat(topic, 100000) == ""`:             "repeat is not allowed",
		`reduce(payload, #acc + #acc) == 1`:       "reduce is not allowed",
		`replace(topic, "a", topic) == ""`:        "must be a constant",
		`join(payload, topic) == ""`:              "must be a constant",
		`topic matches node`:                      "must be a constant",
		`now() > now()`:                           "now is not allowed",
		`exec("rm")`:                              "unknown",
		strings.Repeat("true || ", 1000) + "true": "bytes, at most",
		strings.Repeat("true||", 300) + "true":    "node",
	} {
		if _, err := Condition(source); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: error %v, want %q in it", source, err, want)
		}
	}
}

// A message that would make a bounded loop dear is refused for that message.
func TestLargePayload(t *testing.T) {
	p, err := Transform(`map(payload.list, upper(payload.text))`)
	if err != nil {
		t.Fatal(err)
	}
	payload := `{"text": "` + strings.Repeat("a", 100_000) + `", "list": [0` + strings.Repeat(",0", 5000) + `]}`
	if _, err := p.Value(Message{Payload: []byte(payload)}); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("error %v", err)
	}
}

func FuzzExpression(f *testing.F) {
	f.Add(`payload.severity >= 3`, `{"severity": 3}`)
	f.Add(`map(payload, {"a": #})`, `[1,2]`)
	f.Add(`filter(payload, # > 1)[0] ?? topic`, `[1,2]`)
	f.Fuzz(func(t *testing.T, source, payload string) {
		m := Message{Payload: []byte(payload), Topic: "a/b"}
		if p, err := Condition(source); err == nil {
			_, _ = p.True(m)
		}
		if p, err := Transform(source); err == nil {
			_, _ = p.Value(m)
		}
	})
}

func BenchmarkCondition(b *testing.B) {
	p, err := Condition(`payload.severity >= 3 && topic startsWith "alarms/"`)
	if err != nil {
		b.Fatal(err)
	}
	m := Message{Payload: []byte(`{"id": 17, "severity": 4, "text": "too hot"}`), Topic: "alarms/boiler-1"}
	for b.Loop() {
		if ok, err := p.True(m); err != nil || !ok {
			b.Fatal(ok, err)
		}
	}
}
