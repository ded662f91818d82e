package modbussim

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/protocols/modbus"
	"github.com/whimbrel-edge/whimbrel/protocols/serial"
)

// lineTo makes a line to where a unit of a simulator listens.
func lineTo(t testing.TB, sim *Server, unit string) *modbus.Line {
	t.Helper()
	url := sim.URL(unit)
	cfg := modbus.LineConfig{}
	scheme, rest, _ := strings.Cut(url, "://")
	switch scheme {
	case "tcp":
		cfg.Address = rest
	case "rtutcp":
		cfg.Framing, cfg.Address = modbus.RTU, rest
	default:
		_, port, err := serial.ParseURL(url)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Serial, cfg.Framing = &port, modbus.RTU
		if scheme == "ascii" {
			cfg.Framing = modbus.ASCII
		}
	}
	l := modbus.NewLine(cfg)
	t.Cleanup(func() { l.Close() })
	return l
}

// onALine is two units on one line.
func onALine(listen string) Config {
	cfg := twoUnits()
	cfg.Listen = listen
	for i := range cfg.Units {
		cfg.Units[i].Listen = ""
		cfg.Units[i].Unit = byte(i + 1)
		cfg.Units[i].Memory = append(cfg.Units[i].Memory, Memory{Table: "holding", Register: 2000, Count: 125})
	}
	return cfg
}

var listens = []string{"rtu://?baud=115200", "ascii://?baud=115200&dataBits=8&parity=none", "rtutcp://127.0.0.1:0"}

