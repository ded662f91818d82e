package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/models"
)

// patience is how long completing a name may ask the hub. A shell waits
// meanwhile.
const patience = 2 * time.Second

// completion is what cobra asks for candidates.
type completion = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective)

// completeObjects completes a kind, then names of that kind.
func (c *connection) completeObjects(tokens bool) completion {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			info, ok := models.KindByName(args[0])
			if !ok {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return c.completeNames(info.Kind)(cmd, args[1:], typed)
		}
		var kinds []string
		for _, k := range models.Kinds {
			kinds = append(kinds, k.Plural)
		}
		if tokens {
			kinds = append(kinds, "tokens")
		}
		return kinds, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeNames completes names of objects of a kind that are not given yet.
func (c *connection) completeNames(kind string) completion {
	return func(cmd *cobra.Command, given []string, typed string) ([]string, cobra.ShellCompDirective) {
		objects, err := c.ask(cmd, kind)
		if err != nil {
			cobra.CompDebugln(err.Error(), false)
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, o := range objects {
			name := o.Meta().Name
			if strings.HasPrefix(name, typed) && !containsString(given, name) {
				names = append(names, name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func containsString(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func (c *connection) ask(cmd *cobra.Command, kind string) ([]models.Object, error) {
	// Nothing has run before this, as it has before a command.
	if err := bindEnvironment(cmd); err != nil {
		return nil, err
	}
	info, err := kindOf(kind)
	if err != nil {
		return nil, err
	}
	o := selection{kind: kind}
	if info.Namespaced {
		o.namespace = c.namespace
	}
	var objects []models.Object
	err = c.with(cmd, func(ctx context.Context, h hub) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		l, err := h.List(ctx, o)
		objects = l.Items
		return err
	})
	return objects, err
}

// completeDevice completes a device's name and then, for set, properties of it.
func (c *connection) completeDevice(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return c.completeNames("Device")(cmd, nil, typed)
	}
	if cmd.Name() != "set" || strings.Contains(typed, "=") {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	if err := bindEnvironment(cmd); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	err := c.withDevice(cmd, args[0], func(ctx context.Context, h hub, key models.Key) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		d, err := h.Get(ctx, key)
		if err != nil {
			return err
		}
		device, ok := d.(*models.Device)
		if !ok {
			return nil
		}
		m, err := h.Get(ctx, models.Key{Kind: "DeviceModel", Namespace: key.Namespace, Name: device.Spec.Model})
		if err != nil {
			return err
		}
		if model, ok := m.(*models.DeviceModel); ok {
			for _, p := range model.Spec.Properties {
				if p.Access.Writable() && strings.HasPrefix(p.Name, typed) {
					names = append(names, p.Name+"=")
				}
			}
		}
		return nil
	})
	if err != nil {
		cobra.CompDebugln(err.Error(), false)
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
