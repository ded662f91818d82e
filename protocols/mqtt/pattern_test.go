package mqtt

import "testing"

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
}
