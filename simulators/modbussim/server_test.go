package modbussim

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/protocols/modbus"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func at(register uint16) *uint16 { return &register }

func client(t testing.TB, addr string, unit byte, timeout time.Duration) *modbus.Client {
	l := modbus.NewLine(modbus.LineConfig{Address: addr})
	t.Cleanup(func() { l.Close() })
	return l.Client(unit, timeout)
}

func wantCode(t *testing.T, err error, code modbus.Code) {
	t.Helper()
	var e *modbus.Exception
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("%v, want exception %d", err, code)
	}
}

func wantGet(t *testing.T, s *Server, unit, point string, want any) {
	t.Helper()
	if got, err := s.Get(unit, point); err != nil || got != want {
		t.Errorf("%s %s is %v (%T), %v; want %v", unit, point, got, got, err, want)
	}
}

// eventually waits for a condition with a deadline.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) { //sleep: between looks at a condition, with a deadline
		if time.Now().After(deadline) {
			t.Fatalf("not within 5s: %s", what)
		}
	}
}

func TestBoiler(t *testing.T) {
	sim := Start(t, "testdata/boiler.yaml")
	c := client(t, sim.Addr(), 1, time.Second)
	ctx := t.Context()

	got, err := c.ReadInput(ctx, 0, 2)
	if err != nil || !bytes.Equal(got, []byte{0, 215, 0, 215}) {
		t.Fatalf("temperature and room % x, %v", got, err)
	}
	got, err = c.ReadHolding(ctx, 100, 8)
	if v, _ := modbus.String.Decode(modbus.ABCD, got); err != nil || v.Text() != "WB-20" {
		t.Errorf("serial %v, %v", v, err)
	}

	// A write is seen by the signals before its answer is sent.
	regs := make([]byte, 4)
	if err := modbus.Float32.Encode(modbus.CDAB, regs, modbus.FloatValue(60.5)); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteRegisters(ctx, 10, regs); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteCoil(ctx, 0, true); err != nil {
		t.Fatal(err)
	}
	if got, err = c.ReadInput(ctx, 0, 1); err != nil || binary.BigEndian.Uint16(got) != 605 {
		t.Errorf("temperature % x, %v", got, err)
	}
	if got, err = c.ReadHolding(ctx, 10, 2); err != nil || !bytes.Equal(got, regs) {
		t.Errorf("setpoint reads back % x, %v", got, err)
	}
	wantGet(t, sim, "boiler", "setpoint", 60.5)
	wantGet(t, sim, "boiler", "temperature", 60.5)

	// The bits of a register: the read-only one keeps its own.
	if got, err = c.ReadHolding(ctx, 20, 1); err != nil || !bytes.Equal(got, []byte{0, 8}) {
		t.Errorf("bits % x, %v", got, err)
	}
	if err := c.WriteRegister(ctx, 20, []byte{0xff, 1}); err != nil {
		t.Fatal(err)
	}
	wantGet(t, sim, "boiler", "reset", true)
	wantGet(t, sim, "boiler", "alarm", true)

	if err := c.WriteRegisters(ctx, 1040, []byte{1, 2, 3, 4}); err != nil {
		t.Fatal(err)
	}
	if got, err = c.ReadHolding(ctx, 1040, 2); err != nil || !bytes.Equal(got, []byte{1, 2, 3, 4}) {
		t.Errorf("memory % x, %v", got, err)
	}

	var told []string
	for _, w := range sim.Writes() {
		if w.Unit != "boiler" || time.Since(w.Time) > time.Minute || len(w.Data) == 0 {
			t.Errorf("%+v", w)
		}
		told = append(told, fmt.Sprintf("%s=%v@%v%d/%d", w.Point, w.Value, w.Table, w.Register, w.Function))
	}
	if got, want := strings.Join(told, " "), "setpoint=60.5@holding10/16 running=true@coil0/5 reset=true@holding20/6 =<nil>@holding1040/16"; got != want {
		t.Errorf("writes %s\nwant   %s", got, want)
	}
	if n := sim.Requests("boiler"); n != 10 {
		t.Errorf("%d requests", n)
	}
}

