// Package edgeflags is the command that runs an edge, with its flags: the whole
// of cmd/whimbrel-edge, and `whimbrel edge` of cmd/whimbrel.
package edgeflags

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/cmd/internal/listenaddr"
	"github.com/whimbrel-edge/whimbrel/edgeruntime"
	"github.com/whimbrel-edge/whimbrel/internal/durationflag"
	"github.com/whimbrel-edge/whimbrel/internal/pki"
	"github.com/whimbrel-edge/whimbrel/internal/version"
	"github.com/whimbrel-edge/whimbrel/mappers/builtin"
)

// UsageError is a command that was called wrongly: exit code 2.
type UsageError struct{ Err error }

func (e UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e UsageError) Unwrap() error { return e.Err }

func usagef(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// DefaultData is where an edge keeps its data unless told otherwise: not where a
// hub does by default, whose context.json it would replace with its own.
const DefaultData = "./whimbrel-edge-data"

// flags are the flags of an edge as they were given.
type flags struct {
	hub, token, name, labels, data, mqtt, api string

	anonymous   bool
	outboxBytes string
	outboxAge   time.Duration
	fsync       time.Duration
}

// Command returns the command called use that runs an edge until its context
// ends. logger makes the logger that the process's logging flags ask for.
// Nothing here reads the environment: who runs the command binds WHIMBREL_…
// variables to flags.
func Command(use string, logger func(*cobra.Command) (*slog.Logger, error)) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   use,
		Short: "Run an edge: devices, their twins, local apps, and the link to a hub",
		Long: `Run an edge: it polls and writes the devices that its hub assigns to this node,
keeps their twins, serves local apps over MQTT and REST, and syncs with the hub
when that can be reached. It works without the hub for as long as it takes.

The first start needs --hub, --name and --token, as "whimbrel token create"
prints them. Later starts need --data alone: what is not given is as it was.`,
		Example: "  " + use + " --hub https://hub.example.com:8443 --name gateway-1 --token wt1.… --data /var/lib/whimbrel\n" +
			"  " + use + " --data /var/lib/whimbrel",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger(cmd)
			if err != nil {
				return UsageError{err}
			}
			return f.run(cmd, log)
		},
	}
	cmd.Flags().StringVar(&f.hub, "hub", "", "the hub's link URL, https://host:8443")
	cmd.Flags().StringVar(&f.token, "token", "", "one-time join token; needed to join, and ignored once that is done")
	cmd.Flags().StringVar(&f.name, "name", "", "name of this node")
	cmd.Flags().StringVar(&f.labels, "labels", "", "labels of the node: key=value,…")
	cmd.Flags().StringVar(&f.data, "data", DefaultData, "directory for everything the edge keeps")
	cmd.Flags().StringVar(&f.mqtt, "mqtt", "", "address of the MQTT broker (default "+edgeruntime.DefaultMQTTAddr+"); port 0 takes a free one")
	cmd.Flags().StringVar(&f.api, "api", "", "address of the local REST API (default "+edgeruntime.DefaultAPIAddr+"); port 0 takes a free one")
	cmd.Flags().BoolVar(&f.anonymous, "mqtt-anonymous", false, "let MQTT clients in without a name; on loopback only")
	cmd.Flags().StringVar(&f.outboxBytes, "outbox-bytes", "", "bound of what waits for the hub, such as 500MB or 1GiB; the oldest is dropped beyond it (default 1GiB)")
	durationflag.Var(cmd.Flags(), &f.outboxAge, "outbox-age", 0, "drop what has waited for longer, in running time (default: nothing is too old)")
	durationflag.Var(cmd.Flags(), &f.fsync, "fsync", 0, "how much of the log a power loss may take; negative: nothing (default 1s)")
	return cmd
}

