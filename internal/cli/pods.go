package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/cloudapi/client"
	"github.com/whimbrel-edge/whimbrel/models"
)

// app is what a person calls an app: its pods, by name.
type app struct {
	name string // as it was called
	pods []*models.Pod
}

// findApp finds what is meant by APP, KIND/APP or pod/POD. A bare name is an app's, else
// a pod's.
func (c *connection) findApp(ctx context.Context, h hub, arg string) (app, error) {
	kind, name, typed := strings.Cut(arg, "/")
	if !typed {
		name = arg
	}
	a := app{name: arg}
	if typed {
		info, err := kindOf(kind)
		if err != nil {
			return a, err
		}
		if info.Kind != "Pod" && !slices.Contains(models.WorkloadKinds, info.Kind) {
			return a, Usagef("%s is no app: it must be deployment/NAME, daemonset/NAME, statefulset/NAME or pod/NAME", arg)
		}
		kind = info.Kind
	}
	if msg := models.CheckSubdomain(name); msg != "" {
		return a, Usagef("%q is no app's name: it %s", name, msg)
	}
	if kind != "Pod" || !typed {
		o, err := findWorkload(ctx, c, h, arg)
		switch {
		case err == nil:
			l, err := h.List(ctx, selection{kind: "Pod", namespace: c.namespace})
			if err != nil {
				return a, err
			}
			for _, p := range l.Items {
				if pod, ok := p.(*models.Pod); ok && models.OwnedBy(pod, o) {
					a.pods = append(a.pods, pod)
				}
			}
			if len(a.pods) == 0 {
				return a, models.Errorf(models.KindNotFound, "%s has no pods", short(models.KeyOf(o)))
			}
			return a, nil
		case client.AtEdge(err):
			return c.findAtEdge(ctx, h, a, kind, name, typed)
		case models.KindOf(err) != models.KindNotFound:
			return a, err
		case typed:
			return a, err
		}
	}
	o, err := h.Get(ctx, models.Key{Kind: "Pod", Namespace: c.namespace, Name: name})
	if client.AtEdge(err) {
		return c.findAtEdge(ctx, h, a, kind, name, typed)
	}
	if models.KindOf(err) == models.KindNotFound {
		what := "pod"
		if !typed {
			what = "app or pod"
		}
		return a, models.Errorf(models.KindNotFound, "no %s %s in namespace %s", what, name, c.namespace)
	}
	if err != nil {
		return a, err
	}
	pod, ok := o.(*models.Pod)
	if !ok {
		return a, fmt.Errorf("%s is a %s", arg, o.Type().Kind)
	}
	a.pods = []*models.Pod{pod}
	return a, nil
}

// findAtEdge finds the app at an edge, which knows its own pods alone.
func (c *connection) findAtEdge(ctx context.Context, h hub, a app, kind, name string, typed bool) (app, error) {
	l, err := h.List(ctx, selection{kind: "Pod", namespace: c.namespace})
	if err != nil {
		return a, err
	}
	for _, o := range l.Items {
		p, ok := o.(*models.Pod)
		if !ok {
			continue
		}
		owned := slices.ContainsFunc(p.Metadata.OwnerReferences, func(o models.OwnerReference) bool {
			return o.Name == name && (!typed || o.Kind == kind)
		})
		if owned || (!typed || kind == "Pod") && p.Metadata.Name == name {
			a.pods = append(a.pods, p)
		}
	}
	if len(a.pods) == 0 {
		return a, models.Errorf(models.KindNotFound, "this edge runs no pod of %s in namespace %s", name, c.namespace)
	}
	return a, nil
}

// one chooses a pod: a ready one before one that runs before another, the first by
// name. It says on w which one, where there are several.
func (a *app) one(w io.Writer) *models.Pod {
	rank := func(p *models.Pod) int {
		switch s := podStatus(p); {
		case p.Metadata.DeletionTimestamp != nil:
			return 3
		case s.Ready:
			return 0
		case s.Phase == models.PodRunning:
			return 1
		}
		return 2
	}
	best := slices.MinFunc(a.pods, func(x, y *models.Pod) int { return rank(x) - rank(y) })
	if len(a.pods) > 1 {
		fmt.Fprintf(w, "Of the %d pods of %s this is %s.\n", len(a.pods), a.name, best.Metadata.Name)
	}
	return best
}

// container is the one that is meant: the one named, else the first, which is said
// on w where there are others.
func container(w io.Writer, p *models.Pod, name string) string {
	if name != "" || len(p.Spec.Containers) < 2 {
		return name
	}
	var all []string
	for _, c := range p.Spec.Containers {
		all = append(all, c.Name)
	}
	fmt.Fprintf(w, "Of the containers %s of pod %s this is %s; -c names another.\n", strings.Join(all, ", "), p.Metadata.Name, all[0])
	return all[0]
}

// completeApp completes names of apps and pods.
func (c *connection) completeApp() completion {
	return func(cmd *cobra.Command, given []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(given) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names, _ := c.completeWorkload()(cmd, nil, typed)
		pods, directive := c.completeNames("Pod")(cmd, nil, typed)
		return append(names, pods...), directive
	}
}