func TestExceptions(t *testing.T) {
	sim := Start(t, "testdata/boiler.yaml")
	c := client(t, sim.Addr(), 1, time.Second)
	ctx := t.Context()
	_, err := c.ReadHolding(ctx, 12, 1)
	wantCode(t, err, modbus.IllegalDataAddress)
	_, err = c.ReadHolding(ctx, 11, 2) // the second is not there
	wantCode(t, err, modbus.IllegalDataAddress)
	_, err = c.ReadHolding(ctx, 1099, 2)
	wantCode(t, err, modbus.IllegalDataAddress)
	_, err = c.ReadDiscrete(ctx, 0, 1)
	wantCode(t, err, modbus.IllegalDataAddress)
	_, err = c.ReadCoils(ctx, 0, 2)
	wantCode(t, err, modbus.IllegalDataAddress)
	wantCode(t, c.WriteRegister(ctx, 100, []byte{0, 1}), modbus.IllegalDataAddress) // not writable
	hot := make([]byte, 4)
	if err := modbus.Float32.Encode(modbus.CDAB, hot, modbus.FloatValue(95.5)); err != nil {
		t.Fatal(err)
	}
	wantCode(t, c.WriteRegisters(ctx, 10, hot), modbus.IllegalDataValue)
	if err := modbus.Float32.Encode(modbus.CDAB, hot, modbus.FloatValue(nan())); err != nil {
		t.Fatal(err)
	}
	wantCode(t, c.WriteRegisters(ctx, 10, hot), modbus.IllegalDataValue)
	wantGet(t, sim, "boiler", "setpoint", 45.0)
	if len(sim.Writes()) != 0 {
		t.Errorf("refused writes are logged: %+v", sim.Writes())
	}
	_, err = client(t, sim.Addr(), 9, time.Second).ReadHolding(ctx, 0, 1)
	wantCode(t, err, modbus.GatewayTargetSilent)
	// What our own client never sends.
	wantCode(t, raw(t, sim.Addr(), []byte{0x2b, 0x0e, 1, 0}), modbus.IllegalFunction)
	wantCode(t, raw(t, sim.Addr(), []byte{3, 0, 0, 0, 126}), modbus.IllegalDataValue)
	wantCode(t, raw(t, sim.Addr(), []byte{3, 0, 0}), modbus.IllegalDataValue)
}

func nan() float64 { z := 0.0; return z / z }

// raw sends a PDU to unit 1 and gives its refusal.
func raw(t *testing.T, addr string, pdu []byte) error {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	b, err := modbus.Frame{Transaction: 7, Unit: 1, PDU: pdu}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	var buf [modbus.MaxFrame]byte
	f, err := modbus.ReadFrame(c, &buf)
	if err != nil {
		t.Fatal(err)
	}
	if f.Transaction != 7 || f.Unit != 1 || len(f.PDU) != 2 || f.PDU[0] != pdu[0]|0x80 {
		t.Fatalf("answer %+v", f)
	}
	return &modbus.Exception{Function: modbus.Function(pdu[0]), Code: modbus.Code(f.PDU[1])}
}

func twoUnits() Config {
	point := Point{Name: "x", Table: "holding", Register: at(0), Writable: true, Value: 5}
	other := point
	other.Signal = "x2"
	return Config{Units: []Unit{{Unit: 1, Name: "a", Points: []Point{point}}, {Unit: 2, Name: "b", Points: []Point{other}}}}
}

