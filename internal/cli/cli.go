// Package cli is the client commands of whimbrel, on cobra: what a person does
// to a hub from a terminal. It also runs a tree of commands, with the exit codes
// and the environment variables that hold for all of them. Only cmd/whimbrel
// imports it; the edge's own binary must not.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// The groups under which help lists the commands.
const (
	GroupRun     = "run"
	GroupObjects = "objects"
	GroupAccess  = "access"
)

// New returns the root command with the client's commands. cmd adds the others
// to it.
func New() *cobra.Command {
	root := &cobra.Command{
		Use:   "whimbrel",
		Short: "Manage devices at the edge that must work as long without the cloud",
		Long: `Whimbrel manages devices at the edge that must work as long without the cloud.

Start everything at once, with a simulated plant to try it on:

  whimbrel up

Every flag can also be given by the environment: --log-level is WHIMBREL_LOG_LEVEL.`,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return bindEnvironment(cmd) },
	}
	root.AddGroup(
		&cobra.Group{ID: GroupRun, Title: "Run:"},
		&cobra.Group{ID: GroupObjects, Title: "Devices and other objects:"},
		&cobra.Group{ID: GroupAccess, Title: "Who may do what:"},
	)
	root.AddCommand(getCommand(), describeCommand(), applyCommand(), diffCommand(), deleteCommand(), twinCommand(), trustCommand(), browseCommand(), historyCommand(), rolloutCommand(), imageCommand(), routeCommand(), modelCommand(),
		tokenCommand(), userCommand(), versionCommand())
	root.AddCommand(recordCommand(), logsCommand(), execCommand())
	return root
}

// Execute runs the command that the process's arguments name and returns the
// process's exit code. What went wrong is on stderr.
func Execute(ctx context.Context, root *cobra.Command) int {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{inWords(err)} })
	root.InitDefaultCompletionCmd()
	began := false
	each(root, func(cmd *cobra.Command) {
		if cmd != root && !cmd.Runnable() && cmd.HasSubCommands() {
			cmd.RunE = chooseSubcommand
		}
		if run := cmd.RunE; run != nil {
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				began = true
				return run(cmd, args)
			}
		}
	})
	cmd, err := root.ExecuteContextC(ctx)
	var code exitCode
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &code):
		if code.err != nil {
			printError(cmd.ErrOrStderr(), code.err)
		}
		return code.code
	case !began || errors.As(err, &usage):
		fmt.Fprintf(cmd.ErrOrStderr(), "error: %s\n", strings.TrimSpace(err.Error()))
		fmt.Fprintf(cmd.ErrOrStderr(), "Run '%s --help' for how to use it.\n", cmd.CommandPath())
		return exitUsage
	}
	printError(cmd.ErrOrStderr(), err)
	return exitFailed
}

// each calls do for cmd and everything below it.
func each(cmd *cobra.Command, do func(*cobra.Command)) {
	do(cmd)
	for _, sub := range cmd.Commands() {
		each(sub, do)
	}
}

// chooseSubcommand is what a command does that only groups others.
func chooseSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	text := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
	if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
		text += "; did you mean " + strings.Join(similar, " or ") + "?"
	}
	return Usagef("%s", text)
}

// usageError is a command that was called wrongly: exit code 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Usagef returns an error that means that the command was called wrongly: the
// process's exit code is then 2.
func Usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitCode asks for an exit code; err is nil when everything is said already.
type exitCode struct {
	code int
	err  error
}

func (e exitCode) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e exitCode) Unwrap() error { return e.err }

// failed is the error of a command that has said on stderr what went wrong.
var failed = exitCode{code: exitFailed}

// environment is the variable that stands for a flag.
func environment(flag string) string {
	return "WHIMBREL_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// bindEnvironment sets the flags that were not given from their variables. An
// empty variable counts as not there.
func bindEnvironment(cmd *cobra.Command) error {
	var errs []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := environment(f.Name)
		value := os.Getenv(name)
		if f.Changed || f.Name == "help" || value == "" {
			return
		}
		if err := cmd.Flags().Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	})
	if err := errors.Join(errs...); err != nil {
		return usageError{err}
	}
	return nil
}

// arguments returns a check of how many arguments there are, in the command's
// own words. most below 0 is no bound.
func arguments(least, most int, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return Usagef("%s needs %s", cmd.CommandPath(), want)
		case most >= 0 && len(args) > most:
			return Usagef("%s needs %s, and nothing after; got %q", cmd.CommandPath(), want, args[most])
		}
		return nil
	}
}

// notNumber finds how Go says that the value of a flag is no number.
var notNumber = regexp.MustCompile(`strconv\.Parse(Int|Uint|Float): parsing "[^"]*": (invalid syntax|value out of range)`)

// inWords says of a flag's value what it must be.
func inWords(err error) error {
	m := notNumber.FindStringSubmatch(err.Error())
	if m == nil {
		return err
	}
	want := "must be a whole number"
	switch {
	case m[2] == "value out of range":
		want = "is too large"
	case m[1] == "Float":
		want = "must be a number"
	}
	return errors.New(notNumber.ReplaceAllLiteralString(err.Error(), want))
}
