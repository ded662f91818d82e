package serialsim

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/protocols/serial"
	"github.com/whimbrel-edge/whimbrel/simulators/signal"
)

// client is somebody at the other end of the line.
type client struct {
	t    *testing.T
	port *serial.Port
	in   *bufio.Reader
}

func dial(t *testing.T, s *Server) *client {
	t.Helper()
	_, cfg, err := serial.ParseURL(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	port, err := serial.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Close() })
	return &client{t: t, port: port, in: bufio.NewReader(port)}
}

func (c *client) line(within time.Duration) (string, error) {
	_ = c.port.SetReadDeadline(time.Now().Add(within))
	line, err := c.in.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

// ask returns the first line that was not said unasked.
func (c *client) ask(text string) string {
	c.t.Helper()
	if _, err := c.port.Write([]byte(text + "\r\n")); err != nil {
		c.t.Fatal(err)
	}
	for {
		line, err := c.line(time.Second)
		if err != nil {
			c.t.Fatalf("%s: %v", text, err)
		}
		if !strings.HasPrefix(line, "S ") {
			return line
		}
	}
}

func TestScale(t *testing.T) {
	sim := Start(t, "testdata/scale.yaml")
	if err := sim.Set("weight", 12.5); err != nil {
		t.Fatal(err)
	}
	c := dial(t, sim)
	for _, ex := range [][2]string{
		{"W?", "W=12.50 kg"}, {"LIM?", "LIM=25"}, {"LIM 10.5", "OK 10.5"}, {"LIM 31", "ERR"}, {"LIM -", "ERR"}, {"LIM?", "LIM=10.5"},
		{"HEAVY?", "1 10 010.50"}, {"LAMP 1", "{lamp 1}"}, {"LABEL Süd", "Süd"}, {"W", "?"}, {"xW?x", "?"},
	} {
		if got := c.ask(ex[0]); got != ex[1] {
			t.Errorf("%s: %q, want %q", ex[0], got, ex[1])
		}
	}
	if got := fmt.Sprintf("%d %d %+v", len(sim.Requests()), len(sim.Writes()), sim.Writes()[0].Value); got != "11 3 10.5" {
		t.Error(got)
	}
	if v, err := sim.Get("lamp"); v != true || err != nil {
		t.Errorf("%v, %v", v, err)
	}
	sim.Reset()
	if got := c.ask("LIM?"); got != "LIM=25" {
		t.Error(got)
	}
	if err := sim.Release("weight"); err != nil {
		t.Error(err)
	}
	if err := sim.Set("height", 1); err == nil {
		t.Error("a signal that is not there")
	}
	if line, err := c.line(time.Second); err != nil || len(line) != len("S 0012.50") {
		t.Errorf("%q, %v", line, err)
	}
	if d := sim.Describe(); len(d) != 1 || !strings.Contains(d[0], sim.URL()) || !strings.HasSuffix(sim.URL(), "?baud=9600") {
		t.Errorf("%q", d)
	}
}

func TestFaults(t *testing.T) {
	cfg := Config{Checksum: serial.XOR, Inputs: map[string]any{"a": 1}, Commands: []Command{{Ask: `A\?`, Answer: "A={a}"}, {Ask: `A (\d)`, Set: "a", Answer: "OK"}}}
	framing := serial.Framing{Terminator: "\r\n", Checksum: serial.XOR}
	good := string(framing.Append(nil, []byte("A=1")))
	for _, f := range []struct {
		fault Fault
		ok    func(said string, err error) bool
	}{
		{Fault{Kind: Silent}, func(said string, err error) bool { return said == "" && errors.Is(err, os.ErrDeadlineExceeded) }},
		{Fault{Kind: Slow, Delay: 50 * time.Millisecond}, func(said string, err error) bool { return said+"\r\n" == good }},
		{Fault{Kind: Partial}, func(said string, err error) bool {
			return said != "" && strings.HasPrefix(good, said) && errors.Is(err, os.ErrDeadlineExceeded)
		}},
		{Fault{Kind: Garbage}, func(said string, err error) bool {
			return len(said)+2 == len(good) && err == nil && said+"\r\n" != good
		}},
		{Fault{Kind: WrongChecksum}, func(said string, err error) bool {
			_, wrong := framing.Text([]byte(said))
			return err == nil && errors.Is(wrong, serial.ErrChecksum)
		}},
		{Fault{Kind: HangUp}, func(said string, err error) bool { return said == "" && errors.Is(err, serial.ErrGone) }},
	} {
		t.Run(f.fault.Kind, func(t *testing.T) {
			t.Parallel()
			sim := Start(t, cfg)
			f.fault.Count = 1
			if err := sim.Inject(f.fault); err != nil {
				t.Fatal(err)
			}
			for i := range 2 { // the second time it is gone
				var c *client
				for deadline := time.Now().Add(30 * time.Second); c == nil; { // after a hang-up the path comes back
					if _, err := os.Stat(sim.Addr()); err == nil {
						c = dial(t, sim)
					} else if time.Now().After(deadline) {
						t.Fatal(err)
					}
				}
				if _, err := c.port.Write(framing.Append(nil, []byte("A?"))); err != nil {
					t.Fatal(err)
				}
				wait := 10 * time.Second
				if i == 0 && (f.fault.Kind == Silent || f.fault.Kind == Slow || f.fault.Kind == Partial) {
					wait = 300 * time.Millisecond
				}
				said, err := c.line(wait)
				if i == 0 && !f.ok(said, err) || i == 1 && said+"\r\n" != good {
					t.Errorf("%d: %q, %v", i, said, err)
				}
				c.port.Close()
			}
		})
	}
}

func TestPathIsStable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ttyScale")
	sim := Start(t, Config{Listen: "serial://" + path + "?baud=19200", Signals: map[string]signal.Spec{"w": {Constant: 1}}, Commands: []Command{{Ask: `W\?`, Answer: "{w}"}}})
	if sim.URL() != "serial://"+path+"?baud=19200" || sim.Addr() != path {
		t.Fatal(sim.URL())
	}
	for range 5 {
		c := dial(t, sim)
		if got := c.ask("W?"); got != "1" {
			t.Fatal(got)
		}
		sim.Unplug()
		if _, err := os.Lstat(path); err == nil {
			t.Error("unplugged, the path is still there")
		}
		if _, err := c.line(time.Second); !errors.Is(err, serial.ErrGone) {
			t.Errorf("unplugged: %v", err)
		}
		c.port.Close()
		if err := sim.Plug(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNothingIsLeft(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	sim, err := New(Config{Commands: []Command{{Ask: "a"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := sim.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sim.Run(ctx); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

func TestConfigRefuses(t *testing.T) {
	good := func() Config {
		return Config{Inputs: map[string]any{"a": 1}, Commands: []Command{{Ask: `A`, Answer: "{a}"}}}
	}
	for _, c := range []struct {
		want   string
		change func(*Config)
	}{
		{"must begin with serial", func(c *Config) { c.Listen = "/tmp/x" }},
		{"9601", func(c *Config) { c.Listen = "serial://?baud=9601" }},
		{"not both", func(c *Config) { c.Length, c.Terminator = 3, "\n" }},
		{"md5", func(c *Config) { c.Checksum = "md5" }},
		{"below 1ms", func(c *Config) { c.Tick = 1 }},
		{"never say anything", func(c *Config) { c.Commands = nil }},
		{"missing closing )", func(c *Config) { c.Commands[0].Ask = "(" }},
		{"ask is empty", func(c *Config) { c.Commands[0].Ask = "" }},
		{`no signal "b"`, func(c *Config) { c.Commands[0].Answer = "{b}" }},
		{"has no }", func(c *Config) { c.Commands[0].Answer = "{a" }},
		{`format "q"`, func(c *Config) { c.Commands[0].Answer = "{a:q}" }},
		{`format "s"`, func(c *Config) { c.Commands[0].Answer = "{a:s}" }},
		{`format "%d"`, func(c *Config) { c.Commands[0].Answer = "{a:%d}" }},
		{"no input b", func(c *Config) { c.Commands[0].Set = "b" }},
		{"needs a group", func(c *Config) { c.Commands[0].Set = "a" }},
		{"go with set", func(c *Config) { c.Commands[0].Refuse = "ERR" }},
		{"unknown:", func(c *Config) { c.Unknown = "{x}" }},
		{"send is empty", func(c *Config) { c.Unasked = []Unasked{{Every: time.Second}} }},
		{"every 0s", func(c *Config) { c.Unasked = []Unasked{{Send: "x"}} }},
		{`fault "mute"`, func(c *Config) { c.Faults = []Fault{{Kind: "mute"}} }},
		{"delay goes with slow", func(c *Config) { c.Faults = []Fault{{Kind: Slow}} }},
		{"has no checksum", func(c *Config) { c.Faults = []Fault{{Kind: WrongChecksum}} }},
		{"executed goes with", func(c *Config) { c.Faults = []Fault{{Kind: Garbage, Executed: true}} }},
		{"probability 2", func(c *Config) { c.Faults = []Fault{{Kind: Silent, Probability: 2}} }},
		{"count -1", func(c *Config) { c.Faults = []Fault{{Kind: Silent, Count: -1}} }},
		{`not "reads"`, func(c *Config) { c.Faults = []Fault{{Kind: Silent, On: "reads"}} }},
		{"signal", func(c *Config) { c.Signals = map[string]signal.Spec{"t": {Constant: 1}} }},
	} {
		cfg := good()
		c.change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	if _, err := New(good()); err != nil {
		t.Error(err)
	}
	if _, err := Load("testdata/field.bad.yaml"); err == nil || !strings.Contains(err.Error(), "unknown field baud") {
		t.Error(err)
	}
}

// A cable that is pulled out before anything runs stays out.
func TestUnpluggedBeforeItRuns(t *testing.T) {
	sim, err := New(Config{Unasked: []Unasked{{Every: time.Second, Send: "x"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := sim.Listen(); err != nil {
		t.Fatal(err)
	}
	sim.Unplug()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- sim.Run(ctx) }()
	for ctx.Err() == nil {
		if _, err := os.Lstat(sim.Addr()); err == nil {
			t.Fatal("the line is there")
		}
		time.Sleep(time.Millisecond) //sleep: nothing tells that nothing happens
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
