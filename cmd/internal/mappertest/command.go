package mappertest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/cmd/internal/edgeflags"
	"github.com/whimbrel-edge/whimbrel/models"
)

// Command returns `mapper test`.
func Command() *cobra.Command {
	var name, path, output string
	var program, verbose bool
	var only []string
	cmd := &cobra.Command{
		Use:   "test --name NAME --device FILE --exec CMD [ARG…]",
		Short: "Check a mapper that is a process of its own against numbered requirements",
		Long: `Start a mapper and check it against numbered requirements: that it announces
itself, reads a batch in its types, writes and reads back, refuses a bad address,
survives a device that is lost, silent or slow, comes back after a cut connection
and after its own death, stops within 2 s, and leaks nothing.

The mapper finds the broker to connect to in its environment, as it does beside
an edge: WHIMBREL_MQTT_URL, WHIMBREL_MQTT_USERNAME, WHIMBREL_MQTT_PASSWORD. The
file says what device to test with, what it holds and how it is disturbed; see
docs/mapper-protocol.md. Exit code 1: a requirement is not met.`,
		Example: "  whimbrel mapper test --name scpi --device examples/mapper-python/test.yaml \\\n" +
			"    --exec python3 examples/mapper-python/scpi_mapper.py",
		RunE: func(cmd *cobra.Command, args []string) error {
			usage := func(format string, args ...any) error { return edgeflags.UsageError{Err: fmt.Errorf(format, args...)} }
			switch {
			case !program || len(args) == 0:
				return usage("--exec CMD is required, after all other flags: the command that starts the mapper")
			case models.CheckLabelName(name) != "":
				return usage("--name is required: the mapper's, which %s", models.CheckLabelName(name))
			case path == "":
				return usage("--device is required: the file that says what device to test with")
			case output != "text" && output != "json":
				return usage("-o must be text or json, got %q", output)
			}
			log := slog.New(slog.DiscardHandler)
			if verbose {
				log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			}
			tell := func(Result) {}
			if output == "text" {
				tell = func(r Result) { print(cmd.OutOrStdout(), r) }
			}
			report, err := Run(cmd.Context(), name, path, args, only, log, tell)
			if err != nil {
				return err
			}
			if output == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				err = enc.Encode(report)
			} else {
				if report.Output != "" {
					fmt.Fprintf(cmd.OutOrStdout(), "\nThe mapper's last words:\n%s\n", strings.TrimRight(report.Output, "\n"))
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "\n%s %s: %d passed, %d failed, %d skipped\n", report.Mapper, report.Version, report.Passed, report.Failed, report.Skipped)
			}
			if err == nil && report.Failed > 0 {
				err = errors.New("the mapper does not meet every requirement")
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&program, "exec", false, "what follows is the command that starts the mapper, with its arguments; the last flag")
	cmd.Flags().StringVar(&name, "name", "", "name of the mapper")
	cmd.Flags().StringVar(&path, "device", "", "file that says what device to test with")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cmd.Flags().StringSliceVar(&only, "only", nil, "check these requirements alone, such as D13,P04")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "show what the broker logs")
	cmd.Flags().SetInterspersed(false) // what follows --exec CMD is the mapper's
	return cmd
}

func print(w io.Writer, r Result) {
	word := map[string]string{"passed": "ok  ", "failed": "FAIL", "skipped": "skip"}[r.Result]
	fmt.Fprintf(w, "%s  %s  %s (%.2fs)\n", word, r.ID, r.Name, r.Seconds)
	for _, m := range r.Messages {
		fmt.Fprintf(w, "      %s\n", strings.ReplaceAll(m, "\n", "\n      "))
	}
}
