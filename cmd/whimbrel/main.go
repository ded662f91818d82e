// Command whimbrel is all of Whimbrel in one binary: the hub, the edge, the
// simulators, and the commands that talk to a hub.
package main

import (
	"context"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/cmd/internal/logging"
	"github.com/whimbrel-edge/whimbrel/internal/cli"
)

// runners are the commands that run something here; all others talk to a hub.
// Each is in a file of its name.
var runners = []func(*settings) *cobra.Command{
	newHub,
	newEdge,
	newUp,
	newSimulate,
	newMapper,
}

// settings are the flags that hold for every command.
type settings struct{ logging logging.Config }

// logger returns the logger that the flags ask for. What libraries tell the
// standard library's logger becomes debug records of it.
func (s *settings) logger(cmd *cobra.Command) (*slog.Logger, error) {
	to, err := s.logging.Logger(cmd.ErrOrStderr())
	if err != nil {
		return nil, cli.Usagef("%w", err)
	}
	log.SetFlags(0)
	log.SetOutput(slog.NewLogLogger(to.Handler(), slog.LevelDebug).Writer())
	return to, nil
}

func main() { os.Exit(run()) }

// run runs the command that the arguments name, until it is done or a signal
// ends it. A second signal kills.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	root := cli.New()
	s := &settings{}
	s.logging.AddFlags(root)
	root.AddCommand(commands(s)...)
	return cli.Execute(ctx, root)
}

// commands makes the commands of runners.
func commands(s *settings) []*cobra.Command {
	var all []*cobra.Command
	for _, command := range runners {
		cmd := command(s)
		cmd.GroupID = cli.GroupRun
		all = append(all, cmd)
	}
	return all
}
