package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/cloudapi/client"
	"github.com/whimbrel-edge/whimbrel/internal/podstream"
)

// exitInterrupted is the exit code of a command that Ctrl-C has ended, as shells
// have it.
const exitInterrupted = 128 + 2

func execCommand() *cobra.Command {
	var conn connection
	var stdin, tty bool
	o := client.ExecOptions{}
	cmd := &cobra.Command{
		Use:     "exec APP -- CMD [ARG…]",
		GroupID: GroupObjects,
		Short:   "Run a command in a container of an app",
		Long: `Runs a command in a container of an app, beside what runs there. APP names an app, of whose pods a ready one is chosen, or a
pod; deployment/NAME, ds/NAME, sts/NAME and pod/NAME say which. There is no shell unless the image has one and it is named.

The exit code is the command's; 1 also when it could not be run or the connection to it was lost, which is said on stderr then.
Who leaves, by Ctrl-C or because of the connection, ends the command. What was run, by whom and when, is in the audit.`,
		Example: `  whimbrel exec web -- /app --version
  whimbrel exec web -c sidecar -- sh -c 'ls /data | wc -l'
  whimbrel exec -it pod/web-1 -- sh
  whimbrel exec -i web -- tar xf - -C /data < data.tar`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch at := cmd.ArgsLenAtDash(); {
			case len(args) == 0 || at == 0:
				return Usagef("%s needs the name of an app, and after -- a command", cmd.CommandPath())
			case at < 0:
				return Usagef("%s needs -- between the app and the command: exec %s -- CMD", cmd.CommandPath(), args[0])
			case at > 1:
				return Usagef("%s needs one app before --, got also %q", cmd.CommandPath(), args[1])
			case len(args) == 1:
				return Usagef("%s needs a command after --", cmd.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: conn.completeApp(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return conn.with(cmd, func(ctx context.Context, h hub) error {
				a, err := conn.findApp(ctx, h, args[0])
				if err != nil {
					return err
				}
				p := a.one(cmd.ErrOrStderr())
				o.Container, o.Command = container(cmd.ErrOrStderr(), p, o.Container), args[1:]
				o.Stdout, o.Stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
				if stdin {
					o.Stdin = cmd.InOrStdin()
				}
				code, err := inTerminal(ctx, cmd, tty, &o, func(ctx context.Context) (int, error) {
					return h.Exec(ctx, p.Metadata.Namespace, p.Metadata.Name, o)
				})
				switch {
				case ctx.Err() != nil && err != nil:
					return exitCode{code: exitInterrupted}
				case err != nil:
					return err
				case code != 0:
					return exitCode{code: code}
				}
				return nil
			})
		},
	}
	conn.addFlags(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.Container, "container", "c", "", "container of the pod (default: the first)")
	f.BoolVarP(&stdin, "stdin", "i", false, "give the command this one's standard input")
	f.BoolVarP(&tty, "tty", "t", false, "give the command a terminal, with -i this one")
	return cmd
}

// inTerminal runs a command that is to have a terminal, in ours when it gets our
// input. Ours is then as the command wants it, and as it was afterwards.
func inTerminal(ctx context.Context, cmd *cobra.Command, tty bool, o *client.ExecOptions, run func(context.Context) (int, error)) (int, error) {
	in, isFile := o.Stdin.(*os.File)
	if !tty {
		return run(ctx)
	}
	if o.Stdin == nil {
		o.TTY = true
		return run(ctx)
	}
	if !isFile || !isTerminal(in) {
		fmt.Fprintln(cmd.ErrOrStderr(), "The input is no terminal, so the command gets none: -t does nothing.")
		return run(ctx)
	}
	o.TTY = true
	restore, err := makeRaw(in)
	if err != nil {
		return 0, err
	}
	defer restore()
	sizes := make(chan podstream.Size, 1) // the latest: a terminal has one size
	o.Resize = sizes
	stop := followSize(in, sizes)
	defer stop()
	code, err := run(ctx)
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprint(cmd.ErrOrStderr(), "\r\n") // what is said next is to begin a line
	}
	return code, err
}

// Exec implements hub.
func (r remote) Exec(ctx context.Context, namespace, name string, o client.ExecOptions) (int, error) {
	return r.c.Exec(ctx, namespace, name, o)
}
