package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/whimbrel-edge/whimbrel/cloudapi/client"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func before(d time.Duration) *time.Time { return new(noon.Add(-d)) }

func boiler() *models.Device {
	return &models.Device{
		Metadata: models.ObjectMeta{Name: "boiler-1", Namespace: "plant", Labels: map[string]string{"area": "hall-a", "line": "2"}, CreationTimestamp: before(26 * time.Hour)},
		Spec:     models.DeviceSpec{Model: "boiler", Node: "gateway-1", Connection: json.RawMessage(`{"url":"tcp://192.0.2.17:502","unit":1}`)},
		Status: &models.DeviceStatus{State: models.StateDegraded, LastSeen: before(2 * time.Second),
			Conditions: []models.Condition{{Type: "Ready", Status: "False", Reason: "NodeNotFound"}}},
	}
}

func render(t *table, width int) string {
	var b bytes.Buffer
	t.write(&b, width, "")
	return b.String()
}

// Rows and layouts of every kind, and what becomes of them where there is
// less room.
func TestTables(t *testing.T) {
	devices := getFlags{output: output{format: "wide"}, all: true}
	info, _ := models.KindByName("Device")
	wide := objectTable(ref{info: info})
	wide.row(objectRow(boiler(), noon)...)
	locked := boiler()
	locked.Metadata.Name, locked.Status, locked.Spec.Locked, locked.Spec.Node = "boiler-22", nil, true, ""
	wide.row(objectRow(locked, noon)...)
	devices.trim(wide, ref{info: info})

	node := &models.Node{Metadata: models.ObjectMeta{Name: "gateway-1", CreationTimestamp: before(90 * 24 * time.Hour)}, Status: &models.NodeStatus{
		Conditions: []models.Condition{{Type: "Ready", Status: "True"}}, LastSeen: before(0), CertificateExpires: new(noon.Add(50 * time.Hour)),
		NodeInfo: models.NodeInfo{Version: "1.2.0", OS: "linux", Architecture: "arm64", Address: "192.0.2.9"},
		Outbox:   &models.OutboxState{Records: 12, Dropped: 3}}}
	nodeInfo, _ := models.KindByName("Node")
	nodes := objectTable(ref{info: nodeInfo})
	nodes.row(objectRow(node, noon)...)
	(&getFlags{output: output{format: "wide"}}).trim(nodes, ref{info: nodeInfo})

	tokens := objectTable(ref{tokens: true})
	tokens.row(tokenRow(client.TokenInfo{ID: "01J9", Kind: "join", Node: "gateway-2", Created: noon.Add(-time.Hour), Expires: new(noon.Add(-time.Minute))}, noon)...)
	tokens.row(tokenRow(client.TokenInfo{ID: "01JA", Kind: "user", User: "ann", Created: noon}, noon)...)

	doc := twin.Document{Device: "boiler-1", State: models.StateOnline, LastSeen: before(time.Second), Version: 812, DesiredVersion: 4, Properties: map[string]twin.PropertyDoc{
		"temperature": {Unit: "°C", Reported: &twin.ReportedDoc{Value: models.Float(71.5), Time: before(time.Second)}},
		"setpoint": {Unit: "°C", Reported: &twin.ReportedDoc{Value: models.Float(45), Time: before(200 * time.Second), Quality: models.Bad, Reason: models.ReasonNotConnected},
			Desired: &twin.DesiredDoc{Value: models.Float(45.5)}, Write: &twin.WriteDoc{State: twin.Failed, Error: "exception 3: illegal data value at register 10"}},
		"mode": {},
	}}
	values := twinTable(doc, []string{"temperature", "setpoint", "mode"}, noon)

	var b strings.Builder
	for _, one := range []struct {
		name  string
		table *table
		width int
	}{
		{"devices, wide, all namespaces", wide, 0}, {"devices, 100 columns", wide, 100}, {"devices, 40 columns", wide, 40},
		{"nodes, wide", nodes, 0}, {"tokens", tokens, 0}, {"twin", values, 0}, {"twin, 80 columns", values, 80},
	} {
		text := render(one.table, one.width)
		for l := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(l, "\n")); one.width > 0 && n > one.width {
				t.Errorf("%s: a line has %d columns: %q", one.name, n, l)
			}
		}
		b.WriteString("== " + one.name + "\n" + text)
	}
	golden(t, "testdata/tables.golden", b.String())
}

func TestDescribeReadPlan(t *testing.T) {
	var b bytes.Buffer
	d := description{w: &b, now: noon}
	d.field("Name", "%s", "boiler\x1b[2J")
	d.conditions([]models.Condition{{Type: "Ready", Status: "False", Reason: "NodeNotFound", Message: "there is no node gateway-1", LastTransitionTime: *before(time.Hour)}})
	d.plan(&models.ReadPlan{RequestsPerCycle: 3, Groups: []models.ReadGroup{
		{Every: models.Duration(time.Second), Points: 6, Requests: []models.ReadRequest{{Text: "input 0-3 (4 registers)", Points: 4}, {Text: "holding 10-19 (10 registers)", Points: 2, Unused: 5}}},
		{Every: models.Duration(10 * time.Second), Points: 1, Requests: []models.ReadRequest{{Text: "coil 0", Points: 1}}}}})
	golden(t, "testdata/describe.golden", b.String())
}

func TestStream(t *testing.T) {
	var b bytes.Buffer
	t.Setenv("COLUMNS", "")
	tab := &table{titles: []string{"NAME!", "VALUE"}}
	tab.row("a", "1")
	s := startStream(&b, tab)
	s.row("longer", "22")
	s.row("b", "3")
	want := "NAME   VALUE\na      1\nlonger   22\nb        3\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

// golden compares a text with a file. UPDATE=1 writes the file.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if os.Getenv("UPDATE") == "1" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got; UPDATE=1 writes it):\n%s", path, d)
	}
}
