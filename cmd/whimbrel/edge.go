package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/cmd/internal/edgeflags"
	"github.com/whimbrel-edge/whimbrel/internal/cli"
)

// newEdge is `whimbrel edge`.
func newEdge(s *settings) *cobra.Command {
	cmd := edgeflags.Command("edge", s.logger)
	cmd.Example = "  whimbrel edge --hub https://hub.example.com:8443 --name gateway-1 --token wt1.… --data /var/lib/whimbrel\n" +
		"  whimbrel edge --data /var/lib/whimbrel"
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		err := run(cmd, args)
		var usage edgeflags.UsageError
		if errors.As(err, &usage) {
			return cli.Usagef("%w", usage.Err)
		}
		return err
	}
	return cmd
}
