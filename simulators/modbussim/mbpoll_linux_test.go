package modbussim_test

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/whimbrel-edge/whimbrel/internal/need"
	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
)

var polled = regexp.MustCompile(`(?m)^\[(\d+)\]:\s+(\S+)`)

// mbpoll runs libmodbus' client once and returns what it read, by register.
func mbpoll(t *testing.T, args ...string) (map[string]string, string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, need.Program(t, "mbpoll", "mbpoll"), append([]string{"-0", "-1", "-o", "2"}, args...)...)
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, m := range polled.FindAllStringSubmatch(string(text), -1) {
		got[m[1]] = m[2]
	}
	return got, string(text), err
}

// The simulator answers libmodbus, over TCP and on a serial line: all tables are
// read, and what it writes is there.
func TestAgainstLibmodbus(t *testing.T) {
	register := func(n uint16) *uint16 { return &n }
	unit := modbussim.Unit{Unit: 17, Name: "u", Memory: []modbussim.Memory{
		{Table: "holding", Register: 0, Count: 20}, {Table: "coil", Register: 0, Count: 20}},
		Points: []modbussim.Point{
			{Name: "in", Table: "input", Register: register(5), Encoding: "int16", Value: -215},
			{Name: "next", Table: "input", Register: register(6), Encoding: "uint16", Value: 40000},
			{Name: "on", Table: "discrete", Register: register(3), Value: true},
			{Name: "float", Table: "holding", Register: register(30), Encoding: "float32", Order: "CDAB", Value: 21.5},
		}}
	for name, listen := range map[string]string{"tcp": "tcp://127.0.0.1:0", "rtu": "rtu://?baud=38400&parity=even"} {
		t.Run(name, func(t *testing.T) {
			sim := modbussim.Start(t, modbussim.Config{Listen: listen, Units: []modbussim.Unit{unit}})
			var line, target []string
			if name == "tcp" {
				host, port, err := net.SplitHostPort(sim.Addr())
				if err != nil {
					t.Fatal(err)
				}
				line, target = []string{"-m", "tcp", "-p", port}, []string{host}
			} else {
				line, target = []string{"-m", "rtu", "-b", "38400", "-P", "even"}, []string{sim.Addr()}
			}
			run := func(options, values string) (map[string]string, string, error) {
				args := append(append([]string{"-a", "17"}, line...), strings.Fields(options)...)
				return mbpoll(t, append(append(args, target...), strings.Fields(values)...)...)
			}
			reads := func(options string, want map[string]string) {
				t.Helper()
				got, text, err := run(options, "")
				for at, w := range want {
					if got[at] != w || err != nil {
						t.Errorf("%s: [%s] is %q, want %q; %v\n%s", options, at, got[at], w, err, text)
					}
				}
			}
			writes := func(options, values string) {
				t.Helper()
				if _, text, err := run(options, values); err != nil || !strings.Contains(text, "Written") {
					t.Errorf("%s %s: %v\n%s", options, values, err, text)
				}
			}
			reads("-t 3 -r 5 -c 2", map[string]string{"5": "65321", "6": "40000"})
			reads("-t 1 -r 3 -c 1", map[string]string{"3": "1"})
			reads("-t 4:float -r 30 -c 1", map[string]string{"30": "21.5"})
			writes("-t 4 -r 2", "1234")
			writes("-t 4 -r 3", "1 2 3")
			reads("-t 4 -r 2 -c 4", map[string]string{"2": "1234", "3": "1", "4": "2", "5": "3"})
			writes("-t 4:float -r 10", "1.25")
			reads("-t 4:float -r 10 -c 1", map[string]string{"10": "1.25"})
			writes("-t 0 -r 7", "1")
			writes("-t 0 -r 8", "1 0 1")
			reads("-t 0 -r 7 -c 4", map[string]string{"7": "1", "8": "1", "9": "0", "10": "1"})
			// Beyond what there is, it is told so.
			if _, text, err := run("-t 3 -r 400 -c 1", ""); err == nil || !strings.Contains(text, "Illegal data address") {
				t.Errorf("beyond: %v\n%s", err, text)
			}
		})
	}
}
