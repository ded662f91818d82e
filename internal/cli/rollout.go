package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/internal/durationflag"
	"github.com/whimbrel-edge/whimbrel/models"
)

func rolloutCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rollout",
		GroupID: GroupObjects,
		Short:   "Follow an app to its new revision, or go back to an earlier one",
		Long: `Follows an app to its new revision, or goes back to an earlier one.

APP is the name of a Deployment, DaemonSet or StatefulSet, or KIND/NAME, such as ds/agent.`,
	}
	cmd.AddCommand(rolloutStatusCommand(), rolloutUndoCommand(), rolloutHistoryCommand(), rolloutRestartCommand())
	return cmd
}

// appKeys are the keys that an app's name can mean: NAME is a Deployment, unless only
// another kind has the name; KIND/NAME is of that kind.
func appKeys(c *connection, arg string) ([]models.Key, error) {
	kind, name, typed := strings.Cut(arg, "/")
	if !typed {
		name = arg
	}
	if msg := models.CheckSubdomain(name); msg != "" {
		return nil, Usagef("%q is no app's name: it %s", name, msg)
	}
	kinds := models.WorkloadKinds
	if typed {
		info, err := kindOf(kind)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(models.WorkloadKinds, info.Kind) {
			return nil, Usagef("%s is no app: it must be deployment/NAME, daemonset/NAME or statefulset/NAME", arg)
		}
		kinds = []string{info.Kind}
	}
	var keys []models.Key
	for _, k := range kinds {
		keys = append(keys, models.Key{Kind: k, Namespace: c.namespace, Name: name})
	}
	return keys, nil
}

// findWorkload returns the app that is meant, see appKeys. The hub sees to it that there
// is one at most.
func findWorkload(ctx context.Context, c *connection, h hub, arg string) (models.Workload, error) {
	keys, err := appKeys(c, arg)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		o, err := h.Get(ctx, key)
		if models.KindOf(err) == models.KindNotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		app, ok := o.(models.Workload)
		if !ok {
			return nil, fmt.Errorf("%s is a %s", short(key), o.Type().Kind)
		}
		return app, nil
	}
	return nil, notFound(keys[0])
}

// completeWorkload completes names of apps, and KIND/NAME once the kind is there.
func (c *connection) completeWorkload() completion {
	return func(cmd *cobra.Command, given []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(given) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		kind, _, is := strings.Cut(typed, "/")
		if is {
			info, ok := models.KindByName(kind)
			if !ok || !slices.Contains(models.WorkloadKinds, info.Kind) {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			names, directive := c.completeNames(info.Kind)(cmd, nil, strings.TrimPrefix(typed, kind+"/"))
			for i := range names {
				names[i] = kind + "/" + names[i]
			}
			return names, directive
		}
		var all []string
		directive := cobra.ShellCompDirectiveNoFileComp
		for _, kind := range models.WorkloadKinds {
			var names []string
			names, directive = c.completeNames(kind)(cmd, nil, typed)
			all = append(all, names...)
		}
		return all, directive
	}
}

func rolloutStatusCommand() *cobra.Command {
	var conn connection
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "status APP",
		Short: "Wait until all pods of an app are up at its newest revision",
		Long: `Waits until all pods of an app are up at its newest revision, and shows how far it is.

It ends with an error when a pod does not come up, and says why. The pods that ran before then run on, and the hub goes on
by itself when the pod comes up after all.`,
		Example:           `  whimbrel apply -f app.yaml && whimbrel rollout status app`,
		Args:              arguments(1, 1, "the name of an app, or KIND/NAME"),
		ValidArgsFunction: conn.completeWorkload(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return conn.with(cmd, func(ctx context.Context, h hub) error {
				app, err := findWorkload(ctx, &conn, h, args[0])
				if err != nil {
					return err
				}
				return awaitRollout(ctx, cmd, h, models.KeyOf(app), timeout)
			})
		},
	}
	conn.addFlags(cmd)
	durationflag.Var(cmd.Flags(), &timeout, "timeout", 10*time.Minute, "give up after this long; the rollout goes on. 0: never")
	return cmd
}

// countEvery is how often a rollout is shown of which only a number changes, such as
// how much of an image has come.
const countEvery = 5 * time.Second

// onlyCounts reports whether two messages about an image on its way differ by how far it is.
func onlyCounts(a, b string) bool {
	text := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return -1
			}
			return r
		}, s)
	}
	return strings.Contains(a, models.PullingMessage) && text(a) == text(b)
}

// errRolledOut ends a watch that has seen enough.
var errRolledOut = errors.New("rolled out")

// awaitRollout follows an app until its rollout is through or fails.
func awaitRollout(ctx context.Context, cmd *cobra.Command, h hub, key models.Key, timeout time.Duration) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	shown, since := "", time.Time{}
	err := h.Watch(ctx, selection{kind: key.Kind, namespace: key.Namespace}, "", func(ev models.Event) error {
		app, ok := ev.Object.(models.Workload)
		if !ok || app.Meta().Name != key.Name {
			return nil
		}
		if ev.Type == models.Deleted {
			return models.Errorf(models.KindNotFound, "%s was deleted", short(key))
		}
		s := app.Standing()
		if s.ObservedGeneration < app.Meta().Generation {
			return nil // the status is of an earlier template still
		}
		c := conditionOf(s.Conditions, "Progressing")
		if c.Status == "False" {
			return models.Errorf(models.KindUnavailable, "%s: %s", short(key), c.Message)
		}
		if c.Message != shown && (!onlyCounts(shown, c.Message) || time.Since(since) >= countEvery) {
			shown, since = c.Message, time.Now()
			fmt.Fprintln(cmd.OutOrStdout(), shown)
		}
		if c.Reason == models.ReasonRolloutComplete {
			return errRolledOut
		}
		return nil
	})
	switch {
	case errors.Is(err, errRolledOut):
		return nil
	case ctx.Err() != nil && cmd.Context().Err() == nil:
		return models.Errorf(models.KindTimeout, "%s is not through after %s; it goes on", short(key), timeout)
	}
	return err
}

