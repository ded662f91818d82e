// Command anomaly is an app beside the devices. It watches properties, says on
// alarms/DEVICE/PROPERTY when one behaves unusually, and sets a property of a
// device, such as a warning lamp, as long as any does. It needs nothing but the
// variables that the edge gives its apps, and works with the cloud gone.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// Config is what the app is told by its arguments.
type Config struct {
	Watch     []Signal
	Every     time.Duration
	Window    int
	Smooth    float64
	Threshold float64
	OnAlarm   *Setting
	OnClear   *Setting
	Listen    string
}

// Signal is one property of one device.
type Signal struct{ Device, Property string }

func (s Signal) String() string { return s.Device + "/" + s.Property }

// Setting is a value for a property of a device.
type Setting struct {
	Signal
	Value json.RawMessage
}

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return // parse has told
	}
	if err != nil {
		log.Error("wrong usage", "error", err)
		os.Exit(2)
	}
	if err := run(ctx, cfg, log); err != nil {
		log.Error("ended", "error", err)
		os.Exit(1)
	}
}

func parse(args []string, usage io.Writer) (cfg Config, err error) {
	f := flag.NewFlagSet("anomaly", flag.ContinueOnError)
	f.SetOutput(usage)
	f.Func("watch", "DEVICE/PROPERTY to watch; may be given several times", func(s string) error {
		at, err := parseSignal(s)
		cfg.Watch = append(cfg.Watch, at)
		return err
	})
	f.DurationVar(&cfg.Every, "every", time.Second, "interval of the samples")
	f.IntVar(&cfg.Window, "window", 120, "samples that tell what is usual")
	f.Float64Var(&cfg.Smooth, "smooth", 0.2, "weight of the newest sample in the score, 0 to 1")
	f.Float64Var(&cfg.Threshold, "threshold", 3, "score from which there is an alarm")
	f.Func("on-alarm", "DEVICE/PROPERTY=VALUE to set when the first alarm is raised", func(s string) (err error) {
		cfg.OnAlarm, err = parseSetting(s)
		return err
	})
	f.Func("on-clear", "DEVICE/PROPERTY=VALUE to set when the last alarm is over", func(s string) (err error) {
		cfg.OnClear, err = parseSetting(s)
		return err
	})
	f.StringVar(&cfg.Listen, "listen", ":8080", "address of /ready and /scores")
	if err := f.Parse(args); err != nil {
		return cfg, err
	}
	switch {
	case f.NArg() > 0:
		return cfg, fmt.Errorf("unexpected %q", f.Arg(0))
	case len(cfg.Watch) == 0:
		return cfg, errors.New("nothing to watch: give -watch DEVICE/PROPERTY")
	case cfg.Every <= 0 || cfg.Window < 8 || cfg.Window > 1_000_000:
		return cfg, errors.New("-every must be above 0, -window 8 to 1000000")
	case !(cfg.Smooth > 0 && cfg.Smooth <= 1) || !(cfg.Threshold > 0 && cfg.Threshold < highestZ):
		return cfg, fmt.Errorf("-smooth must be above 0 and at most 1, -threshold above 0 and below %d", highestZ)
	}
	return cfg, nil
}

func parseSignal(s string) (Signal, error) {
	device, property, ok := strings.Cut(s, "/")
	if !ok || device == "" || property == "" || strings.ContainsAny(s, "+#") || strings.Contains(property, "/") {
		return Signal{}, fmt.Errorf("%q is not DEVICE/PROPERTY", s)
	}
	return Signal{device, property}, nil
}

func parseSetting(s string) (*Setting, error) {
	at, value, ok := strings.Cut(s, "=")
	if !ok {
		return nil, fmt.Errorf("%q is not DEVICE/PROPERTY=VALUE", s)
	}
	target, err := parseSignal(at)
	if err != nil {
		return nil, err
	}
	if !json.Valid([]byte(value)) {
		return nil, fmt.Errorf("the value in %q is not JSON; strings have quotes", s)
	}
	return &Setting{target, json.RawMessage(value)}, nil
}

// run connects, watches and serves until ctx ends.
func run(ctx context.Context, cfg Config, log *slog.Logger) error {
	api, err := newAPI(os.Getenv)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := newWatcher(cfg, log)
	settled := make(chan struct{})
	go func() { // ends with ctx, and run waits for it
		defer close(settled)
		w.settle(ctx, api)
	}()
	server := &http.Server{Handler: w.handler(), ReadHeaderTimeout: 5 * time.Second}
	served := make(chan struct{})
	go func() { // ends with Close
		defer close(served)
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			cancel(err)
		}
	}()
	err = w.run(ctx, os.Getenv)
	cancel(err)
	_ = server.Close()
	<-served
	<-settled
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}
