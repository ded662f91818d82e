package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/mappers/builtin"
	"github.com/whimbrel-edge/whimbrel/models"
)

// browseOptions are how to connect to a URL, which has no device to say it.
type browseOptions struct {
	policy, mode, username, passwordFile, certificateFile string
	trust                                                 []string
}

func browseCommand() *cobra.Command {
	var conn connection
	var out output
	var opts browseOptions
	var model string
	cmd := &cobra.Command{
		Use:     "browse DEVICE|URL",
		GroupID: GroupObjects,
		Short:   "Look around in a device, and make a model of what it offers",
		Long: `Shows what a device offers, as it says itself: an OPC UA server's variables with their types, access and units. A DEVICE is asked
through its edge, with the connection it has; a URL from this machine, with the connection that the flags say.

With --model it prints a DeviceModel, for apply -f -, and says on stderr what is not in it. At most 10000 nodes are visited, at most
16 levels deep.`,
		Example: `  whimbrel browse press-1
  whimbrel browse press-1 --model press | whimbrel apply -f -
  whimbrel browse opc.tcp://192.0.2.30:4840 --mode SignAndEncrypt --trust sha256:… --username operator --password-file secret.txt`,
		Args:              arguments(1, 1, "a device or a URL"),
		ValidArgsFunction: conn.completeDevice,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			if model != "" {
				if wrong := models.CheckLabelName(model); wrong != "" {
					return Usagef("--model %s", wrong)
				}
			}
			var all []models.Found
			gather := func(f models.Found) error { all = append(all, f); return nil }
			protocol := ""
			if strings.Contains(args[0], "://") {
				var err error
				if protocol, err = browseURL(cmd.Context(), args[0], opts, gather); err != nil {
					return err
				}
			} else {
				for _, f := range []string{"policy", "mode", "username", "password-file", "certificate-file", "trust"} {
					if cmd.Flags().Changed(f) {
						return Usagef("--%s goes with a URL: a device has a connection of its own", f)
					}
				}
				if err := conn.withDevice(cmd, args[0], func(ctx context.Context, h hub, device models.Key) error {
					if model != "" {
						var err error
						if protocol, err = protocolOf(ctx, h, device); err != nil {
							return err
						}
					}
					return deviceError(h.BrowseDevice(ctx, device.Namespace, device.Name, gather), device)
				}); err != nil {
					return err
				}
			}
			return showFound(cmd, all, model, protocol, out)
		},
	}
	conn.addFlags(cmd)
	out.addFlag(cmd, "json", "yaml")
	f := cmd.Flags()
	f.StringVar(&model, "model", "", "print a DeviceModel of this name")
	f.StringVar(&opts.policy, "policy", "", "of a URL: the security policy, as in connection.policy")
	f.StringVar(&opts.mode, "mode", "", "of a URL: the security mode, as in connection.mode")
	f.StringSliceVar(&opts.trust, "trust", nil, "of a URL: fingerprint of the server's certificate")
	f.StringVar(&opts.username, "username", "", "of a URL: who to sign in as")
	f.StringVar(&opts.passwordFile, "password-file", "", "of a URL: file with the user's password")
	f.StringVar(&opts.certificateFile, "certificate-file", "", "of a URL: file with the user's certificate and key (PEM), instead of a username")
	return cmd
}

func protocolOf(ctx context.Context, h hub, device models.Key) (string, error) {
	o, err := h.Get(ctx, device)
	if err != nil {
		return "", deviceError(err, device)
	}
	o, err = h.Get(ctx, models.Key{Kind: "DeviceModel", Namespace: device.Namespace, Name: o.(*models.Device).Spec.Model})
	if err != nil {
		return "", err
	}
	return o.(*models.DeviceModel).Spec.Protocol, nil
}

// schemes are the protocols of URLs.
var schemes = map[string]string{"opc.tcp": "opcua", "tcp": "modbus", "rtu": "modbus", "rtutcp": "modbus", "ascii": "modbus", "serial": "serial"}

