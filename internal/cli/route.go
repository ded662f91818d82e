package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/internal/durationflag"
	"github.com/whimbrel-edge/whimbrel/models"
)

func routeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "route",
		GroupID: GroupObjects,
		Short:   "Give routes messages, and look after those that could not be delivered",
	}
	cmd.AddCommand(routePublishCommand(), routeDeadCommand(), routeReplayCommand(), routeDropCommand())
	return cmd
}

func routePublishCommand() *cobra.Command {
	var conn connection
	var data, file, contentType string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "publish NAME (-d TEXT | -f FILE)",
		Short: "Give a route whose source is REST a message",
		Long: `Gives a route whose source is REST a message, and prints what its target answers. It exits 1 when the target refuses, or does
not answer in time; the message stays queued then.`,
		Example: `  whimbrel route publish recipes -d '{"recipe": 7}'
  whimbrel route publish photos -f photo.jpg --content-type image/jpeg --wait 30s`,
		Args: arguments(1, 1, "the name of a route"),
		RunE: func(cmd *cobra.Command, args []string) error {
			payload := []byte(data)
			switch {
			case cmd.Flags().Changed("data") == cmd.Flags().Changed("filename"):
				return Usagef("give the message with -d or with -f")
			case file == "-":
				var err error
				if payload, err = io.ReadAll(cmd.InOrStdin()); err != nil {
					return fmt.Errorf("standard input: %w", err)
				}
			case file != "":
				var err error
				if payload, err = os.ReadFile(file); err != nil {
					return err
				}
			}
			if !cmd.Flags().Changed("wait") {
				wait = -1
			}
			return conn.with(cmd, func(ctx context.Context, h hub) error {
				status, answer, err := h.PublishRoute(ctx, conn.namespace, args[0], contentType, payload, wait)
				if err != nil {
					return routeError(err, conn.namespace, args[0])
				}
				w := cmd.OutOrStdout()
				_, _ = w.Write(answer)
				if len(answer) > 0 && answer[len(answer)-1] != '\n' {
					fmt.Fprintln(w)
				}
				if status >= 300 {
					return models.Errorf(models.KindRefused, "the target answered %d", status)
				}
				return nil
			})
		},
	}
	conn.addFlags(cmd)
	cmd.Flags().StringVarP(&data, "data", "d", "", "the message")
	cmd.Flags().StringVarP(&file, "filename", "f", "", "the file with the message, or - for standard input")
	cmd.Flags().StringVar(&contentType, "content-type", "application/json", "of the message")
	durationflag.Var(cmd.Flags(), &wait, "wait", 10*time.Second, "wait that long for the target's answer, at most 5m; 0s: do not")
	return cmd
}

func routeDeadCommand() *cobra.Command {
	var conn connection
	var out output
	cmd := &cobra.Command{
		Use:     "dead NAME",
		Aliases: []string{"dead-letters", "deadletters"},
		Short:   "List messages of a route that could not be delivered",
		Example: `  whimbrel route dead alarms-to-erp
  whimbrel route dead alarms-to-erp -o json`,
		Args: arguments(1, 1, "the name of a route"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			return conn.with(cmd, func(ctx context.Context, h hub) error {
				items, err := h.DeadLetters(ctx, conn.namespace, args[0])
				if err != nil {
					return routeError(err, conn.namespace, args[0])
				}
				w := cmd.OutOrStdout()
				if out.document() {
					return out.print(w, items)
				}
				t, now := &table{titles: []string{"ID!", "AGE", "FROM", "ATTEMPTS", "ERROR", "PAYLOAD"}}, time.Now()
				for _, d := range items {
					from := d.Topic
					if d.Node != "" {
						from = d.Node + " " + d.Topic
					}
					t.row(strconv.FormatInt(d.ID, 10), since(&d.Accepted, now), orNothing(from), fmt.Sprint(d.Attempts), d.Error, glimpse(d.Payload))
				}
				if len(items) == 0 {
					fmt.Fprintln(w, "No dead letters.")
					return nil
				}
				t.write(w, terminalWidth(w), "")
				return nil
			})
		},
	}
	conn.addFlags(cmd)
	out.addFlag(cmd, "json", "yaml")
	return cmd
}