// config turns the flags into an edge's configuration.
func (f *flags) config(cmd *cobra.Command, log *slog.Logger) (edgeruntime.Config, error) {
	cfg := edgeruntime.Config{Node: f.name, HubURL: f.hub, Token: strings.TrimSpace(f.token), DataDir: f.data, MQTTAddr: f.mqtt, APIAddr: f.api,
		MQTTAnonymous: f.anonymous, MQTTNamed: cmd.Flags().Changed("mqtt-anonymous") && !f.anonymous,
		OutboxAge: f.outboxAge, Fsync: f.fsync, Drivers: builtin.Drivers(), Log: log, Version: version.Version}
	if f.data == "" {
		return cfg, usagef("--data must not be empty")
	}
	if cmd.Flags().Changed("outbox-age") && f.outboxAge <= 0 {
		cfg.OutboxAge = -1
	}
	if cmd.Flags().Changed("fsync") && f.fsync == 0 {
		cfg.Fsync = -1
	}
	for _, addr := range []struct{ flag, value string }{{"--mqtt", f.mqtt}, {"--api", f.api}} {
		if addr.value == "" {
			continue // as before, or the default
		}
		if err := listenaddr.Check(addr.flag, addr.value); err != nil {
			return cfg, UsageError{err}
		}
	}
	var err error
	if f.outboxBytes != "" {
		if cfg.OutboxBytes, err = parseBytes(f.outboxBytes); err != nil {
			return cfg, usagef("--outbox-bytes: %w", err)
		}
	}
	if cmd.Flags().Changed("labels") {
		if cfg.Labels, err = parseLabels(f.labels); err != nil {
			return cfg, usagef("--labels: %w", err)
		}
	}
	if f.name != "" {
		if err := pki.CheckNodeName(f.name); err != nil {
			return cfg, usagef("--name: %w", err)
		}
	}
	if cfg.Token != "" {
		if _, err := pki.ParseJoinToken(cfg.Token); err != nil {
			return cfg, usagef("--token: %w", err)
		}
	}
	return cfg, f.checkFirst()
}

// checkFirst says what the first start lacks.
func (f *flags) checkFirst() error {
	joined, err := edgeruntime.Joined(f.data)
	if err != nil || joined {
		return err
	}
	var missing []string
	for _, flag := range []struct{ name, value string }{{"--hub", f.hub}, {"--name", f.name}, {"--token", f.token}} {
		if flag.value == "" {
			missing = append(missing, flag.name)
		}
	}
	// After a first start that could not reach its hub, the token is what is not kept.
	if f.token != "" || len(missing) == 0 {
		return nil
	}
	return usagef("the edge in %s has not joined a hub: it needs %s, as \"whimbrel token create --node NAME\" prints them", f.data, strings.Join(missing, ", "))
}

func (f *flags) run(cmd *cobra.Command, log *slog.Logger) error {
	cfg, err := f.config(cmd, log)
	if err != nil {
		return err
	}
	edge, err := edgeruntime.New(cfg)
	if err != nil {
		return listenaddr.Taken(err, "--mqtt", "--api")
	}
	ctx := cmd.Context()
	log.Info("edge starts", "version", version.Version, "data", f.data, "mqtt", edge.MQTTAddr(), "api", edge.APIAddr())
	if err := edge.Run(ctx); err != nil {
		return err
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// parseLabels reads key=value,….
func parseLabels(text string) (map[string]string, error) {
	labels := map[string]string{}
	for pair := range strings.SplitSeq(text, ",") {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("want key=value,…, got %q", pair)
		}
		if _, twice := labels[key]; twice {
			return nil, fmt.Errorf("%s is given twice", key)
		}
		labels[key] = value
	}
	return labels, nil
}

// parseBytes reads a size: bytes, or with a decimal (kB, MB, GB) or a binary (KiB,
// MiB, GiB) unit.
func parseBytes(text string) (int64, error) {
	wrong := fmt.Errorf("want a size such as 500MB or 1GiB, got %q", text)
	number := strings.TrimRight(text, "kKMGTiB ")
	unit := strings.TrimSpace(text[len(number):])
	factor, ok := map[string]int64{"": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
		"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}[unit]
	if !ok {
		return 0, wrong
	}
	n, err := strconv.ParseFloat(number, 64)
	if bytes := n * float64(factor); err == nil && bytes >= 1 && bytes < 1<<62 {
		return int64(bytes), nil
	}
	return 0, wrong
}
