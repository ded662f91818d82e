package modbus_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/protocols/modbus"
	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
)

// python gives a Python that has pymodbus (Debian: python3-pymodbus), a Modbus
// implementation that shares nothing with ours. Without one the test is
// skipped, and fails where WHIMBREL_REQUIRE=1 says that it must run.
func python(t *testing.T) string {
	t.Helper()
	for _, p := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(p, "-c", "import pymodbus.payload").Run() == nil {
			return p
		}
	}
	if os.Getenv("WHIMBREL_REQUIRE") == "1" {
		t.Fatal("no python3 with pymodbus, and WHIMBREL_REQUIRE=1")
	}
	t.Skip("no python3 with pymodbus (Debian: apt-get install python3-pymodbus)")
	return ""
}

// job is one thing that pymodbus is asked to do.
type job struct {
	Unit     int    `json:"unit"`
	Table    string `json:"table,omitempty"`
	Register int    `json:"register"`
	Count    int    `json:"count,omitempty"`
	Encoding string `json:"encoding"`
	Order    string `json:"order,omitempty"`
	Write    any    `json:"write,omitempty"`
}

func ask(t *testing.T, python, addr string, jobs []job) []any {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	in, err := json.Marshal(jobs)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "testdata/pymodbus_peer.py", "ask", host, port)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("pymodbus: %v\n%s", err, stderr.String())
	}
	dec := json.NewDecoder(bytes.NewReader(out))
	dec.UseNumber()
	var results []any
	if err := dec.Decode(&results); err != nil || len(results) != len(jobs) {
		t.Fatalf("%d results to %d jobs, %v: %s", len(results), len(jobs), err, out)
	}
	return results
}

// TestPymodbusReadsSimulator: pymodbus understands every encoding in every
// order as it was meant, and its writes arrive.
func TestPymodbusReadsSimulator(t *testing.T) {
	py := python(t)
	values := []struct {
		encoding string
		value    any
	}{
		{"int16", -12345}, {"uint16", 54321}, {"int32", -123456789}, {"uint32", 4000000001},
		{"int64", int64(-1234567890123456789)}, {"uint64", uint64(math.MaxUint64 - 1)},
		{"float32", 123.25}, {"float64", -1.0 / 3},
	}
	unit := modbussim.Unit{Unit: 17, Name: "u"}
	var jobs []job
	var want []any
	register := uint16(0)
	next := func(count int) *uint16 {
		at := register
		register += uint16(count) + 1
		return &at
	}
	for _, table := range []string{"holding", "input"} {
		for _, v := range values {
			for _, order := range []string{"ABCD", "CDAB", "BADC", "DCBA"} {
				e, err := modbus.ParseEncoding(v.encoding)
				if err != nil {
					t.Fatal(err)
				}
				name := table + v.encoding + order
				at := next(e.Registers())
				unit.Points = append(unit.Points, modbussim.Point{Name: name, Table: table, Register: at, Encoding: v.encoding, Order: order, Value: v.value})
				jobs = append(jobs, job{Unit: 17, Table: table, Register: int(*at), Count: e.Registers(), Encoding: v.encoding, Order: order})
				want = append(want, v.value)
			}
		}
	}
	bits := []bool{true, false, true, true, false, false, true, false, true, true}
	for _, table := range []string{"coil", "discrete"} {
		for i, on := range bits {
			unit.Points = append(unit.Points, modbussim.Point{Name: fmt.Sprint(table, i), Table: table, Register: at(uint16(5 + i)), Value: on})
		}
		jobs = append(jobs, job{Unit: 17, Table: table, Register: 5, Count: len(bits), Encoding: "bool"})
		all := make([]any, len(bits))
		for i, on := range bits {
			all[i] = on
		}
		want = append(want, all)
	}
	text := next(5)
	unit.Points = append(unit.Points, modbussim.Point{Name: "text", Table: "holding", Register: text, Encoding: "string", Length: 5, Value: "Whimbrel"})
	jobs = append(jobs, job{Unit: 17, Table: "holding", Register: int(*text), Count: 5, Encoding: "string"})
	want = append(want, "Whimbrel\x00\x00")
	jobs = append(jobs, job{Unit: 17, Table: "holding", Register: 60000, Count: 1, Encoding: "uint16"})
	want = append(want, "exception 2")

	// Writes: pymodbus's encoders, our decoders.
	writes := len(jobs)
	input := func(encoding, order string, zero, value any) {
		e, err := modbus.ParseEncoding(encoding)
		if err != nil {
			t.Fatal(err)
		}
		p := modbussim.Point{Name: "w" + encoding + order, Table: "holding", Encoding: encoding, Order: order, Writable: true, Value: zero}
		if encoding == "string" {
			p.Length = 4
		}
		p.Register = next(e.Registers() + p.Length)
		if encoding == "bool" {
			p.Table, p.Order = "coil", ""
			p.Register = at(100)
		}
		unit.Points = append(unit.Points, p)
		jobs = append(jobs, job{Unit: 17, Register: int(*p.Register), Encoding: encoding, Order: order, Write: value})
		want = append(want, "written")
	}
	for _, order := range []string{"ABCD", "CDAB", "BADC", "DCBA"} {
		for _, v := range values[2:] {
			input(v.encoding, order, nil, v.value)
		}
	}
	input("string", "ABCD", nil, "Curlew")
	input("bool", "ABCD", nil, true)

	sim := modbussim.Start(t, modbussim.Config{Units: []modbussim.Unit{unit}})
	for i, got := range ask(t, py, sim.Addr(), jobs) {
		if !same(got, want[i]) {
			t.Errorf("%+v: pymodbus got %v, want %v", jobs[i], got, want[i])
		}
	}
	for _, j := range jobs[writes:] {
		got, err := sim.Get("u", "w"+j.Encoding+j.Order)
		if err != nil || !same(got, j.Write) {
			t.Errorf("%+v: the simulator holds %v, %v", j, got, err)
		}
	}
}

