package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/cmd/internal/hubd"
	"github.com/whimbrel-edge/whimbrel/cmd/internal/listenaddr"
	"github.com/whimbrel-edge/whimbrel/cmd/internal/mapperseed"
	"github.com/whimbrel-edge/whimbrel/devicehub"
	"github.com/whimbrel-edge/whimbrel/edgeruntime"
	"github.com/whimbrel-edge/whimbrel/internal/cli"
	"github.com/whimbrel-edge/whimbrel/internal/version"
	"github.com/whimbrel-edge/whimbrel/mappers/builtin"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators/plant"
)

// upNode is the name of the node that `whimbrel up` runs.
const upNode = "local"

// upConfig is what `whimbrel up` is told.
type upConfig struct {
	data, listen, mqtt, api string
	noPlant                 bool
	routeAllow              []string
}

// hub is the hub's part of it.
func (c upConfig) hub() hubd.Config {
	return hubd.Config{Data: c.data, Listen: c.listen, Link: "127.0.0.1:0", InsecureHTTP: true, RouteAllow: c.routeAllow}
}

// newUp is `whimbrel up`.
func newUp(s *settings) *cobra.Command {
	var cfg upConfig
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run a hub, an edge and a simulated plant in one process",
		Long: `Run a hub with embedded storage, one edge node called "local" and a simulated
plant of Modbus, OPC UA and serial devices, all in one process, on loopback. What
it keeps is in --data and is there again at the next start. Port 0 picks a free port.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := s.logger(cmd)
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("log-level") && os.Getenv("WHIMBREL_LOG_LEVEL") == "" {
				// What a person wants to read here is what is printed.
				log = slog.New(atLeast{log.Handler(), slog.LevelWarn})
			}
			if err := errors.Join(cfg.hub().Check(), listenaddr.Check("--mqtt", cfg.mqtt), listenaddr.Check("--api", cfg.api)); err != nil {
				return cli.Usagef("%w", err)
			}
			return stopped(up(cmd.Context(), cfg, log, cmd.OutOrStdout()))
		},
	}
	cmd.Flags().StringVar(&cfg.data, "data", "./whimbrel-data", "directory for everything it keeps")
	cmd.Flags().StringVar(&cfg.listen, "listen", "127.0.0.1:8080", "address of the REST API")
	cmd.Flags().StringVar(&cfg.mqtt, "mqtt", "127.0.0.1:1883", "address of the edge's MQTT broker")
	cmd.Flags().StringVar(&cfg.api, "api", "127.0.0.1:9060", "address of the edge's local REST API")
	routeFlag(cmd, &cfg.routeAllow)
	cmd.Flags().BoolVar(&cfg.noPlant, "no-plant", false, "run without the simulated plant")
	return cmd
}

// atLeast is a handler that leaves out what is below a level.
type atLeast struct {
	slog.Handler
	level slog.Level
}

// Enabled implements slog.Handler.
func (h atLeast) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= h.level && h.Handler.Enabled(ctx, l)
}

// WithAttrs implements slog.Handler.
func (h atLeast) WithAttrs(attrs []slog.Attr) slog.Handler {
	return atLeast{h.Handler.WithAttrs(attrs), h.level}
}

// WithGroup implements slog.Handler.
func (h atLeast) WithGroup(name string) slog.Handler {
	return atLeast{h.Handler.WithGroup(name), h.level}
}

// up runs hub, plant and edge until ctx ends or one of them fails.
func up(ctx context.Context, cfg upConfig, log *slog.Logger, out io.Writer) (err error) {
	drivers := builtin.Drivers()
	hub := cfg.hub()
	hub.Mappers, hub.Log = mapperseed.Objects(drivers), log.With("part", "hub")
	d, err := hubd.Open(ctx, hub)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var wait sync.WaitGroup
	start := func(ctx context.Context, name string, run func(context.Context) error) {
		wait.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	defer func() {
		cause := context.Cause(ctx) // nil where the error is the first thing that went wrong
		cancel(nil)
		wait.Wait()
		if cause != nil {
			err = cause // what failed meanwhile failed for that
		}
	}()
	start(ctx, "hub", d.Run)
	select {
	case <-d.Ready():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if !cfg.noPlant {
		p, err := plant.Start(ctx)
		if err != nil {
			return fmt.Errorf("start the simulated plant: %w", err)
		}
		if p.NoScale != nil {
			log.Warn("the simulated plant does without its scale", "err", p.NoScale)
		}
		start(ctx, "plant", func(context.Context) error { return p.Wait() })
		if err := applyPlant(ctx, d.Hub(), p.Manifests()); err != nil {
			return fmt.Errorf("register the simulated plant: %w", err)
		}
	}
	edge, err := upEdge(ctx, cfg, d, log.With("part", "edge"))
	if err != nil {
		return err
	}
	start(ctx, "edge", edge.Run)
	select {
	case <-edge.Ready():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if !cfg.noPlant {
		awaitPlant(ctx, d.Hub(), 3*time.Second)
	}
	fmt.Fprint(out, banner(cfg, d, edge))
	<-ctx.Done()
	return context.Cause(ctx)
}

// upEdge opens the edge node. The hub's link has another port at each start, so
// the edge is told where it is; it needs a token only the first time.
func upEdge(ctx context.Context, cfg upConfig, d *hubd.Daemon, log *slog.Logger) (*edgeruntime.Edge, error) {
	dir := filepath.Join(cfg.data, "edge")
	ec := edgeruntime.Config{Node: upNode, HubURL: d.LinkURL(), DataDir: dir, MQTTAddr: cfg.mqtt, APIAddr: cfg.api,
		MQTTAnonymous: true, StopApps: true, Drivers: builtin.Drivers(), Version: version.Version, Log: log}
	joined, err := edgeruntime.Joined(dir)
	if err != nil {
		return nil, err
	}
	if !joined {
		token, _, err := d.Hub().Identity.CreateJoinToken(ctx, upNode, 10*time.Minute, "up")
		if err != nil {
			return nil, fmt.Errorf("make a join token: %w", err)
		}
		ec.Token = token
	}
	edge, err := edgeruntime.New(ec)
	return edge, listenaddr.Taken(err, "--mqtt", "--api")
}

// applyPlant registers the plant's models and devices. What is there already is
// left as its user made it, but for the devices' connections: the simulators
// listen on other ports at each start.
func applyPlant(ctx context.Context, hub *devicehub.Hub, manifests []byte) error {
	objects, err := models.DecodeObjects(manifests)
	if err != nil {
		return err
	}
	for _, o := range objects {
		_, _, err := hub.Update(ctx, models.KeyOf(o), models.WriteOptions{By: "up"}, func(current models.Object) (models.Object, error) {
			device, isDevice := current.(*models.Device)
			switch {
			case current == nil:
				return o, nil
			case isDevice:
				device.Spec.Connection = o.(*models.Device).Spec.Connection
			}
			return current, nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", models.KeyOf(o), err)
		}
	}
	return nil
}

// awaitPlant waits, but not for ever, until every device of the plant has
// reported all that it can.
func awaitPlant(ctx context.Context, hub *devicehub.Hub, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !plantReports(ctx, hub) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func plantReports(ctx context.Context, hub *devicehub.Hub) bool {
	docs, _, err := hub.Twins(ctx, models.ListOptions{Namespace: models.DefaultNamespace})
	for _, doc := range docs {
		if doc.State == models.StateUnknown {
			return false
		}
		for _, p := range doc.Properties {
			if doc.State == models.StateOnline && p.Reported == nil {
				return false
			}
		}
	}
	return err == nil && len(docs) > 0
}

// banner says where everything is and what to try.
func banner(cfg upConfig, d *hubd.Daemon, edge *edgeruntime.Edge) string {
	var b strings.Builder
	what := "a hub, an edge node called \"" + upNode + "\" and a simulated plant"
	if cfg.noPlant {
		what = "a hub and an edge node called \"" + upNode + "\""
	}
	fmt.Fprintf(&b, "Whimbrel %s is up: %s.\n\n", version.Version, what)
	fmt.Fprintf(&b, "  REST API    %s/api/v1\n", d.APIURL())
	fmt.Fprintf(&b, "  token       in %s (admin; the commands below find it there)\n", d.ContextPath())
	fmt.Fprintf(&b, "  MQTT        mqtt://%s (anonymous, loopback only)\n", edge.MQTTAddr())
	fmt.Fprintf(&b, "  edge API    http://%s/v1 (token in %s)\n", edge.APIAddr(), filepath.Join(cfg.data, "edge", "context.json"))
	fmt.Fprintf(&b, "  apps        %s\n\n", edge.Engine())
	me := invocation(cfg, d.ContextPath())
	fmt.Fprintf(&b, "Try, in another shell:\n\n")
	if cfg.noPlant {
		fmt.Fprintf(&b, "  %s get nodes\n  %s get mappers\n  %s apply -f FILE\n", me, me, me)
	} else {
		fmt.Fprintf(&b, "  %s get devices\n", me)
		fmt.Fprintf(&b, "  %s twin get boiler-1\n", me)
		fmt.Fprintf(&b, "  %s twin set boiler-1 setpoint=60 --wait 5s\n", me)
	}
	fmt.Fprintf(&b, "\nOr with any HTTP client, for example:\n\n  curl -H \"Authorization: Bearer $(sed -n 's/.*\"token\": \"\\(.*\\)\".*/\\1/p' %s)\" %s/api/v1/twins\n\nCtrl-C stops it; what it keeps is in %s.\n",
		shellWord(d.ContextPath()), d.APIURL(), cfg.data)
	return b.String()
}

// invocation returns how the reader can call this program, with the context
// if it is not where clients look by themselves.
func invocation(cfg upConfig, contextPath string) string {
	me := "whimbrel"
	if exe, err := os.Executable(); err == nil {
		found, lookErr := exec.LookPath("whimbrel")
		switch {
		case strings.Contains(exe, "go-build"): // started by `go run`, which deletes the file when it ends
			me = "go run ./cmd/whimbrel"
		case lookErr != nil || !sameFile(found, exe):
			me = shellWord(exe)
		}
	}
	if filepath.Clean(cfg.data) != "whimbrel-data" {
		if abs, err := filepath.Abs(contextPath); err == nil {
			contextPath = abs
		}
		me += " --context " + shellWord(contextPath)
	}
	return me
}

func sameFile(a, b string) bool {
	x, errA := os.Stat(a)
	y, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(x, y)
}

// shellWord quotes a word for a shell if it needs it.
func shellWord(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