// revisionsOf returns an app's revisions, oldest first.
func revisionsOf(ctx context.Context, h hub, app models.Workload) ([]*models.ControllerRevision, error) {
	l, err := h.List(ctx, selection{kind: "ControllerRevision", namespace: app.Meta().Namespace})
	if err != nil {
		return nil, err
	}
	var revisions []*models.ControllerRevision
	for _, o := range l.Items {
		if r, ok := o.(*models.ControllerRevision); ok && models.OwnedBy(r, app) {
			revisions = append(revisions, r)
		}
	}
	slices.SortFunc(revisions, func(a, b *models.ControllerRevision) int { return int(a.Revision - b.Revision) })
	return revisions, nil
}

func rolloutUndoCommand() *cobra.Command {
	var conn connection
	var to int64
	cmd := &cobra.Command{
		Use:   "undo APP",
		Short: "Go back to the template of an earlier revision",
		Long: `Goes back to the template of the revision before the newest, or of the one that --to-revision names. It is rolled out as the
newest revision then. The number of pods stays as it is.`,
		Example: `  whimbrel rollout undo app
  whimbrel rollout undo app --to-revision 3`,
		Args:              arguments(1, 1, "the name of an app, or KIND/NAME"),
		ValidArgsFunction: conn.completeWorkload(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("to-revision") && to < 1 {
				return Usagef("--to-revision must be a revision's number, as rollout history shows them")
			}
			return conn.with(cmd, func(ctx context.Context, h hub) error {
				app, err := findWorkload(ctx, &conn, h, args[0])
				if err != nil {
					return err
				}
				key := models.KeyOf(app)
				revisions, err := revisionsOf(ctx, h, app)
				if err != nil {
					return err
				}
				target, err := earlier(key, revisions, to)
				if err != nil {
					return err
				}
				version := app.Meta().ResourceVersion
				*app.PodTemplate() = target.Data.Spec.Template
				if err := h.Replace(ctx, app, version); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s goes back to the template of revision %d\n", short(key), target.Revision)
				return nil
			})
		},
	}
	conn.addFlags(cmd)
	cmd.Flags().Int64Var(&to, "to-revision", 0, "the revision to go back to")
	return cmd
}

// earlier chooses the revision to go back to, 0 for the one before the newest.
func earlier(key models.Key, revisions []*models.ControllerRevision, to int64) (*models.ControllerRevision, error) {
	n := len(revisions)
	if to == 0 {
		if n < 2 {
			return nil, models.Errorf(models.KindNotFound, "%s has no earlier revision", short(key))
		}
		return revisions[n-2], nil
	}
	i := slices.IndexFunc(revisions, func(r *models.ControllerRevision) bool { return r.Revision == to })
	switch {
	case i < 0:
		return nil, models.Errorf(models.KindNotFound, "%s has no revision %d; rollout history shows those that it has", short(key), to)
	case i == n-1:
		return nil, models.Errorf(models.KindConflict, "%s is at revision %d", short(key), to)
	}
	return revisions[i], nil
}

func rolloutRestartCommand() *cobra.Command {
	var conn connection
	cmd := &cobra.Command{
		Use:   "restart APP",
		Short: "Make all pods of an app anew, one after the other",
		Long: `Makes the containers of all pods of an app anew, one pod after the other, as a new revision would: where they can be
beside each other the old ones stop when the new ones are ready. rollout status follows it.`,
		Example:           `  whimbrel rollout restart app && whimbrel rollout status app`,
		Args:              arguments(1, 1, "the name of an app, or KIND/NAME"),
		ValidArgsFunction: conn.completeWorkload(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return conn.with(cmd, func(ctx context.Context, h hub) error {
				app, err := findWorkload(ctx, &conn, h, args[0])
				if err != nil {
					return err
				}
				key := models.KeyOf(app)
				patch, err := json.Marshal(map[string]any{"spec": map[string]any{"template": map[string]any{"metadata": map[string]any{
					"annotations": map[string]string{models.AnnotationRestartedAt: time.Now().UTC().Format(time.RFC3339Nano)}}}}})
				if err != nil {
					return err
				}
				if err := h.Patch(ctx, key, patch, app.Meta().ResourceVersion); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s is restarted\n", short(key))
				return nil
			})
		},
	}
	conn.addFlags(cmd)
	return cmd
}

func rolloutHistoryCommand() *cobra.Command {
	var conn connection
	cmd := &cobra.Command{
		Use:               "history APP",
		Short:             "Show the revisions of an app that can be gone back to",
		Args:              arguments(1, 1, "the name of an app, or KIND/NAME"),
		ValidArgsFunction: conn.completeWorkload(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return conn.with(cmd, func(ctx context.Context, h hub) error {
				app, err := findWorkload(ctx, &conn, h, args[0])
				if err != nil {
					return err
				}
				revisions, err := revisionsOf(ctx, h, app)
				if err != nil {
					return err
				}
				t := &table{titles: []string{"REVISION", "AGE", "IMAGES!"}}
				for _, r := range revisions {
					t.row(fmt.Sprint(r.Revision), since(r.Metadata.CreationTimestamp, time.Now()), images(r.Data.Spec.Template.Spec))
				}
				t.write(cmd.OutOrStdout(), terminalWidth(cmd.OutOrStdout()), "")
				return nil
			})
		},
	}
	conn.addFlags(cmd)
	return cmd
}