func at(register uint16) *uint16 { return &register }

// same compares what went through JSON with what it was before: integers by
// their digits, which must all be there.
func same(got, want any) bool {
	if n, ok := got.(json.Number); ok {
		if w, ok := want.(float64); ok {
			f, err := n.Float64()
			return err == nil && f == w
		}
		return n.String() == fmt.Sprint(want)
	}
	if _, ok := want.([]any); ok {
		return reflect.DeepEqual(got, want)
	}
	return fmt.Sprint(got) == fmt.Sprint(want)
}

// TestPymodbusServer: our line against pymodbus's server.
func TestPymodbusServer(t *testing.T) {
	cmd := exec.Command(python(t), "testdata/pymodbus_peer.py", "serve")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close() // ends it too, should this test be killed
		cmd.Process.Kill()
		cmd.Wait()
	})
	port, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	l := modbus.NewLine(modbus.LineConfig{Address: "127.0.0.1:" + strings.TrimSpace(port)})
	defer l.Close()
	ctx := t.Context()
	for unit, shift := range map[byte]uint16{1: 0, 2: 1000} {
		c := l.Client(unit, 5*time.Second)
		for name, n := range map[string]uint16{"one": 1, "many": 125} {
			got, err := c.ReadHolding(ctx, 40, n)
			if err != nil || len(got) != int(2*n) || binary.BigEndian.Uint16(got[2*n-2:]) != 40+n-1+shift {
				t.Errorf("unit %d, %s holding: % x, %v", unit, name, got, err)
			}
			got, err = c.ReadInput(ctx, 40, n)
			if err != nil || len(got) != int(2*n) || binary.BigEndian.Uint16(got[2*n-2:]) != 2*(40+n-1)+shift {
				t.Errorf("unit %d, %s input: % x, %v", unit, name, got, err)
			}
		}
		coils, err := c.ReadCoils(ctx, 3, 1997)
		discrete, derr := c.ReadDiscrete(ctx, 3, 1997)
		if err != nil || derr != nil {
			t.Fatal(err, derr)
		}
		for i := range 1997 {
			if modbus.Bit(coils, i) != ((i+3)%3 == 0) || modbus.Bit(discrete, i) != ((i+3)%2 == 0) {
				t.Fatalf("unit %d, bit %d: coil %v, discrete %v", unit, i+3, modbus.Bit(coils, i), modbus.Bit(discrete, i))
			}
		}
		regs := make([]byte, 2*modbus.MaxWriteRegisters)
		for i := range regs {
			regs[i] = byte(i) ^ unit
		}
		if err := c.WriteRegisters(ctx, 200, regs); err != nil {
			t.Error(err)
		}
		if got, err := c.ReadHolding(ctx, 200, modbus.MaxWriteRegisters); err != nil || !bytes.Equal(got, regs) {
			t.Errorf("registers read back % x, %v", got, err)
		}
		if err := c.WriteRegister(ctx, 400, []byte{0xbe, 0xef}); err != nil {
			t.Error(err)
		}
		if got, err := c.ReadHolding(ctx, 400, 1); err != nil || !bytes.Equal(got, []byte{0xbe, 0xef}) {
			t.Errorf("register reads back % x, %v", got, err)
		}
		pattern := []bool{true, true, false, true, false, false, false, true, true, false, true}
		if err := errors.Join(c.WriteCoils(ctx, 500, pattern), c.WriteCoil(ctx, 502, true)); err != nil {
			t.Error(err)
		}
		pattern[2] = true
		if got, err := c.ReadCoils(ctx, 500, 11); err != nil || !bytes.Equal(got, modbus.PackBits(pattern)) {
			t.Errorf("coils read back % x, %v", got, err)
		}
		var e *modbus.Exception
		if _, err := c.ReadHolding(ctx, 499, 10); !errors.As(err, &e) || e.Code != modbus.IllegalDataAddress {
			t.Errorf("beyond the end: %v", err)
		}
	}
	if s := l.Stats(); s.Dials != 1 || s.Exceptions != 2 || s.Errors() != 2 {
		t.Errorf("%+v", s)
	}
}
