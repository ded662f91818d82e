package models

import (
	"strings"
	"testing"
)

func TestRoute(t *testing.T) {
	for _, c := range []struct {
		name, spec string
		want       []string // parts of the problems, none: accepted
	}{
		{"edge to http", `from: {mqtt: "alarms/#", nodeSelector: {site: north}}, when: 'payload.severity >= 3', to: {http: {url: "https://erp.example/alarms", headersFrom: {secret: erp}}}, delivery: {ttl: 1h, retries: 5}`, nil},
		{"rest to mqtt", `from: {rest: true}, to: {mqtt: {topic: "recipes/new", nodeSelector: {site: north}}}`, nil},
		{"twin to http", `from: {twin: {labelSelector: "area=hall-a", properties: [temperature]}}, to: {http: {url: "http://10.0.0.9/x"}}`, nil},
		{"twin, matchLabels", `from: {twin: {labelSelector: {matchLabels: {area: hall-a}}}}, to: {mqtt: {topic: x}}`, nil},
		{"mqtt to service", `from: {mqtt: "images/+"}, to: {service: {name: detector, path: /detect}}`, nil},
		{"bridge out", `from: {mqtt: "alarms/#"}, to: {broker: {url: "mqtts://broker.example", topic: "site/{node}/{topic}", username: u, passwordFrom: {secret: s, key: k}}}`, nil},
		{"bridge in", `from: {broker: {url: "mqtt://broker.example:1883", topic: "orders/#"}}, to: {mqtt: {topic: "erp/{#}"}}`, nil},

		{"no source", `from: {}, to: {mqtt: {topic: x}}`, []string{"/spec/from: must have exactly one of mqtt, rest, twin, broker, has 0"}},
		{"two sources", `from: {mqtt: a, rest: true}, to: {mqtt: {topic: x}}`, []string{"/spec/from: must have exactly one of mqtt, rest, twin, broker, has 2"}},
		{"no target", `from: {rest: true}, to: {}`, []string{"/spec/to: must have exactly one"}},
		{"misspelt", `from: {mqqt: a}, to: {mqtt: {topic: x}}`, []string{"/spec/from/mqqt"}},
		{"scheme", `from: {rest: true}, to: {http: {url: "ftp://x/y"}}`, []string{"/spec/to/http/url: must be http://HOST"}},
		{"password in the url", `from: {rest: true}, to: {http: {url: "https://u:p@x/y"}}`, []string{"/spec/to/http/url: must not hold a name and password"}},
		{"method", `from: {rest: true}, to: {http: {url: "https://x/y", method: GET}}`, []string{"/spec/to/http/method"}},
		{"header smuggling", `from: {rest: true}, to: {http: {url: "https://x/y", headers: {X-A: "b\r\nHost: c"}}}`, []string{"/spec/to/http/headers/X-A: X-A has a value with control characters"}},
		{"own header", `from: {rest: true}, to: {http: {url: "https://x/y", headers: {Idempotency-Key: b}}}`, []string{"set by Whimbrel itself"}},
		{"selector", `from: {twin: {labelSelector: "a in (b"}}, to: {mqtt: {topic: x}}`, []string{"/spec/from/twin/labelSelector"}},
		{"selector's expressions", `from: {twin: {labelSelector: {matchLabels: {a: b}, matchExpressions: []}}}, to: {mqtt: {topic: x}}`, []string{"/spec/from/twin/labelSelector: has more than matchLabels"}},
		{"path", `from: {rest: true}, to: {service: {name: a, path: "http://evil/x"}}`, []string{"/spec/to/service/path"}},
		{"certificate without TLS", `from: {mqtt: a}, to: {broker: {url: "mqtt://b", topic: b, certificateFrom: {secret: s, key: k}}}`, []string{"/spec/to/broker/certificateFrom: is for mqtts://"}},
		{"certificate of no key", `from: {mqtt: a}, to: {broker: {url: "mqtts://b", topic: b, certificateFrom: {secret: s}}}`, []string{"/spec/to/broker/certificateFrom/key: is required"}},
		{"broker to broker", `from: {broker: {url: "mqtt://a", topic: a}}, to: {broker: {url: "mqtt://b", topic: b}}`, []string{"/spec/to/broker: cannot be the target"}},
		{"password without a name", `from: {mqtt: a}, to: {broker: {url: "mqtt://b", topic: b, passwordFrom: {secret: s, key: k}}}`, []string{"/spec/to/broker/passwordFrom: needs username"}},
		{"qos", `from: {rest: true}, to: {mqtt: {topic: x, qos: 3}}`, []string{"/spec/to/mqtt/qos: must be 0, 1 or 2, got 3"}},
		{"no time at all", `from: {rest: true}, to: {http: {url: "https://x/y", timeout: 0s}}, delivery: {ttl: 0s}`, []string{"/spec/delivery/ttl: must be between 1s and 720h0m0s, got 0s", "/spec/to/http/timeout: must be between 10ms"}},
		{"host that is a number", `from: {rest: true}, to: {http: {url: "http://2130706433/"}}`, []string{`/spec/to/http/url: must have a name or an address such as 192.0.2.1 as its host, got "2130706433"`}},
		{"host in octal", `from: {rest: true}, to: {http: {url: "http://0177.0.0.1/"}}`, []string{"/spec/to/http/url: must have a name or an address"}},
		{"host in hex", `from: {rest: true}, to: {http: {url: "https://0x7f000001./"}}`, []string{"/spec/to/http/url: must have a name or an address"}},
		{"host cut short", `from: {mqtt: a}, to: {broker: {url: "mqtt://127.1", topic: x}}`, []string{"/spec/to/broker/url: must have a name or an address"}},
		{"host in other digits", `from: {rest: true}, to: {http: {url: "http://①②⑦.0.0.1/"}}`, []string{"/spec/to/http/url: must have an ASCII host"}},
		{"names that begin with digits", `from: {rest: true}, to: {http: {url: "http://7th-floor:8080/"}}`, nil},
		{"address with a zone", `from: {rest: true}, to: {http: {url: "http://[fe80::1%25eth0]/"}}`, nil},
		{"port", `from: {rest: true}, to: {http: {url: "http://x:70000/"}}`, []string{`/spec/to/http/url: must have a port from 1 to 65535, got "70000"`}},
		{"service of another namespace", `from: {rest: true}, to: {service: {name: lab.web}}`, []string{"/spec/to/service/name", "of the route's own namespace"}},
		{"ttl", `from: {rest: true}, to: {mqtt: {topic: x}}, delivery: {ttl: 10ms, retries: 1000}`, []string{"/spec/delivery/ttl", "/spec/delivery/retries"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			doc := "apiVersion: whimbrel/v1\nkind: Route\nmetadata: {name: r}\nspec: {" + c.spec + "}\n"
			o, err := DecodeObject([]byte(doc))
			if len(c.want) == 0 {
				if err != nil {
					t.Fatal(err)
				}
				r := o.(*Route)
				if r.Spec.Delivery.TTL.Std() == 0 || r.Spec.Delivery.Retries == nil {
					t.Errorf("no defaults: %+v", r.Spec.Delivery)
				}
				if tw := r.Spec.From.Twin; tw != nil && tw.LabelSelector != "area=hall-a" {
					t.Errorf("selector %q", tw.LabelSelector)
				}
				return
			}
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want %q in it", err, want)
				}
			}
		})
	}
}
