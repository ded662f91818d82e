package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/internal/version"
)

func versionCommand() *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Say which Whimbrel this is",
		Args:  arguments(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			if !out.document() {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), version.String())
				return err
			}
			return out.print(cmd.OutOrStdout(), struct {
				Version string `json:"version"`
				Commit  string `json:"commit,omitempty"`
				Go      string `json:"go"`
				OS      string `json:"os"`
				Arch    string `json:"arch"`
			}{version.Version, version.Revision(), runtime.Version(), runtime.GOOS, runtime.GOARCH})
		},
	}
	out.addFlag(cmd, "json", "yaml")
	return cmd
}
