package serial

import (
	"strings"
	"testing"
	"time"
)

var urls = []struct {
	text   string
	scheme string
	want   Config
	err    string
}{
	{"serial:///dev/ttyUSB0", "serial", Config{"/dev/ttyUSB0", 9600, 8, None, 1}, ""},
	{"rtu:///dev/ttyUSB0", "rtu", Config{"/dev/ttyUSB0", 19200, 8, Even, 1}, ""},
	{"ascii:///dev/ttyS1", "ascii", Config{"/dev/ttyS1", 19200, 7, Even, 1}, ""},
	{"rtu:///dev/serial/by-id/usb-FTDI%20A5-if00?baud=115200&parity=none&dataBits=8&stopBits=2", "rtu", Config{"/dev/serial/by-id/usb-FTDI A5-if00", 115200, 8, None, 2}, ""},
	{"ascii:///dev/ttyS1?dataBits=8&parity=odd", "ascii", Config{"/dev/ttyS1", 19200, 8, Odd, 1}, ""},
	{"serial:///dev/ttyS1?", "serial", Config{"/dev/ttyS1", 9600, 8, None, 1}, ""},
	{"", "", Config{}, "must begin with serial://"},
	{"tcp://1.2.3.4:502", "", Config{}, "must begin with serial://"},
	{"serial://dev/ttyUSB0", "", Config{}, "three slashes"},
	{"serial:/dev/ttyUSB0/", "", Config{}, "three slashes"},
	{"serial:dev", "", Config{}, "three slashes"},
	{"serial://u@/dev/x", "", Config{}, "three slashes"},
	{"serial://", "", Config{}, "three slashes"},
	{"serial:///dev/x#1", "", Config{}, "#"},
	{"serial:///dev/x#", "", Config{}, "#"},
	{"serial:///dev/%zz", "", Config{}, "is no url"},
	{"serial:///dev/x?baud=9600;parity=even", "", Config{}, "what follows ?"},
	{"serial:///dev/x?baudrate=9600", "", Config{}, "baudrate is not one of baud, parity, dataBits, stopBits"},
	{"serial:///dev/x?Baud=9600", "", Config{}, "Baud is not one of"},
	{"serial:///dev/x?baud=9600&baud=9600", "", Config{}, "given 2 times"},
	{"serial:///dev/x?baud=", "", Config{}, "whole number"},
	{"serial:///dev/x?baud=-9600", "", Config{}, "whole number"},
	{"serial:///dev/x?baud=9601", "", Config{}, "baud 9601"},
	{"serial:///dev/x?parity=E", "", Config{}, "none, even or odd"},
	{"serial:///dev/x?parity=", "", Config{}, "none, even or odd"},
	{"serial:///dev/x?dataBits=9", "", Config{}, "5 to 8"},
	{"serial:///dev/x?stopBits=3", "", Config{}, "1 or 2"},
	{"rtu:///dev/x?dataBits=7", "", Config{}, "RTU line has 8"},
	{"ascii:///dev/x?dataBits=6", "", Config{}, "ASCII line has 7 or 8"},
}

func TestParseURL(t *testing.T) {
	for _, c := range urls {
		scheme, got, err := ParseURL(c.text)
		switch {
		case c.err == "" && (err != nil || got != c.want || scheme != c.scheme):
			t.Errorf("%s: %s %+v, %v", c.text, scheme, got, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: error %v, want one with %q", c.text, err, c.err)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, c := range urls {
		f.Add(c.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if _, cfg, err := ParseURL(text); err == nil {
			if err := cfg.Check(); err != nil {
				t.Errorf("%q is accepted as %+v: %v", text, cfg, err)
			}
		}
	})
}

func TestCharTime(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		n    int
		want time.Duration
	}{
		{Config{"/dev/x", 9600, 8, None, 1}, 960, time.Second},
		{Config{"/dev/x", 19200, 8, Even, 1}, 1, 11 * time.Second / 19200},
		{Config{"/dev/x", 1200, 7, Odd, 2}, 1200, 11 * time.Second},
	} {
		if got := c.cfg.CharTime(c.n); got != c.want {
			t.Errorf("%v: %d characters take %v, want %v", c.cfg, c.n, got, c.want)
		}
	}
	if got := (Config{"/dev/x", 9600, 8, Even, 1}).String(); got != "/dev/x 9600 8E1" {
		t.Error(got)
	}
}
