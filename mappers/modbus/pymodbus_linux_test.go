package modbus

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/whimbrel-edge/whimbrel/internal/need"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators/modbussim"
)

// cable joins two serial devices.
func cable(t *testing.T) (one, other string) {
	t.Helper()
	var far [2]*os.File
	var paths [2]string
	for i := range far {
		master, near, err := pty.Open()
		if err != nil {
			t.Fatal(err)
		}
		settings, err := unix.IoctlGetTermios(int(near.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		settings.Iflag, settings.Oflag, settings.Lflag = 0, 0, 0
		if err := unix.IoctlSetTermios(int(near.Fd()), unix.TCSETS, settings); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.FcntlInt(master.Fd(), unix.F_DUPFD_CLOEXEC, 0) // a file that can be closed while it is read
		if err != nil {
			t.Fatal(err)
		}
		master.Close()
		if err := unix.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
		far[i], paths[i] = os.NewFile(uintptr(fd), "far end"), near.Name()
		t.Cleanup(func() { near.Close() }) // held open, so that the line lives while nobody has it open
	}
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(far[0], far[1]) })
	wg.Go(func() { io.Copy(far[1], far[0]) })
	t.Cleanup(func() {
		far[0].Close()
		far[1].Close()
		wg.Wait()
	})
	return paths[0], paths[1]
}

const pymodbusLine = "?baud=115200&dataBits=8&parity=none&stopBits=1"

// TestPymodbusOnALine: the driver reads and writes a server that shares nothing
// with ours, RTU and ASCII, several units and a missing one on the line.
func TestPymodbusOnALine(t *testing.T) {
	t.Parallel()
	need.PythonModule(t, "pymodbus", "python3-pymodbus")
	python := need.PythonModule(t, "serial", "python3-serial")
	for _, kind := range []string{"rtu", "ascii"} {
		t.Run(kind, func(t *testing.T) {
			ours, theirs := cable(t)
			cmd := exec.Command(python, "testdata/pymodbus_line.py", "serve", theirs, kind)
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
				stdin.Close()
				if err := cmd.Wait(); err != nil && t.Failed() {
					t.Logf("pymodbus: %v\n%s", err, stderr.String())
				}
			})
			if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
				t.Fatalf("pymodbus says %q, %v\n%s", line, err, stderr.String())
			}
			points := []mappers.Point{
				pt("holding", models.TypeInt, models.ReadWrite, `{"table": "holding", "register": 7}`),
				pt("input", models.TypeInt, models.Read, `{"table": "input", "register": 9}`),
				pt("coil", models.TypeBool, models.ReadWrite, `{"table": "coil", "register": 3}`),
				pt("discrete", models.TypeBool, models.Read, `{"table": "discrete", "register": 5}`),
				pt("wide", models.TypeFloat, models.ReadWrite, `{"table": "holding", "register": 20, "encoding": "float64", "order": "CDAB"}`),
				pt("bit", models.TypeBool, models.ReadWrite, `{"table": "holding", "register": 30, "bit": 15}`),
				pt("far", models.TypeInt, models.Read, `{"table": "holding", "register": 131}`),
			}
			drv := New()
			url := kind + "://" + ours + pymodbusLine
			gone := open(t, drv, url, `, "unit": 9, "timeout": "200ms"`, points...)
			for unit := 1; unit <= 2; unit++ {
				shift := int64(1000 * (unit - 1))
				d := open(t, drv, url, fmt.Sprintf(`, "unit": %d, "timeout": "5s", "maxGap": 200`, unit), points...)
				got := read(t, d)
				for i, want := range []models.Value{models.Int(7 + shift), models.Int(18 + shift), models.Bool(true), models.Bool(false)} {
					if got[i].Value != want {
						t.Errorf("unit %d: %s is %v, want %v", unit, points[i].Property, got[i].Value, want)
					}
				}
				if got[6].Value != models.Int(131+shift) {
					t.Errorf("far is %v", got[6].Value)
				}
				writes := []mappers.WriteRequest{{Point: 0, Value: models.Int(4711)}, {Point: 2, Value: models.Bool(false)},
					{Point: 4, Value: models.Float(-12.75)}, {Point: 5, Value: models.Bool(true)}}
				for i, err := range d.Write(t.Context(), writes) {
					if err != nil {
						t.Errorf("unit %d: write %d: %v", unit, i, err)
					}
				}
				got = read(t, d)
				for _, w := range writes {
					if got[w.Point].Value != w.Value {
						t.Errorf("unit %d: %s reads back %v, want %v", unit, points[w.Point].Property, got[w.Point].Value, w.Value)
					}
				}
				// A unit that is not there costs its own time only.
				err := gone.Read(t.Context(), []int{0}, make([]mappers.Result, 1))
				if f := mappers.FailureOf(err); err == nil || f.Reason != models.ReasonTimeout {
					t.Errorf("unit 9: %v", err)
				}
			}
		})
	}
}

// TestPymodbusAsksTheSimulator: what the simulator says on a line is understood
// by others, too.
func TestPymodbusAsksTheSimulator(t *testing.T) {
	t.Parallel()
	need.PythonModule(t, "pymodbus", "python3-pymodbus")
	python := need.PythonModule(t, "serial", "python3-serial")
	for _, kind := range []string{"rtu", "ascii"} {
		sim := modbussim.Start(t, modbussim.Config{Listen: kind + "://" + pymodbusLine, Units: []modbussim.Unit{
			memory(1, modbussim.Memory{Table: "holding", Register: 0, Count: 10}), memory(2, modbussim.Memory{Table: "holding", Register: 0, Count: 10})}})
		cmd := exec.CommandContext(t.Context(), python, "testdata/pymodbus_line.py", "ask", sim.Addr(), kind)
		cmd.WaitDelay = 5 * time.Second
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		cmd.Stdin = strings.NewReader(`[{"unit": 1, "register": 0, "write": [1, 2, 65535]}, {"unit": 2, "register": 0, "write": [7]},
			{"unit": 1, "register": 0, "count": 4}, {"unit": 2, "register": 0, "count": 1}, {"unit": 1, "register": 9, "count": 2}]`)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("pymodbus: %v\n%s", err, stderr.String())
		}
		var got []any
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatal(err)
		}
		if want := "[written written [1 2 65535 0] [7] exception 2]"; fmt.Sprint(got) != want {
			t.Errorf("%s: %v, want %s", kind, got, want)
		}
	}
}
