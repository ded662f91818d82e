// Package mappercmd is `mapper credential`, of both binaries: what makes a
// program that runs beside an edge one of its mappers.
package mappercmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/cmd/internal/edgeflags"
	"github.com/whimbrel-edge/whimbrel/edgeruntime"
	"github.com/whimbrel-edge/whimbrel/mappers/builtin"
)

// Credential returns the command.
func Credential() *cobra.Command {
	var data, output string
	var remove bool
	cmd := &cobra.Command{
		Use:   "credential NAME",
		Short: "Make what a mapper in a process of its own connects to this edge with",
		Long: `Make the MQTT user name and password of the mapper NAME, for the edge that keeps
its data here, running or not. With them a program may speak for that mapper, and
use no other topics. The password is printed once; the one before no longer
works. A program that is connected with a former password, or with one that
--remove takes away, is disconnected within a second or two.

--data is the edge's directory, or that of "whimbrel up".`,
		Example: "  whimbrel mapper credential scpi --data /var/lib/whimbrel\n" +
			"  export $(whimbrel mapper credential scpi --data ./whimbrel-data -o env)",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" && output != "env" {
				return edgeflags.UsageError{Err: fmt.Errorf("-o must be text, json or env, got %q", output)}
			}
			dir := edgeDir(data)
			if remove {
				if err := edgeruntime.RemoveMapperCredential(dir, args[0]); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "mapper %s can no longer connect\n", args[0])
				return err
			}
			if _, own := builtin.Drivers()[args[0]]; own {
				return fmt.Errorf("%s is built into the edge, which would refuse a program of that name: give the mapper a name of its own", args[0])
			}
			c, err := edgeruntime.NewMapperCredential(dir, args[0])
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch output {
			case "json":
				return json.NewEncoder(out).Encode(c)
			case "env":
				_, err = fmt.Fprintf(out, "WHIMBREL_MQTT_URL=%s\nWHIMBREL_MQTT_USERNAME=%s\nWHIMBREL_MQTT_PASSWORD=%s\n", c.URL, c.Username, c.Password)
				return err
			}
			_, err = fmt.Fprintf(out, "broker    %s\nuser name %s\npassword  (once, on the next line)\n%s\n", c.URL, c.Username, c.Password)
			return err
		},
	}
	cmd.Flags().StringVar(&data, "data", edgeflags.DefaultData, "directory of the edge")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text, json, or env: lines for a program's environment")
	cmd.Flags().BoolVar(&remove, "remove", false, "take the credential away")
	return cmd
}

// edgeDir is the edge's directory within that of `whimbrel up`.
func edgeDir(data string) string {
	inner := filepath.Join(data, "edge")
	if _, err := os.Stat(filepath.Join(data, "mqtt.json")); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(inner, "mqtt.json")); err == nil {
			return inner
		}
	}
	return data
}
