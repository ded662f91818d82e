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
	var manifests, model, listen string
	cmd := &cobra.Command{
		Use:   "simulate FILE… | plant | --from-model FILE",
		Short: "Play devices that speak the real protocols",
		Long: `Plays devices that speak the real protocols, until it is interrupted. It prints what listens where.

A FILE describes simulators. "plant" is the demo plant that also comes with whimbrel up: a boiler, a pump and a meter
(Modbus), a press (OPC UA) and a scale (serial), on free ports and a pty of this machine.

With --from-model it plays a device of a DeviceModel: what is read moves within the model's bounds, what is written is
remembered. It prints a Device that fits, to be applied.`,
		Example: `  whimbrel simulate plant
  whimbrel simulate plant --manifests plant.yaml
  whimbrel simulate boiler-room.yaml
  whimbrel simulate --from-model meter.yaml --listen 127.0.0.1:5020`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case model != "" && len(args) > 0:
				return cli.Usagef("--from-model is a simulator by itself: give no other argument")
			case model == "" && listen != "":
				return cli.Usagef("--listen goes with --from-model; a FILE says itself where it listens")
			case model == "" && len(args) == 0:
				return cli.Usagef(`simulate needs a FILE, "plant", or --from-model FILE`)
			}
			return nil
		},
		ValidArgs: []string{plantName},
		RunE: func(cmd *cobra.Command, args []string) error {
			if manifests != "" && !slices.Contains(args, plantName) {
				return cli.Usagef("--manifests are the plant's: add plant to the arguments")
			}
			log, err := s.logger(cmd)
			if err != nil {
				return err
			}
			if model != "" && manifests == "" {
				return simulateModel(cmd.Context(), model, listen, log, cmd.OutOrStdout())
			}
			// Files are read first: the plant listens as soon as it is made.
			var all []simulators.Simulator
			for _, arg := range args {
				if arg == plantName {
					continue
				}
				sims, err := simulators.Load(arg)
				if err != nil {
					return err
				}
				all = append(all, sims...)
			}
			var demo *plant.Plant
			if slices.Contains(args, plantName) {
				var err error
				if demo, err = plant.New(); err != nil {
					return err
				}
				all = append(all, demo)
			}
			if manifests != "" {
				if err := os.WriteFile(manifests, demo.Manifests(), 0o644); err != nil {
					return fmt.Errorf("manifests: %w", err)
				}
			}
			return simulators.Run(cmd.Context(), all, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&manifests, "manifests", "", "write the models and devices that describe the plant to this file, for apply -f")
	cmd.Flags().StringVar(&model, "from-model", "", "play a device of the DeviceModel in this file")
	cmd.Flags().StringVar(&listen, "listen", "", "where: host:port, a line such as rtu:///tmp/ttyMeter?baud=9600, or serial:///tmp/ttyScale (default: a free one)")
	return cmd
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
	if err := fits(sim); err != nil {
		over, cancel := context.WithCancel(ctx)
		cancel()
		return errors.Join(err, sim.Run(over)) // which lets go of the address
	}
	for _, line := range append(sim.Describe(), sim.Notes...) {
		fmt.Fprintf(out, "# %s: %s\n", sim.Name(), line)
	}
	fmt.Fprintf(out, "%s", sim.Manifest(upNode))
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
