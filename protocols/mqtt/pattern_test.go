package mqtt

import (
	"strings"
	"testing"
)

func TestPattern(t *testing.T) {
	o := Origin{Topic: "alarms/hall/7", Node: "gw-1", Device: "boiler-1", Property: "temperature"}
	for _, c := range []struct{ topic, filter, want string }{
		{"x", "alarms/#", "x"},
		{"site/{node}/{topic}", "alarms/#", "site/gw-1/alarms/hall/7"},
		{"erp/{#}", "alarms/#", "erp/hall/7"},
		{"erp/{#}", "alarms/+/#", "erp/7"},
		{"erp/{#}", "#", "erp/alarms/hall/7"},
		{"erp/{#}", "alarms/+/7", "erp/alarms/hall/7"},
		{"{device}.{property}", "", "boiler-1.temperature"},
		{"devices/{device}/desired", "", ""},
		{"{#}", "alarms/hall/7/#", ""}, // nothing is left: no topic
		{"a/+", "", ""},
		{"$SYS/x", "", ""},
		{"whimbrel", "", ""},
	} {
		got, err := Pattern{c.topic, c.filter}.Fill(o)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s of %s: %q, %v; want %q", c.topic, c.filter, got, err, c.want)
		}
	}
	for topic, good := range map[string]bool{"x": true, "a/{topic}/{#}/{node}": true, "a/{device}": false, "a/{Topic}": false, "a/{}": false, "a/{x{topic}": true, "a{/b}": true} {
		if err := (Pattern{Topic: topic, Filter: "alarms/#"}).Check("{topic}", "{#}", "{node}"); (err == nil) != good {
			t.Errorf("%s: %v", topic, err)
		} else if err != nil && !strings.Contains(err.Error(), "they have {topic}, {#}, {node}") {
			t.Error(err)
		}
	}
}
