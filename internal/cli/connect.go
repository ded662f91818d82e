package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/whimbrel-edge/whimbrel/models"
)

// connection is the flags that say which hub to talk to, and as whom.
type connection struct {
	context, server, token, ca string
	namespace                  string
	flags                      *pflag.FlagSet
}

func (c *connection) addFlags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	c.flags = f
	f.StringVar(&c.context, "context", "", "context file that says which hub to talk to (default ./whimbrel-data/context.json, else the one in your config folder)")
	f.StringVar(&c.server, "server", "", "URL of the hub, instead of the context's")
	f.StringVar(&c.token, "token", "", "API token, instead of the context's")
	f.StringVar(&c.ca, "ca", "", "PEM file with the certificates to trust, instead of the context's")
	f.StringVarP(&c.namespace, "namespace", "n", models.DefaultNamespace, "namespace of the objects")
	_ = cmd.MarkPersistentFlagFilename("context", "json") // fails for unknown flags only
	_ = cmd.MarkPersistentFlagFilename("ca", "pem", "crt")
}

// target is a hub and how we came to it.
type target struct {
	contextFile
	origin      string // where Server comes from
	tokenOrigin string // where Token comes from
}

// resolve finds out which hub is meant.
func (c *connection) resolve() (target, error) {
	var t target
	var err error
	if c.context != "" {
		if t.contextFile, err = readContext(c.context); err != nil {
			return t, err
		}
		t.origin = c.context
	} else {
		places := contextPlaces()
		for _, path := range places {
			t.contextFile, err = readContext(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return t, err
			}
			t.origin = path
			break
		}
		if t.origin == "" && c.server == "" {
			return t, unknownHub{places}
		}
	}
	t.tokenOrigin = t.origin
	if c.server != "" {
		t.Server, t.origin = c.server, "--server or WHIMBREL_SERVER"
	}
	if c.token != "" {
		t.Token, t.tokenOrigin = c.token, "--token or WHIMBREL_TOKEN"
	}
	if c.ca != "" {
		t.CA = c.ca
	}
	if u, err := url.Parse(t.Server); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return t, fmt.Errorf("the server must be such as https://hub.example:8080, got %q (from %s)", t.Server, t.origin)
	}
	return t, nil
}

// contextPlaces are the context files that are looked for, in order.
func contextPlaces() []string {
	places := []string{filepath.Join("whimbrel-data", contextName)}
	if dir, err := os.UserConfigDir(); err == nil {
		places = append(places, filepath.Join(dir, "whimbrel", contextName))
	}
	return places
}

// unknownHub is the error of a command that does not know whom to ask.
type unknownHub struct{ places []string }

func (unknownHub) Error() string {
	return "which hub? There is no context file, and no --server"
}

// lost is the error of a request that a hub was not asked or did not answer.
type lost struct {
	target target
	err    error
}

func (e lost) Error() string { return e.err.Error() }

func (e lost) Unwrap() error { return e.err }

// with calls do with the hub that the flags mean.
func (c *connection) with(cmd *cobra.Command, do func(ctx context.Context, h hub) error) error {
	if msg := models.CheckLabelName(c.namespace); msg != "" {
		return Usagef("--namespace %s", msg)
	}
	t, err := c.resolve()
	if err != nil {
		return err
	}
	h, err := dial(t)
	if err != nil {
		return lost{t, err}
	}
	if err = do(cmd.Context(), h); err == nil {
		return nil
	}
	var code exitCode
	if errors.As(err, &code) && code.err == nil {
		return err
	}
	return lost{t, err}
}

// kind looks up a kind by what a person calls it.
func kindOf(name string) (models.KindInfo, error) {
	info, ok := models.KindByName(name)
	if !ok {
		known := ""
		for i, k := range models.Kinds {
			if i > 0 {
				known += ", "
			}
			known += k.Plural
		}
		if instead := models.Instead(name); instead != "" {
			return info, Usagef("there are no objects of kind %q; use %s", name, instead)
		}
		return info, Usagef("there are no objects of kind %q; there are %s and tokens", name, known)
	}
	return info, nil
}

// explicit reports whether a person chose the namespace.
func (c *connection) explicit() bool { return c.flags.Changed("namespace") }

// device names a device. Beside NAME it takes NAMESPACE.NAME, as edges and their
// topics say it: the name of a device has no dot.
func (c *connection) device(name string) (models.Key, error) {
	key := models.Key{Kind: "Device", Namespace: c.namespace, Name: name}
	namespace, rest, qualified := strings.Cut(name, ".")
	if !qualified {
		return key, nil
	}
	if c.explicit() && namespace != c.namespace {
		return key, Usagef("%s is a device of namespace %s, but --namespace is %s", name, namespace, c.namespace)
	}
	key.Namespace, key.Name = namespace, rest
	for _, part := range []string{namespace, rest} {
		if wrong := models.CheckLabelName(part); wrong != "" {
			return key, Usagef("a device is NAME or NAMESPACE.NAME, got %q: %s", name, wrong)
		}
	}
	return key, nil
}

// key names an object of a kind in the namespace that was asked for.
func (c *connection) key(info models.KindInfo, name string) (models.Key, error) {
	key := models.Key{Kind: info.Kind, Name: name}
	switch {
	case info.Kind == "Device":
		return c.device(name)
	case info.Namespaced:
		key.Namespace = c.namespace
	}
	return key, nil
}

// withDevice calls do with the hub that the flags mean and the device that an
// argument names.
func (c *connection) withDevice(cmd *cobra.Command, name string, do func(ctx context.Context, h hub, device models.Key) error) error {
	key, err := c.device(name)
	if err != nil {
		return err
	}
	return c.with(cmd, func(ctx context.Context, h hub) error { return do(ctx, h, key) })
}
