// Command whimbrel-edge is the edge runtime alone, for small gateways: what
// `whimbrel edge` is in the binary that has everything. Nothing of the cloud half
// is linked in.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/whimbrel-edge/whimbrel/cmd/internal/edgeflags"
	"github.com/whimbrel-edge/whimbrel/cmd/internal/logging"
	"github.com/whimbrel-edge/whimbrel/cmd/internal/mappercmd"
	"github.com/whimbrel-edge/whimbrel/internal/version"
)

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal kills
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run runs the command that args name until it is done or ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	began := false
	cmd := command(&began)
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.ExecuteContext(ctx)
	var usage edgeflags.UsageError
	switch {
	case err == nil:
		return exitDone
	case !began || errors.As(err, &usage):
		fmt.Fprintf(stderr, "error: %s\nRun 'whimbrel-edge --help' for how to use it.\n", err)
		return exitUsage
	}
	fmt.Fprintf(stderr, "error: %s\n", err)
	return exitFailed
}

// command makes the root command. began becomes true when the arguments were
// good.
func command(began *bool) *cobra.Command {
	var logs logging.Config
	cmd := edgeflags.Command("whimbrel-edge", func(cmd *cobra.Command) (*slog.Logger, error) { return logs.Logger(cmd.ErrOrStderr()) })
	cmd.Long += "\n\nEvery flag can also be given by the environment: --outbox-age is WHIMBREL_OUTBOX_AGE."
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	logs.AddFlags(cmd)
	cmd.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return bindEnvironment(cmd) }
	// Not cobra's own: its templates would keep every method of every type in the
	// binary.
	asked := cmd.Flags().Bool("version", false, "print the version")
	do := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		*began = true
		if *asked {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version.String())
			return err
		}
		return do(cmd, args)
	}
	cmd.AddCommand(&cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		*began = true
		_, err := fmt.Fprintln(cmd.OutOrStdout(), version.String())
		return err
	}})
	credential := mappercmd.Credential()
	run := credential.RunE
	credential.RunE = func(cmd *cobra.Command, args []string) error {
		*began = true
		return run(cmd, args)
	}
	mapper := &cobra.Command{Use: "mapper", Short: "Mappers in processes of their own"}
	mapper.AddCommand(credential)
	cmd.AddCommand(mapper)
	return cmd
}

// bindEnvironment sets the flags that were not given from their variables. An
// empty variable counts as not there.
func bindEnvironment(cmd *cobra.Command) error {
	var errs []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := "WHIMBREL_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value := os.Getenv(name)
		if f.Changed || value == "" || f.Name == "help" || f.Name == "version" {
			return
		}
		if err := cmd.Flags().Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	})
	return errors.Join(errs...)
}
