package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/need"
)

// point is a value in a pymodbus device and a property of ours.
type point struct {
	Table    string `json:"table"`
	Register int    `json:"register"`
	Encoding string `json:"encoding,omitempty"`
	Order    string `json:"order,omitempty"`
	Length   int    `json:"length,omitempty"`
	Bit      *int   `json:"bit,omitempty"`
	Value    any    `json:"value,omitempty"`

	name, kind   string
	first, write string // JSON: what the device starts with, what is written
}

// pymodbusPoints is every encoding, those of several registers in all orders.
func pymodbusPoints() []point {
	var out []point
	register := 0
	add := func(p point, registers int) {
		p.Register = register
		register += registers + 1
		out = append(out, p)
	}
	for _, order := range []string{"ABCD", "CDAB", "BADC", "DCBA"} {
		for _, e := range []struct {
			encoding, kind, first, write string
			registers                    int
		}{
			{"int32", "int", "-2147483000", "-19088744", 2},
			{"uint32", "int", "4294967000", "305419896", 2},
			{"int64", "int", "-9223372036854775807", "-81985529216486896", 4},
			{"uint64", "int", "18446744073709551615", "81985529216486895", 4},
			{"float32", "float", "-1.5", "71.3125", 2},
			{"float64", "float", "-2.718281828459045", "3.141592653589793", 4},
		} {
			add(point{Table: "holding", Encoding: e.encoding, Order: order, name: e.encoding + "-" + order, kind: e.kind, first: e.first, write: e.write}, e.registers)
		}
	}
	add(point{Table: "holding", Encoding: "int16", name: "int16", kind: "int", first: "-32768", write: "-2"}, 1)
	add(point{Table: "holding", Encoding: "uint16", name: "uint16", kind: "int", first: "65535", write: "513"}, 1)
	add(point{Table: "holding", Encoding: "string", Length: 8, name: "string", kind: "string", first: `"Kessel 7"`, write: `"Pumpe"`}, 8)
	add(point{Table: "holding", Bit: new(0), name: "bit-0", kind: "bool", first: "true", write: "false"}, 0)
	out[len(out)-1].Register--
	register = out[len(out)-1].Register
	add(point{Table: "holding", Bit: new(15), name: "bit-15", kind: "bool", first: "false", write: "true"}, 1)
	add(point{Table: "coil", name: "coil", kind: "bool", first: "true", write: "false"}, 1)
	add(point{Table: "discrete", name: "discrete", kind: "bool", first: "true"}, 1)
	add(point{Table: "input", Encoding: "int16", name: "input", kind: "int", first: "-7"}, 1)
	// Bits have an address space of their own, in which pymodbus offers less.
	for i := range out {
		if out[i].Table == "coil" || out[i].Table == "discrete" {
			out[i].Register = 5
		}
	}
	return out
}

// pymodbusDevice is the device's process.
type pymodbusDevice struct {
	addr  string
	stdin io.WriteCloser
	out   *bufio.Reader
}

func startPymodbus(t testing.TB) *pymodbusDevice {
	t.Helper()
	cmd := exec.Command(need.PythonModule(t, "pymodbus", "python3-pymodbus"), "testdata/pymodbus_device.py")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()      // it ends with its input,
		_ = cmd.Process.Kill() // or at once
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("pymodbus said:\n%s", tail(complaints.String(), 2000))
		}
	})
	d := &pymodbusDevice{stdin: stdin, out: bufio.NewReader(stdout)}
	port, err := d.out.ReadString('\n')
	if err != nil {
		t.Fatalf("pymodbus said no port: %v\n%s", err, complaints.String())
	}
	d.addr = "127.0.0.1:" + strings.TrimSpace(port)
	return d
}

// ask puts and reads points.
func (d *pymodbusDevice) ask(t testing.TB, points []point) []json.RawMessage {
	t.Helper()
	text, err := json.Marshal(points)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.stdin.Write(append(text, '\n')); err != nil {
		t.Fatal(err)
	}
	line, err := d.out.ReadString('\n')
	if err != nil {
		t.Fatalf("pymodbus: %v", err)
	}
	var values []json.RawMessage
	if err := json.Unmarshal([]byte(line), &values); err != nil || len(values) != len(points) {
		t.Fatalf("pymodbus answered %s: %v", line, err)
	}
	return values
}

// TestPymodbus reads and writes every encoding of another maker's device
// through the whole system.
func TestPymodbus(t *testing.T) {
	t.Parallel()
	device := startPymodbus(t)
	points := pymodbusPoints()
	for i, p := range points {
		points[i].Value = json.RawMessage(p.first)
	}
	device.ask(t, points)

	h := newHub(t, "")
	newEdge(t, h, "gateway", h.link)
	var model strings.Builder
	model.WriteString("apiVersion: whimbrel/v1\nkind: DeviceModel\nmetadata: {name: everything}\nspec:\n  protocol: modbus\n  defaults: {every: 200ms}\n  properties:\n")
	for _, p := range points {
		access := "ReadWrite"
		if p.write == "" {
			access = "Read"
		}
		p.Value = nil
		address, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&model, "  - {name: %s, type: %s, access: %s, address: %s}\n", p.name, p.kind, access, address)
	}
	fmt.Fprintf(&model, "---\napiVersion: whimbrel/v1\nkind: Device\nmetadata: {name: other}\nspec: {model: everything, node: gateway, connection: {url: \"tcp://%s\", unit: 1}}\n", device.addr)
	h.apply(model.String())

	differing := func(d twinDoc, want func(point) string) error {
		for _, p := range points {
			if !sameJSON(d.value(p.name), want(p)) || d.quality(p.name) != "good" {
				return fmt.Errorf("%s is %s %s, want %s", p.name, d.value(p.name), d.quality(p.name), want(p))
			}
		}
		return nil
	}
	eventually(t, 20*time.Second, "what pymodbus holds is in the twin", func() error {
		d, err := h.twin(hubAPI, "other")
		if err != nil {
			return err
		}
		return differing(d, func(p point) string { return p.first })
	})

	patch := map[string]json.RawMessage{}
	for i, p := range points {
		points[i].Value = nil
		if p.write != "" {
			patch[p.name] = json.RawMessage(p.write)
		}
	}
	text, err := json.Marshal(patch)
	if err != nil {
		t.Fatal(err)
	}
	h.want(t, 200, "PATCH", hubAPI+"/devices/other/twin/desired?wait=20s", string(text))
	after := func(p point) string {
		if p.write != "" {
			return p.write
		}
		return p.first
	}
	for i, held := range device.ask(t, points) {
		if p := points[i]; !sameJSON(string(held), after(p)) {
			t.Errorf("pymodbus holds %s at %s, want %s", held, p.name, after(p))
		}
	}
	eventually(t, 10*time.Second, "what was written is in the twin", func() error {
		d, err := h.twin(hubAPI, "other")
		if err != nil {
			return err
		}
		return differing(d, after)
	})
}

// sameJSON compares two scalars; integers digit by digit.
func sameJSON(a, b string) bool {
	if a == b {
		return true
	}
	var x, y float64
	if strings.ContainsAny(a+b, ".e") && json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil {
		return x == y
	}
	return false
}
