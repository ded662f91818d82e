package scpi

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/mappers/drivertest"
	"github.com/whimbrel-edge/whimbrel/models"
)

// supply is a simulated power supply.
type supply struct {
	t    *testing.T
	addr string

	mu       sync.Mutex
	listener net.Listener // nil while unplugged
	conns    map[net.Conn]bool
	silent   bool
	held     []func() // answers of the silent time
	volt     float64
	curr     float64
	on       bool
	label    string
	errors   []string
	wait     sync.WaitGroup
}

func newSupply(t *testing.T) *supply {
	s := &supply{t: t, addr: "127.0.0.1:0", conns: map[net.Conn]bool{}, volt: 12, curr: 1.5, label: "bench"}
	s.plug()
	t.Cleanup(func() { s.unplug(); s.wait.Wait() })
	return s
}

func (s *supply) plug() {
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		s.t.Error(err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listener, s.addr = l, l.Addr().String()
	s.wait.Go(func() { s.accept(l) })
}

func (s *supply) unplug() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		_ = s.listener.Close()
	}
	s.listener = nil
	for c := range s.conns {
		_ = c.Close()
	}
}

func (s *supply) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[c] = true
		s.mu.Unlock()
		s.wait.Go(func() { s.serve(c) })
	}
}

func (s *supply) serve(c net.Conn) {
	defer func() {
		_ = c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	in := bufio.NewScanner(c)
	for in.Scan() {
		s.mu.Lock()
		line := in.Text()
		reply := func() {
			if answer := s.handle(line); answer != "" {
				_, _ = fmt.Fprintln(c, answer)
			}
		}
		if s.silent {
			s.held = append(s.held, reply)
		} else {
			reply()
		}
		s.mu.Unlock()
	}
}

func (s *supply) silence(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = on
	for _, f := range s.held { // it was slow, not deaf
		f()
	}
	s.held = nil
}

func (s *supply) handle(line string) string {
	command, argument, _ := strings.Cut(line, " ")
	set := func(into *float64) {
		v, err := strconv.ParseFloat(argument, 64)
		if err != nil || v < 0 || v > 30 {
			s.errors = append(s.errors, `-222,"Data out of range"`)
			return
		}
		*into = v
	}
	switch command {
	case "*IDN?":
		return "WHIMBREL,PSU-1,0001,1.0"
	case "SYST:ERR?":
		if len(s.errors) == 0 {
			return `0,"No error"`
		}
		first := s.errors[0]
		s.errors = s.errors[1:]
		return first
	case "VOLT?":
		return fmt.Sprintf("%.3f", s.volt)
	case "CURR?":
		return fmt.Sprintf("%.3f", s.curr)
	case "OUTP?":
		return map[bool]string{true: "1", false: "0"}[s.on]
	case "SYST:LAB?":
		return strconv.Quote(s.label)
	case "VOLT":
		set(&s.volt)
	case "CURR":
		set(&s.curr)
	case "OUTP":
		s.on = argument == "1"
	case "SYST:LAB":
		s.label = strings.Trim(argument, `"`)
	default:
		s.errors = append(s.errors, `-113,"Undefined header"`)
	}
	return ""
}

func TestConformance(t *testing.T) {
	point := func(name string, kind models.Type, query string, value, other, beyond models.Value) drivertest.Point {
		return drivertest.Point{Point: mappers.Point{Property: name, Type: kind, Access: models.ReadWrite,
			Address: json.RawMessage(fmt.Sprintf(`{"query": "%s?", "set": "%s {value}"}`, query, query))}, Value: value, Other: other, Beyond: beyond}
	}
	drivertest.Run(t, drivertest.Harness{
		Driver:     Driver{},
		BadAddress: json.RawMessage(`{"query": "VOLT", "set": "VOLT {value}"}`),
		Ignore: []goleak.Option{ // the instrument's
			goleak.IgnoreAnyFunction("github.com/whimbrel-edge/whimbrel/examples/mapper-go/scpi.(*supply).accept"),
			goleak.IgnoreAnyFunction("github.com/whimbrel-edge/whimbrel/examples/mapper-go/scpi.(*supply).serve"),
		},
		Start: func(t *testing.T) drivertest.Device {
			s := newSupply(t)
			return drivertest.Device{
				Connection: json.RawMessage(fmt.Sprintf(`{"url": "tcp://%s", "timeout": "200ms"}`, s.addr)),
				Points: []drivertest.Point{
					point("setpoint", models.TypeFloat, "VOLT", models.Float(12), models.Float(24.5), models.Float(31)),
					point("limit", models.TypeFloat, "CURR", models.Float(1.5), models.Float(2), models.Null),
					point("output", models.TypeBool, "OUTP", models.Bool(false), models.Bool(true), models.Null),
					point("label", models.TypeString, "SYST:LAB", models.String("bench"), models.String("left one"), models.Null),
				},
				Refused: mappers.Point{Property: "nonsense", Type: models.TypeInt, Access: models.Read, Address: json.RawMessage(`{"query": "NONS?"}`)},
				Unplug:  s.unplug,
				Plug:    s.plug,
				Silence: func() { s.silence(true) },
				Speak:   func() { s.silence(false) },
				Slow: func(d time.Duration) {
					s.silence(true)
					s.wait.Go(func() {
						time.Sleep(d)
						s.silence(false)
					})
				},
			}
		},
	})
}