func TestSerialLines(t *testing.T) {
	for _, listen := range listens {
		t.Run(listen[:5], func(t *testing.T) {
			cfg := onALine(listen)
			sim := Start(t, cfg)
			l := lineTo(t, sim, "a")
			ctx := t.Context()
			regs := make([]byte, 250)
			for i := range regs {
				regs[i] = byte(i)
			}
			for unit := byte(1); unit <= 2; unit++ {
				c := l.Client(unit, time.Second)
				if err := c.WriteRegisters(ctx, 2000, regs[:246]); err != nil {
					t.Fatal(err)
				}
				if err := c.WriteRegister(ctx, 2123, regs[246:248]); err != nil {
					t.Fatal(err)
				}
				if err := c.WriteRegister(ctx, 2124, regs[248:250]); err != nil {
					t.Fatal(err)
				}
				got, err := c.ReadHolding(ctx, 2000, 125)
				if err != nil || !bytes.Equal(got, regs) {
					t.Fatalf("% x, %v", got, err)
				}
				_, err = c.ReadHolding(ctx, 9000, 1)
				wantCode(t, err, modbus.IllegalDataAddress)
				if _, err := c.ReadCoils(ctx, 9000, 1); err == nil {
					t.Error("coils that are not there")
				}
			}
			// A broadcast reaches both; none answers.
			all := l.Client(0, time.Second)
			if err := all.WriteRegister(ctx, 2000, []byte{0xab, 0xcd}); err != nil {
				t.Fatal(err)
			}
			for unit := byte(1); unit <= 2; unit++ {
				got, err := l.Client(unit, time.Second).ReadHolding(ctx, 2000, 1)
				if err != nil || !bytes.Equal(got, []byte{0xab, 0xcd}) {
					t.Errorf("unit %d after the broadcast: % x, %v", unit, got, err)
				}
			}
			if _, err := all.ReadHolding(ctx, 2000, 1); err == nil || !modbus.Unsent(err) {
				t.Errorf("a broadcast read: %v", err)
			}
			if s := l.Stats(); s.Dials != 1 || s.Timeouts+s.Protocol+s.NotConnected != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestSerialFaults: every fault is noticed for what it is, and the next request
// is answered rightly.
func TestSerialFaults(t *testing.T) {
	for _, listen := range listens {
		for _, c := range []struct {
			fault Fault
			kind  error // nil: no error
		}{
			{Fault{Kind: Silent}, modbus.ErrTimeout},
			{Fault{Kind: Slow, Delay: 1400 * time.Millisecond}, modbus.ErrTimeout},
			{Fault{Kind: Slow, Delay: 20 * time.Millisecond}, nil},
			{Fault{Kind: WrongTransaction}, modbus.ErrTimeout},
			{Fault{Kind: WrongChecksum}, modbus.ErrProtocol},
			{Fault{Kind: Truncated}, modbus.ErrProtocol},
			{Fault{Kind: Garbage}, modbus.ErrProtocol},
			{Fault{Kind: Duplicate}, nil},
			{Fault{Kind: Reset}, modbus.ErrNotConnected},
		} {
			t.Run(listen[:5]+" "+c.fault.Kind+c.fault.Delay.String(), func(t *testing.T) {
				t.Parallel()
				cfg := onALine(listen)
				sim := Start(t, cfg)
				const name = "a"
				line := lineTo(t, sim, name)
				client, hasty := line.Client(1, 10*time.Second), line.Client(1, time.Second)
				if err := client.WriteRegisters(t.Context(), 2000, []byte{0, 1, 0, 2, 0, 3}); err != nil {
					t.Fatal(err)
				}
				c.fault.Count = 1
				if err := sim.Inject(name, c.fault); err != nil {
					t.Fatal(err)
				}
				asked := client
				if c.kind != nil { // a timeout, or as good as one
					asked = hasty
				}
				_, err := asked.ReadHolding(t.Context(), 2000, 1)
				if !errors.Is(err, c.kind) {
					t.Errorf("%v, want %v", err, c.kind)
				}
				// Others of the same length, so that a late answer would show.
				for i := range uint16(3) {
					deadline := time.Now().Add(30 * time.Second)
					got, err := client.ReadHolding(t.Context(), 2000+i, 1)
					for errors.Is(err, modbus.ErrNotConnected) && c.kind == modbus.ErrNotConnected && time.Now().Before(deadline) {
						got, err = client.ReadHolding(t.Context(), 2000+i, 1) // the line is coming back
					}
					if err != nil || got[1] != byte(i+1) {
						t.Errorf("register %d: % x, %v", i, got, err)
					}
				}
			})
		}
	}
}

// TestUnplugALine: a serial device that is gone and comes back under the same
// path, as often as you like.
func TestUnplugALine(t *testing.T) {
	for _, listen := range []string{"rtu:///" + filepath.Join(t.TempDir(), "ttyMeters")[1:] + "?baud=9600&parity=none", "ascii://"} {
		cfg := onALine(listen)
		sim := Start(t, cfg)
		path := sim.Addr()
		client := lineTo(t, sim, "a").Client(1, 200*time.Millisecond)
		for range 3 {
			eventually(t, "an answer", func() bool {
				_, err := client.ReadHolding(t.Context(), 2000, 1)
				return err == nil
			})
			sim.Unplug()
			if _, err := os.Lstat(path); err == nil {
				t.Error("unplugged, the path is still there")
			}
			if _, err := client.ReadHolding(t.Context(), 2000, 1); !errors.Is(err, modbus.ErrNotConnected) {
				t.Errorf("unplugged: %v", err)
			}
			if err := sim.Plug(); err != nil {
				t.Fatal(err)
			}
			if sim.Addr() != path {
				t.Errorf("%s became %s", path, sim.Addr())
			}
		}
	}
}

func TestALineLeavesNothingBehind(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	t.Run("", func(t *testing.T) {
		sim := Start(t, onALine("rtu://"))
		if !strings.HasPrefix(sim.Addr(), os.TempDir()) {
			t.Fatal(sim.Addr())
		}
		client := lineTo(t, sim, "a").Client(1, time.Second)
		if _, err := client.ReadHolding(t.Context(), 2000, 1); err != nil {
			t.Error(err)
		}
		sim.Unplug()
		if err := sim.Plug(); err != nil {
			t.Error(err)
		}
	})
	left, err := os.ReadDir(os.TempDir())
	if err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
	// What is not ours is not replaced.
	path := filepath.Join(t.TempDir(), "tty")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := New(onALine("rtu://" + path)); err != nil {
		t.Error(err)
	} else if err := s.Listen(); err == nil || !strings.Contains(err.Error(), "no symbolic link") {
		t.Error(err)
	}
}

// TestPace: a line takes as long as its characters.
func TestPace(t *testing.T) {
	cfg := onALine("rtu://?baud=2400&parity=none")
	cfg.Pace = true
	sim := Start(t, cfg)
	client := lineTo(t, sim, "a").Client(1, 10*time.Second)
	const reads = 3
	char := 10 * time.Second / 2400
	least := reads*33*char + (2*reads-1)*7*char/2
	var took time.Duration
	for range 5 { // a machine may be busy for a while
		began := time.Now()
		for range reads { // 8 characters and 25, with silence before and after
			if _, err := client.ReadHolding(t.Context(), 2000, 10); err != nil {
				t.Fatal(err)
			}
		}
		if took = time.Since(began); took < 2*least {
			break
		}
	}
	if took < least || took > 2*least {
		t.Errorf("took %v, the characters %v", took, least)
	}
}
