package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/internal/cli"
	"github.com/whimbrel-edge/whimbrel/simulators"
	"github.com/whimbrel-edge/whimbrel/simulators/plant"
)

// plantName stands for the demo plant among the files of simulate.
const plantName = "plant"

// newSimulate is `whimbrel simulate`.
func newSimulate(s *settings) *cobra.Command {
	var manifests string
	cmd := &cobra.Command{
		Use:   "simulate FILE… | plant",
		Short: "Play devices that speak the real protocols",
		Long: `Plays devices that speak the real protocols, until it is interrupted. It prints what listens where.

A FILE describes simulators. "plant" is the demo plant that also comes with whimbrel up: a boiler, a pump and a meter
(Modbus), a press (OPC UA) and a scale (serial), on free ports and a pty of this machine.`,
		Example: `  whimbrel simulate plant
  whimbrel simulate plant --manifests plant.yaml
  whimbrel simulate boiler-room.yaml`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cli.Usagef(`simulate needs a FILE, or "plant"`)
			}
			return nil
		},
		ValidArgs: []string{plantName},
		RunE: func(cmd *cobra.Command, args []string) error {
			if manifests != "" && !slices.Contains(args, plantName) {
				return cli.Usagef("--manifests are the plant's: add plant to the arguments")
			}
			if _, err := s.logger(cmd); err != nil {
				return err
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
	return cmd
}
