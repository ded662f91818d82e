package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/cloudapi/client"
	"github.com/whimbrel-edge/whimbrel/internal/durationflag"
	"github.com/whimbrel-edge/whimbrel/models"
)

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "token",
		GroupID: GroupAccess,
		Short:   "Make tokens: to let a node join, or for a user",
		Long: `Makes tokens: to let a node join, or for a user.

  whimbrel get tokens         lists them
  whimbrel delete token ID    makes one worthless`,
	}
	cmd.AddCommand(tokenCreateCommand())
	return cmd
}

func tokenCreateCommand() *cobra.Command {
	var conn connection
	var out output
	var node, user string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "create --node NAME | --user NAME",
		Short: "Make a token with which a node can join once, or one more token of a user",
		Long: `Makes a token with which a node of this name can join, once, and prints it and the command to run there. Or makes one more
API token of a user. The token is printed now and never again.`,
		Example: `  whimbrel token create --node gateway-1
  whimbrel token create --user ann --ttl 720h`,
		Args: arguments(0, 0, "--node NAME and no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			if (node == "") == (user == "") {
				return Usagef("token create needs --node NAME or --user NAME")
			}
			if ttl < 0 {
				return Usagef("--ttl must not be negative")
			}
			return conn.with(cmd, func(ctx context.Context, h hub) error {
				if user != "" {
					t, err := h.CreateUserToken(ctx, user, ttl)
					if err != nil {
						return err
					}
					return printToken(cmd, out, t, fmt.Sprintf("The API token of %s; it is not shown again.", user))
				}
				t, err := h.CreateJoinToken(ctx, node, ttl)
				if err != nil {
					return err
				}
				note := ""
				if t.Expires != nil {
					note = fmt.Sprintf("%s can join with it once, in the next %s. Run there:", node, age(time.Until(*t.Expires).Round(time.Second)))
				}
				return printToken(cmd, out, t, note)
			})
		},
	}
	conn.addFlags(cmd)
	out.addFlag(cmd, "json")
	cmd.Flags().StringVar(&node, "node", "", "name of the node that is to join")
	cmd.Flags().StringVar(&user, "user", "", "name of a user that is there")
	durationflag.Var(cmd.Flags(), &ttl, "ttl", 0, "how long the token is good for (default 1h for a node, for ever for a user)")
	_ = cmd.RegisterFlagCompletionFunc("node", conn.completeNames("Node")) // fails for unknown flags only
	_ = cmd.RegisterFlagCompletionFunc("user", conn.completeNames("User"))
	return cmd
}

// printToken prints a secret, alone on its line. What else there is to say goes
// to stderr, so that a script gets the token and, for a node, the command.
func printToken(cmd *cobra.Command, out output, t client.Token, note string) error {
	w := cmd.OutOrStdout()
	if out.document() {
		return out.print(w, t)
	}
	fmt.Fprintln(w, t.Token)
	if note != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), note)
	}
	if t.Command != "" {
		fmt.Fprintln(w, t.Command)
	}
	return nil
}

func userCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "user",
		GroupID: GroupAccess,
		Short:   "Make users",
		Long: `Makes users.

  whimbrel get users            lists them
  whimbrel delete user NAME     deletes one, and all of its tokens`,
	}
	cmd.AddCommand(userCreateCommand())
	return cmd
}

func userCreateCommand() *cobra.Command {
	var conn connection
	var out output
	var role string
	var all bool
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "create NAME --role viewer|operator|admin [-n NAMESPACE | --all-namespaces]",
		Short: "Make a user and its first API token",
		Long: `Makes a user and its first API token, which is printed now and never again.

A viewer may read. An operator may also set what devices should be. An admin may do everything. The role holds in the
namespace that -n names, or in all.`,
		Example: `  whimbrel user create ann --role operator
  whimbrel user create dashboard --role viewer --all-namespaces`,
		Args: arguments(1, 1, "a NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			switch models.Role(role) {
			case models.Viewer, models.Operator, models.Admin:
			default:
				return Usagef("--role must be viewer, operator or admin, got %q", role)
			}
			if ttl < 0 {
				return Usagef("--ttl must not be negative")
			}
			if all && cmd.Flags().Changed("namespace") {
				return Usagef("--namespace and --all-namespaces cannot be given together")
			}
			u := &models.User{TypeMeta: models.TypeMeta{APIVersion: models.APIVersion, Kind: "User"}, Metadata: models.ObjectMeta{Name: args[0]},
				Spec: models.UserSpec{Role: models.Role(role), Namespace: conn.namespace}}
			if all {
				u.Spec.Namespace = models.AllNamespaces
			}
			return conn.with(cmd, func(ctx context.Context, h hub) error {
				if err := h.Create(ctx, u); err != nil {
					if models.KindOf(err) == models.KindConflict {
						return models.Errorf(models.KindConflict, "user/%s exists already; one more token for it: whimbrel token create --user %s", args[0], args[0])
					}
					return err
				}
				t, err := h.CreateUserToken(ctx, args[0], ttl)
				if err != nil {
					return fmt.Errorf("user/%s was made, but its token was not; try again with: whimbrel token create --user %s: %w", args[0], args[0], err)
				}
				return printToken(cmd, out, t, fmt.Sprintf("user/%s created. That is its API token; it is not shown again.", args[0]))
			})
		},
	}
	conn.addFlags(cmd)
	out.addFlag(cmd, "json")
	cmd.Flags().StringVar(&role, "role", "", "viewer, operator or admin")
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "the role holds in every namespace")
	durationflag.Var(cmd.Flags(), &ttl, "ttl", 0, "how long the token is good for (default for ever)")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"viewer", "operator", "admin"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