// browseURL asks a device from here.
func browseURL(ctx context.Context, url string, opts browseOptions, found func(models.Found) error) (protocol string, err error) {
	scheme, _, _ := strings.Cut(url, "://")
	protocol = schemes[scheme]
	driver := builtin.Drivers()[protocol]
	if driver == nil {
		return "", Usagef("no driver speaks %s://; browsing works with opc.tcp://", scheme)
	}
	browser, ok := driver.(mappers.Browser)
	if !ok {
		return "", fmt.Errorf("devices of protocol %s do not say what they offer, so they cannot be browsed; whimbrel model import makes a model of a register map", protocol)
	}
	connection := map[string]any{"url": url}
	secrets := map[string]mappers.Secret{}
	for field, value := range map[string]string{"policy": opts.policy, "mode": opts.mode, "username": opts.username} {
		if value != "" {
			connection[field] = value
		}
	}
	if len(opts.trust) > 0 {
		connection["trust"] = opts.trust
	}
	for field, file := range map[string]string{"passwordFrom": opts.passwordFile, "certificateFrom": opts.certificateFile} {
		if file == "" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		if field == "passwordFrom" {
			text = []byte(strings.TrimRight(string(text), "\r\n"))
		}
		connection[field] = map[string]string{"secret": "file", "key": "file"}
		secrets[field] = mappers.NewSecret(text)
	}
	text, err := json.Marshal(connection)
	if err != nil {
		return "", err
	}
	err = browser.Browse(ctx, mappers.DeviceConfig{Connection: text, Secrets: secrets}, found)
	var f *mappers.Failure
	if errors.As(err, &f) && f.Reason == "untrusted-certificate" {
		err = fmt.Errorf("%w: with --trust sha256:…", err)
	}
	return protocol, err
}

func showFound(cmd *cobra.Command, all []models.Found, name, protocol string, out output) error {
	w := cmd.OutOrStdout()
	if name == "" {
		if out.document() {
			return out.print(w, all)
		}
		writeFound(cmd, w, all)
		return nil
	}
	m, notes := models.ModelOf(name, protocol, all)
	for _, n := range notes {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", plain(n))
	}
	if len(m.Spec.Properties) == 0 {
		return fmt.Errorf("nothing was found that a model could have")
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "model %s: %s\n", name, properties(len(m.Spec.Properties)))
	return printModel(w, m, out)
}

// writeFound writes a tree: folders once, what is in them below.
func writeFound(cmd *cobra.Command, w io.Writer, all []models.Found) {
	t := &table{titles: []string{"NAME!", "TYPE", "ACCESS", "UNIT", "ADDRESS"}}
	var last []string
	for _, f := range inOrder(all) {
		if len(f.Path) == 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "note: %s\n", plain(f.Note))
			continue
		}
		for i, step := range f.Path[:len(f.Path)-1] {
			if i >= len(last) || last[i] != step {
				t.row(strings.Repeat("  ", i)+step+"/", "", "", "", "")
				last = append(append([]string{}, f.Path[:i]...), step)
			}
		}
		last = f.Path
		row := []string{strings.Repeat("  ", len(f.Path)-1) + f.Path[len(f.Path)-1], f.DataType, nothing, "", "(" + f.Note + ")"}
		if p := f.Property; p != nil {
			row[2], row[3], row[4] = string(p.Access), p.Unit, string(p.Address)
		}
		t.row(row...)
	}
	t.write(w, 0, "")
}

// inOrder puts what is in one folder together, in the order the folders came:
// it was found level by level.
func inOrder(all []models.Found) []models.Found {
	rank := map[string]int{}
	for _, f := range all {
		for i := range f.Path {
			key := strings.Join(f.Path[:i+1], "\x00")
			if _, ok := rank[key]; !ok {
				rank[key] = len(rank)
			}
		}
	}
	out := slices.Clone(all)
	slices.SortStableFunc(out, func(a, b models.Found) int {
		for i := range min(len(a.Path), len(b.Path)) {
			if c := rank[strings.Join(a.Path[:i+1], "\x00")] - rank[strings.Join(b.Path[:i+1], "\x00")]; c != 0 {
				return c
			}
		}
		return len(a.Path) - len(b.Path)
	})
	return out
}