func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		fault Fault
		want  error // nil: answered
		code  modbus.Code
		done  bool // a write takes effect
	}{
		"silent":           {fault: Fault{Kind: Silent}, want: modbus.ErrTimeout},
		"silent executed":  {fault: Fault{Kind: Silent, Executed: true}, want: modbus.ErrTimeout, done: true},
		"slow":             {fault: Fault{Kind: Slow, Delay: 50 * time.Millisecond}, done: true},
		"too slow":         {fault: Fault{Kind: Slow, Delay: time.Minute}, want: modbus.ErrTimeout},
		"exception":        {fault: Fault{Kind: Refuse, Exception: modbus.DeviceBusy}, code: modbus.DeviceBusy},
		"failure":          {fault: Fault{Kind: Refuse}, code: modbus.DeviceFailure},
		"late answer":      {fault: Fault{Kind: WrongTransaction}, want: modbus.ErrTimeout, done: true},
		"truncated":        {fault: Fault{Kind: Truncated}, want: modbus.ErrTimeout, done: true},
		"reset":            {fault: Fault{Kind: Reset}, want: modbus.ErrNotConnected},
		"reset executed":   {fault: Fault{Kind: Reset, Executed: true}, want: modbus.ErrNotConnected, done: true},
		"garbage":          {fault: Fault{Kind: Garbage}, want: modbus.ErrProtocol},
		"duplicate":        {fault: Fault{Kind: Duplicate}, done: true},
		"only for reads":   {fault: Fault{Kind: Silent, On: "reads"}, done: true},
		"only for writes":  {fault: Fault{Kind: Silent, On: "writes"}, want: modbus.ErrTimeout},
		"hardly ever":      {fault: Fault{Kind: Silent, Probability: 1e-12}, done: true},
		"nearly every one": {fault: Fault{Kind: Silent, Probability: 0.999999999}, want: modbus.ErrTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim := Start(t, twoUnits())
			a := client(t, sim.Addr(), 1, 150*time.Millisecond)
			b := client(t, sim.Addr(), 2, time.Second)
			c.fault.Count = 1
			if err := sim.Inject("a", c.fault); err != nil {
				t.Fatal(err)
			}
			err := a.WriteRegister(t.Context(), 0, []byte{0, 9})
			switch {
			case c.code != 0:
				wantCode(t, err, c.code)
			case !errors.Is(err, c.want):
				t.Errorf("%v, want %v", err, c.want)
			}
			want := uint64(5)
			if c.done {
				want = 9
			}
			if c.fault.Kind != Slow || c.want == nil {
				wantGet(t, sim, "a", "x", want)
			}
			if got, err := b.ReadHolding(t.Context(), 0, 1); err != nil || got[1] != 5 {
				t.Errorf("the other unit: % x, %v", got, err)
			}
			sim.Clear("a")
			if _, err := a.ReadHolding(t.Context(), 0, 1); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

func TestFaultsOfAll(t *testing.T) {
	cfg := twoUnits()
	cfg.Faults = []Fault{{Kind: Refuse, Exception: modbus.DeviceBusy, Count: 2}}
	cfg.Units[0].Faults = []Fault{{Kind: Refuse, Exception: modbus.Acknowledge, Count: 1}}
	sim := Start(t, cfg)
	a, b := client(t, sim.Addr(), 1, time.Second), client(t, sim.Addr(), 2, time.Second)
	read := func(c *modbus.Client) error { _, err := c.ReadHolding(t.Context(), 0, 1); return err }
	wantCode(t, read(a), modbus.Acknowledge) // its own first
	wantCode(t, read(a), modbus.DeviceBusy)
	wantCode(t, read(b), modbus.DeviceBusy)
	if err := errors.Join(read(a), read(b)); err != nil {
		t.Errorf("the count is used up: %v", err)
	}
	if err := sim.Inject("", Fault{Kind: Refuse}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, read(b), modbus.DeviceFailure)
	sim.Clear("")
	if err := read(b); err != nil {
		t.Error(err)
	}
	for _, f := range []Fault{{}, {Kind: "broken"}, {Kind: Slow}, {Kind: Silent, Delay: 1}, {Kind: Garbage, Executed: true},
		{Kind: Silent, Exception: 1}, {Kind: Silent, Probability: 2}, {Kind: Silent, Count: -1}, {Kind: Silent, On: "all"}} {
		if sim.Inject("a", f) == nil {
			t.Errorf("%+v is accepted", f)
		}
	}
	if sim.Inject("c", Fault{Kind: Silent}) == nil {
		t.Error("a fault of no unit is accepted")
	}
}

func TestUnknownUnitIsSilent(t *testing.T) {
	sim := Start(t, twoUnits())
	if _, err := client(t, sim.Addr(), 3, 50*time.Millisecond).ReadHolding(t.Context(), 0, 1); !errors.Is(err, modbus.ErrTimeout) {
		t.Error(err)
	}
}

func TestUnplug(t *testing.T) {
	cfg := twoUnits()
	cfg.Units[1].Listen = "127.0.0.1:0"
	sim := Start(t, cfg)
	addr := sim.UnitAddr("b")
	if addr == sim.Addr() || sim.Addr() != sim.UnitAddr("a") || sim.UnitAddr("none") != "" {
		t.Fatalf("addresses %s and %s", sim.Addr(), addr)
	}
	a, b := client(t, sim.Addr(), 1, time.Second), client(t, addr, 2, time.Second)
	read := func(c *modbus.Client) error { _, err := c.ReadHolding(t.Context(), 0, 1); return err }
	for range 3 {
		if err := errors.Join(read(a), read(b)); err != nil {
			t.Fatal(err)
		}
		sim.Unplug("b")
		sim.Unplug("b") // twice is once
		if err := read(b); !errors.Is(err, modbus.ErrNotConnected) {
			t.Errorf("unplugged: %v", err)
		}
		if err := read(a); err != nil {
			t.Errorf("the other one: %v", err)
		}
		if err := sim.Plug("b"); err != nil {
			t.Fatal(err)
		}
	}
	if err := read(b); err != nil || sim.UnitAddr("b") != addr {
		t.Errorf("plugged: %v at %s", err, sim.UnitAddr("b"))
	}
	eventually(t, "two connections", func() bool { return sim.Connections() == 2 })
	sim.Unplug()
	if sim.Connections() != 0 {
		t.Errorf("%d connections without a cable", sim.Connections())
	}
	if err := read(a); !errors.Is(err, modbus.ErrNotConnected) {
		t.Errorf("all unplugged: %v", err)
	}
}

// TestUnplugWhileSlow: a slow answer does not hold the cable.
func TestUnplugWhileSlow(t *testing.T) {
	sim := Start(t, twoUnits())
	if err := sim.Inject("", Fault{Kind: Slow, Delay: time.Hour}); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	c := client(t, sim.Addr(), 1, 10*time.Second)
	go func() { _, err := c.ReadHolding(t.Context(), 0, 1); failed <- err }()
	eventually(t, "the request", func() bool { return sim.Requests("a") == 1 })
	sim.Unplug()
	if err := <-failed; !errors.Is(err, modbus.ErrNotConnected) {
		t.Error(err)
	}
}

func TestSetReleaseReset(t *testing.T) {
	sim := Start(t, "testdata/boiler.yaml")
	if err := errors.Join(sim.Set("boiler", "temperature", 99.9), sim.Set("boiler", "setpoint", 70), sim.Set("boiler", "running", true)); err != nil {
		t.Fatal(err)
	}
	wantGet(t, sim, "boiler", "temperature", 99.9)
	wantGet(t, sim, "boiler", "setpoint", 70.0)
	c := client(t, sim.Addr(), 1, time.Second)
	if got, err := c.ReadInput(t.Context(), 0, 1); err != nil || binary.BigEndian.Uint16(got) != 999 {
		t.Errorf("% x, %v", got, err)
	}
	if err := sim.Release("boiler", "temperature"); err != nil {
		t.Fatal(err)
	}
	wantGet(t, sim, "boiler", "temperature", 70.0)
	if err := sim.Set("boiler", "temperature", 1e6); err != nil {
		t.Fatal(err)
	}
	wantGet(t, sim, "boiler", "temperature", 3276.7) // the end of the range
	sim.Reset()
	wantGet(t, sim, "boiler", "setpoint", 45.0)
	wantGet(t, sim, "boiler", "running", false)
	wantGet(t, sim, "boiler", "temperature", 21.5)
	for _, err := range []error{sim.Set("boiler", "none", 1), sim.Set("none", "x", 1), sim.Set("boiler", "running", "yes"), sim.Release("a", "b")} {
		if err == nil {
			t.Error("accepted")
		}
	}
	if _, err := sim.Get("boiler", "none"); err == nil {
		t.Error("a point that is not there is read")
	}
}

func TestSignalsMove(t *testing.T) {
	sim := Start(t, Config{
		Tick:    5 * time.Millisecond,
		Signals: map[string]signal.Spec{"n": {Expr: "t * 1000"}},
		Units:   []Unit{{Unit: 1, Points: []Point{{Name: "n", Table: "input", Register: at(0), Encoding: "uint32"}}}},
	})
	v := func() uint64 { v, _ := sim.Get("unit-1", "n"); return v.(uint64) }
	first := v()
	eventually(t, "the signal moves by itself", func() bool { return v() > first })
}

// TestOneMoment: what a request reads was true at once. Two registers that the
// signals keep equal are read and written by many.
func TestOneMoment(t *testing.T) {
	points := []Point{{Name: "x", Table: "holding", Register: at(0), Encoding: "uint64", Writable: true}}
	for i := range uint16(20) {
		points = append(points, Point{Name: fmt.Sprint("copy", i), Table: "holding", Register: at(4 + 4*i), Encoding: "uint64", Signal: "x"})
	}
	sim := Start(t, Config{Tick: time.Millisecond, Units: []Unit{{Unit: 1, Points: points}}})
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for g := range byte(2) {
		c := client(t, sim.Addr(), 1, 5*time.Second)
		wg.Go(func() {
			for i := byte(0); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := c.WriteRegisters(t.Context(), 0, bytes.Repeat([]byte{i, g}, 4)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	c := client(t, sim.Addr(), 1, 5*time.Second)
	for range 500 {
		got, err := c.ReadHolding(t.Context(), 0, 84)
		if err != nil {
			t.Fatal(err)
		}
		for i := 8; i < len(got); i += 8 {
			if !bytes.Equal(got[i:i+8], got[:8]) {
				t.Fatalf("two moments in one answer: % x and % x", got[:8], got[i:i+8])
			}
		}
	}
	close(stop)
	wg.Wait()
}

// TestPipelined: several requests in one segment, and one in many, are each
// answered.
func TestPipelined(t *testing.T) {
	sim := Start(t, twoUnits())
	c, err := net.Dial("tcp", sim.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	var all []byte
	for i := range uint16(10) {
		all, _ = modbus.Frame{Transaction: i, Unit: 1, PDU: []byte{3, 0, 0, 0, 1}}.Append(all)
	}
	c.Write(all[:31])
	for _, b := range all[31:] {
		c.Write([]byte{b})
	}
	var buf [modbus.MaxFrame]byte
	for i := range uint16(10) {
		f, err := modbus.ReadFrame(c, &buf)
		if err != nil || f.Transaction != i || !bytes.Equal(f.PDU, []byte{3, 2, 0, 5}) {
			t.Fatalf("answer %d: %+v, %v", i, f, err)
		}
	}
	// What is no Modbus ends the connection, and nothing else.
	io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
	if _, err := modbus.ReadFrame(c, &buf); err == nil {
		t.Error("HTTP is answered")
	}
	if _, err := client(t, sim.Addr(), 1, time.Second).ReadHolding(t.Context(), 0, 1); err != nil {
		t.Error(err)
	}
}

func TestRunTwiceAndPortTaken(t *testing.T) {
	s, err := New(twoUnits())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		if err := s.Listen(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		if _, err := client(t, s.Addr(), 1, time.Second).ReadHolding(t.Context(), 0, 1); err != nil {
			t.Error(err)
		}
		cfg := twoUnits()
		cfg.Listen = s.Addr()
		other, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") {
			t.Errorf("two on one port: %v", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestWritesAreBounded(t *testing.T) {
	sim, err := New(twoUnits())
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint16(maxWrites + 50) {
		pdu := []byte{6, 0, 0, byte(i >> 8), byte(i)}
		if got := sim.answer(sim.byName["a"], pdu, nil); !bytes.Equal(got, pdu) {
			t.Fatalf("% x", got)
		}
	}
	w := sim.Writes()
	if len(w) > maxWrites || len(w) < maxWrites/2 || w[len(w)-1].Value != uint64(maxWrites+49) {
		t.Errorf("%d writes, the last %v", len(w), w[len(w)-1].Value)
	}
}

// TestBadFiles: each file's first line says what is told about it.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(text), "\n")
			cfg, err := Load(file)
			if err == nil {
				_, err = New(cfg)
			}
			want := strings.TrimPrefix(first, "# ")
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v\nwant …%s…", err, want)
			}
		})
	}
}

func TestBadConfigs(t *testing.T) {
	reg := at(0)
	base := Point{Name: "x", Table: "holding", Register: reg, Value: 1}
	with := func(f func(p *Point)) Point { p := base; f(&p); return p }
	low := 1.0
	for want, points := range map[string][]Point{
		"needs a name":                        {with(func(p *Point) { p.Name = "" })},
		"two points have this name":           {base, with(func(p *Point) { p.Register = at(5) })},
		"register is missing":                 {with(func(p *Point) { p.Register = nil })},
		"give one or the other":               {with(func(p *Point) { p.Reference = "40001" })},
		`table "register" is not one of`:      {with(func(p *Point) { p.Table = "register" })},
		`encoding "float" is not one of`:      {with(func(p *Point) { p.Encoding = "float" })},
		`order "abcd" is not one of`:          {with(func(p *Point) { p.Order = "abcd" })},
		"holding 1 is taken by x":             {with(func(p *Point) { p.Encoding = "uint32" }), with(func(p *Point) { p.Name = "y"; p.Register = at(1) })},
		"length goes with string":             {with(func(p *Point) { p.Length = 2 })},
		"one bit cannot hold int16":           {with(func(p *Point) { p.Table = "coil"; p.Encoding = "int16" })},
		"order is for registers":              {with(func(p *Point) { p.Table = "coil"; p.Order = "CDAB" })},
		"bit is for registers":                {with(func(p *Point) { b := 1; p.Table = "coil"; p.Bit = &b })},
		"bit 16 is not within":                {with(func(p *Point) { b := 16; p.Bit = &b })},
		"scale and offset are for numbers":    {with(func(p *Point) { p.Encoding = "bool"; p.Scale = 2 })},
		"nobody can write to table input":     {with(func(p *Point) { p.Table = "input"; p.Writable = true })},
		"minimum and maximum are for":         {with(func(p *Point) { p.Minimum = &low })},
		"ends beyond register 65535":          {with(func(p *Point) { p.Register = at(65535); p.Encoding = "int32" })},
		"there is no signal y":                {with(func(p *Point) { p.Value = nil; p.Signal = "y" })},
		"value and signal: give one":          {with(func(p *Point) { p.Signal = "s" })},
		"a writable point is an input":        {with(func(p *Point) { p.Writable = true; p.Signal = "s" })},
		"is declared by u.x already":          {with(func(p *Point) { p.Writable = true }), with(func(p *Point) { p.Writable = true; p.Name = "y"; p.Register = at(9); p.Signal = "x" })},
		"70000 as uint16: value does not fit": {with(func(p *Point) { p.Value = 70000 })},
		"hot cannot be shown as uint16":       {with(func(p *Point) { p.Value = "hot" })},
		"value 1 does not fit bool":           {with(func(p *Point) { p.Table = "coil"; p.Writable = true })},
		"12 bytes of text in 2 registers":     {with(func(p *Point) { p.Encoding = "string"; p.Length = 2; p.Value = "a long story" })},
	} {
		_, err := New(Config{Signals: map[string]signal.Spec{"s": {Constant: 1}}, Units: []Unit{{Unit: 1, Name: "u", Points: points}}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v\nwant …%s…", err, want)
		}
	}
	for want, cfg := range map[string]Config{
		"no units":              {},
		"unknownUnit is silent": {UnknownUnit: "loud", Units: []Unit{{Unit: 1}}},
		"tick 1µs is below":     {Tick: time.Microsecond, Units: []Unit{{Unit: 1}}},
		"two units have this":   {Units: []Unit{{Unit: 1, Name: "a"}, {Unit: 2, Name: "a"}}},
		"unit id 1 on":          {Units: []Unit{{Unit: 1, Name: "a"}, {Unit: 1, Name: "b"}}},
		"missing port":          {Listen: "localhost", Units: []Unit{{Unit: 1}}},
		"count 0 from register": {Units: []Unit{{Unit: 1, Memory: []Memory{{Table: "coil"}}}}},
		"fault \"bad\" is not":  {Faults: []Fault{{Kind: "bad"}}, Units: []Unit{{Unit: 1}}},
		"no checksum":           {Faults: []Fault{{Kind: WrongChecksum}}, Units: []Unit{{Unit: 1}}},
		"have no checksum":      {Units: []Unit{{Unit: 1, Faults: []Fault{{Kind: WrongChecksum}}}}},
		"is not host:port":      {Listen: "udp://127.0.0.1:0", Units: []Unit{{Unit: 1}}},
		"baud 9601":             {Listen: "rtu:///tmp/x?baud=9601", Units: []Unit{{Unit: 1}}},
		"baudrate is not one":   {Listen: "ascii://?baudrate=9600", Units: []Unit{{Unit: 1}}},
		"within 1 to 247":       {Listen: "rtu://", Units: []Unit{{Unit: 248}}},
		"id 0 is not within":    {Listen: "rtutcp://127.0.0.1:0", Units: []Unit{{Unit: 0}}},
		"with other settings":   {Listen: "rtu:///tmp/x", Units: []Unit{{Unit: 1}, {Unit: 2, Listen: "rtu:///tmp/x?baud=9600"}}},
		"is a rtu line already": {Listen: "rtu:///tmp/x", Units: []Unit{{Unit: 1}, {Unit: 2, Listen: "ascii:///tmp/x"}}},
		"pace goes with":        {Pace: true, Units: []Unit{{Unit: 1}}},
		"needs exactly one of":  {Signals: map[string]signal.Spec{"s": {}}, Units: []Unit{{Unit: 1}}},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v\nwant …%s…", err, want)
		}
	}
}

// failing stands in for a test that Start makes fail.
type failing struct {
	testing.TB
	said string
}

func (f *failing) Helper()                           {}
func (f *failing) Fatalf(format string, args ...any) { f.said = fmt.Sprintf(format, args...) }

func TestStartFails(t *testing.T) {
	f := &failing{}
	if Start(f, "testdata/none.yaml") != nil || !strings.Contains(f.said, "no such file") {
		t.Errorf("said %q", f.said)
	}
}

// FuzzAnswer: whatever a client sends, the answer is one that a client can
// read, and the simulator lives.
func FuzzAnswer(f *testing.F) {
	cfg, err := Load("testdata/boiler.yaml")
	if err != nil {
		f.Fatal(err)
	}
	sim, err := New(cfg)
	if err != nil {
		f.Fatal(err)
	}
	for _, pdu := range []string{"\x03\x00\x0a\x00\x02", "\x10\x00\x0a\x00\x02\x04\x00\x00\x42\x70", "\x05\x00\x00\xff\x00", "\x06\x00\x14\x00\x01",
		"\x0f\x00\x00\x00\x01\x01\x01", "\x10\x03\xe8\x00\x01\x02ab", "\x01\x00\x00\x00\x01", "\x2b"} {
		f.Add([]byte(pdu))
	}
	f.Fuzz(func(t *testing.T, pdu []byte) {
		if len(pdu) == 0 || len(pdu) > modbus.MaxPDU {
			return
		}
		got := sim.answer(sim.byName["boiler"], pdu, nil)
		if len(got) < 2 || len(got) > modbus.MaxPDU || got[0]&0x7f != pdu[0]&0x7f {
			t.Fatalf("% x is answered by % x", pdu, got)
		}
		if _, err := sim.Get("boiler", "setpoint"); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkRead100(b *testing.B) {
	sim := Start(b, Config{Units: []Unit{{Unit: 1, Memory: []Memory{{Table: "holding", Count: 100}}}}})
	c := client(b, sim.Addr(), 1, time.Second)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.ReadHolding(ctx, 0, 100); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}
