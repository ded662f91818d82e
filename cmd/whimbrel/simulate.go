package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/internal/cli"
	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/mappers/builtin"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators"
	"github.com/whimbrel-edge/whimbrel/simulators/plant"
)

// plantName stands for the demo plant among the files of simulate.
const plantName = "plant"

// newSimulate is `whimbrel simulate`.
func newSimulate(s *settings) *cobra.Command {
	var manifests, model string
	var how simulators.Replay
	cmd := &cobra.Command{
		Use:   "simulate FILE… | plant | --from-model MODEL",
		Short: "Play devices that speak the real protocols",
		Long: `Plays devices that speak the real protocols, until it is interrupted. It prints what listens where.

A FILE describes simulators, or is a recording of a device (whimbrel record), which is played again. "plant" is the demo
plant that also comes with whimbrel up: a boiler, a pump and a meter (Modbus), a press (OPC UA) and a scale (serial), on
free ports and a pty of this machine.

With --from-model it plays a device of a DeviceModel: what is read moves within the model's bounds, what is written is
remembered. It prints a Device that fits, to be applied.`,
		Example: `  whimbrel simulate plant
  whimbrel simulate plant --manifests plant.yaml
  whimbrel simulate boiler-room.yaml
  whimbrel simulate boiler-1.jsonl --speed 10 --manifests replay.yaml
  whimbrel simulate --from-model meter.yaml --listen 127.0.0.1:5020
  whimbrel simulate --from-model sdm630 --listen 'rtu:///tmp/ttyMeter?baud=9600'`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case model != "" && len(args) > 0:
				return cli.Usagef("--from-model is a simulator by itself: give no other argument")
			case model != "" && manifests != "":
				return cli.Usagef("--manifests are the plant's and of recordings; --from-model prints its own")
			case model == "" && len(args) == 0:
				return cli.Usagef(`simulate needs a FILE, "plant", or --from-model MODEL`)
			}
			return nil
		},
		ValidArgs: []string{plantName},
		RunE: func(cmd *cobra.Command, args []string) error {
			log, err := s.logger(cmd)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("speed") && how.Speed == 0 {
				return cli.Usagef("--speed must be above 0, and at most 1000: a recording that stands still has no next answer")
			}
			if model != "" && (how.Speed != 0 || how.Loop) {
				return cli.Usagef("--speed and --loop go with recordings, and --from-model plays none")
			}
			if model != "" {
				return simulateModel(cmd.Context(), model, how.Listen, log, cmd.OutOrStdout())
			}
			if err := how.Check(); err != nil {
				return cli.Usagef("--speed: %w", err)
			}
			// Files are read first: the plant listens as soon as it is made.
			var all []simulators.Simulator
			var described []describer
			for _, arg := range args {
				if arg == plantName {
					continue
				}
				sims, err := simulators.Load(arg, how)
				if err != nil {
					return err
				}
				for _, sim := range sims {
					if r, ok := sim.(*simulators.Recorded); ok {
						described = append(described, r)
					}
				}
				all = append(all, sims...)
			}
			if how != (simulators.Replay{}) && (len(described) != len(args) || how.Listen != "" && len(args) > 1) {
				return cli.Usagef("--speed, --loop and --listen go with recordings, --listen with one of them, or with --from-model")
			}
			if slices.Contains(args, plantName) {
				demo, err := plant.New()
				if err != nil {
					return err
				}
				all, described = append(all, demo), append(described, manifestOf(demo.Manifests()))
			}
			if manifests != "" {
				if err := describe(cmd.Context(), manifests, all, described); err != nil {
					return err
				}
			}
			return simulators.Run(cmd.Context(), all, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&manifests, "manifests", "", "write the models and devices of the plant or a recording to this file, for apply -f")
	cmd.Flags().StringVar(&model, "from-model", "", "play a device of the DeviceModel in this file, or of the ready model of this name")
	cmd.Flags().StringVar(&how.Listen, "listen", "", "where a model or a recording is played: host:port, rtu:///tmp/ttyMeter?baud=9600, serial:///tmp/ttyScale … (default: a free one)")
	cmd.Flags().Float64Var(&how.Speed, "speed", 0, "how many times faster a recording is played than it was recorded (default 1)")
	cmd.Flags().BoolVar(&how.Loop, "loop", false, "begin a recording again at its end; without it the last answers stand")
	return cmd
}

// describer is what knows its models and devices.
type describer interface {
	Manifest(node string) ([]byte, error)
}

// manifestOf is one that is written already.
type manifestOf []byte

// Manifest implements describer.
func (m manifestOf) Manifest(string) ([]byte, error) { return m, nil }

// describe writes models and devices. The simulators listen from then on, so
// that it is known where.
func describe(ctx context.Context, path string, all []simulators.Simulator, described []describer) error {
	if len(described) == 0 {
		return cli.Usagef("--manifests are the plant's and of recordings: add plant or a recording to the arguments")
	}
	var text []byte
	write := func() error {
		for _, s := range all {
			if err := s.Listen(); err != nil {
				return err
			}
		}
		for i, d := range described {
			part, err := d.Manifest(upNode)
			if err != nil {
				return err
			}
			if i > 0 {
				text = append(text, "---\n"...)
			}
			text = append(text, part...)
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return fmt.Errorf("manifests: %w", err)
		}
		return nil
	}
	err := write()
	if err != nil {
		over, cancel := context.WithCancel(ctx)
		cancel()
		for _, s := range all {
			err = errors.Join(err, s.Run(over)) // which lets go of the address
		}
	}
	return err
}

// simulateModel plays a device of a model until ctx ends.
func simulateModel(ctx context.Context, path, listen string, log *slog.Logger, out io.Writer) error {
	m, err := simulators.LoadModel(path)
	if err != nil {
		return err
	}
	sim, err := simulators.FromModel(m, listen, log)
	if err != nil {
		return err
	}
	if err := sim.Listen(); err != nil {
		return err
	}
	text, err := sim.Manifest(upNode)
	if err == nil {
		err = fits(sim)
	}
	if err != nil {
		over, cancel := context.WithCancel(ctx)
		cancel()
		return errors.Join(err, sim.Run(over)) // which lets go of the address
	}
	for _, line := range append(sim.Describe(), sim.Notes...) {
		fmt.Fprintf(out, "# %s: %s\n", sim.Name(), line)
	}
	fmt.Fprintf(out, "%s", text)
	return sim.Run(ctx)
}

// fits checks that the driver takes the device that is printed. It knows more of
// addresses than the simulator does.
func fits(sim *simulators.Modelled) error {
	d := sim.Device()
	properties, err := models.Resolve(sim.Model, d)
	if err != nil {
		return err
	}
	device, err := builtin.Drivers()[sim.Model.Spec.Protocol].Open(mappers.DeviceConfig{Name: d.Metadata.Name, Connection: d.Spec.Connection, Points: mappers.PointsOf(properties)})
	if err != nil {
		return err
	}
	return device.Close()
}
