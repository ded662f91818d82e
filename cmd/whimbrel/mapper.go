package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/cmd/internal/edgeflags"
	"github.com/whimbrel-edge/whimbrel/cmd/internal/mappercmd"
	"github.com/whimbrel-edge/whimbrel/cmd/internal/mappertest"
	"github.com/whimbrel-edge/whimbrel/internal/cli"
)

// newMapper is `whimbrel mapper`.
func newMapper(*settings) *cobra.Command {
	cmd := &cobra.Command{Use: "mapper", Short: "Mappers in processes of their own: what they connect with, and a test of them"}
	for _, sub := range []*cobra.Command{mappercmd.Credential(), mappertest.Command()} {
		run := sub.RunE
		sub.RunE = func(cmd *cobra.Command, args []string) error {
			err := run(cmd, args)
			var usage edgeflags.UsageError
			if errors.As(err, &usage) {
				return cli.Usagef("%w", usage.Err)
			}
			return err
		}
		cmd.AddCommand(sub)
	}
	return cmd
}