// glimpse is the beginning of a payload.
func glimpse(payload []byte) string {
	const most = 60
	if !utf8.Valid(payload) {
		return fmt.Sprintf("%d bytes", len(payload))
	}
	text := []rune(string(payload))
	if len(text) > most {
		return string(text[:most-1]) + "…"
	}
	return string(text)
}

func routeReplayCommand() *cobra.Command {
	return deadLettersCommand("replay", "Try messages of a route again that could not be delivered", "are tried again",
		func(ctx context.Context, h hub, namespace, name string, ids []int64) (int, error) {
			return h.ReplayDeadLetters(ctx, namespace, name, ids)
		})
}

func routeDropCommand() *cobra.Command {
	return deadLettersCommand("drop", "Delete messages of a route that could not be delivered", "deleted",
		func(ctx context.Context, h hub, namespace, name string, ids []int64) (int, error) {
			return h.DropDeadLetters(ctx, namespace, name, ids)
		})
}

// deadLettersCommand does something with all dead letters or with some.
func deadLettersCommand(verb, short, done string, do func(ctx context.Context, h hub, namespace, name string, ids []int64) (int, error)) *cobra.Command {
	var conn connection
	var all bool
	cmd := &cobra.Command{
		Use:   verb + " NAME (ID… | --all)",
		Short: short,
		Args:  arguments(1, -1, "the name of a route and ids of dead letters"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var ids []int64
			for _, text := range args[1:] {
				id, err := strconv.ParseInt(text, 10, 64)
				if err != nil {
					return Usagef("%q is no id of a dead letter; route dead lists them", text)
				}
				ids = append(ids, id)
			}
			if all == (len(ids) > 0) {
				return Usagef("name dead letters by their ids, or all of them with --all")
			}
			return conn.with(cmd, func(ctx context.Context, h hub) error {
				n, err := do(ctx, h, conn.namespace, args[0], ids)
				if err != nil {
					return routeError(err, conn.namespace, args[0])
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%d %s\n", n, done)
				if n < len(ids) {
					return models.Errorf(models.KindNotFound, "the others are not there any more")
				}
				return nil
			})
		},
	}
	conn.addFlags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all of the route")
	return cmd
}

// routeError says that a route is not there in the words of all commands.
func routeError(err error, namespace, route string) error {
	if models.KindOf(err) == models.KindNotFound {
		return notFound(models.Key{Kind: "Route", Namespace: namespace, Name: route})
	}
	return err
}

// route writes what a route does, and how it is doing.
func (d *description) route(o *models.Route) error {
	d.optional("Description", o.Spec.Description)
	from, to := routeEnds(o)
	d.field("From", "%s", from)
	d.optional("On nodes", labels(o.Spec.From.NodeSelector))
	d.optional("When", o.Spec.When)
	d.optional("Transform", o.Spec.Transform)
	d.field("To", "%s", to)
	if m := o.Spec.To.MQTT; m != nil {
		d.optional("On nodes", labels(m.NodeSelector))
	}
	if del := o.Spec.Delivery; del.TTL != nil && del.Retries != nil {
		d.field("Delivery", "ttl %s, %d retries", del.TTL.Std(), *del.Retries)
	}
	s := models.RouteStatus{}
	if o.Status != nil {
		s = *o.Status
	}
	d.field("Messages", "%d delivered, %d failed, %d dropped, %d queued, %d dead letters", s.Delivered, s.Failed, s.Dropped, s.Queued, s.DeadLetters)
	if s.LastError != "" {
		d.field("Last error", "%s (%s)", s.LastError, ago(s.LastErrorTime, d.now))
	}
	d.conditions(s.Conditions)
	return nil
}
