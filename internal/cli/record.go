package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/internal/durationflag"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/protocols/recording"
)

// maxRecord is the longest recording that a hub makes.
const maxRecord = 24 * time.Hour

func recordCommand() *cobra.Command {
	var conn connection
	var path string
	var length time.Duration
	cmd := &cobra.Command{
		Use:     "record DEVICE",
		GroupID: GroupObjects,
		Short:   "Record what a device says on the wire",
		Long: `Records what the device's mapper sees on the wire, with its timing, into a file. whimbrel simulate plays it as a device again,
so that what goes wrong here can be looked at elsewhere. It takes as long as --for says, a minute if not, and at most 24h.
With the context.json of an edge it asks that edge, without the hub.

The file holds what is written to the device and what it says, as it is; of its connection no passwords. Ctrl-C ends it early.`,
		Example: `  whimbrel record boiler-1 --for 10m
  whimbrel record boiler-1 --for 1h -o nightly.jsonl
  whimbrel simulate nightly.jsonl --speed 10`,
		Args:              arguments(1, 1, "the name of a device"),
		ValidArgsFunction: conn.completeDevice,
		RunE: func(cmd *cobra.Command, args []string) error {
			if length <= 0 {
				return Usagef("--for must be above 0s")
			}
			if length > maxRecord {
				return Usagef("--for must be at most 24h, got %s: record several times, with -o", length)
			}
			return conn.withDevice(cmd, args[0], func(ctx context.Context, h hub, device models.Key) error {
				w, name := cmd.OutOrStdout(), "-"
				if path != "-" {
					if name = path; name == "" {
						name = args[0] + time.Now().Format("-20060102T150405") + ".jsonl"
					}
					file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
					if err != nil {
						return err
					}
					defer file.Close()
					w = file
				}
				err := h.RecordDevice(ctx, device.Namespace, device.Name, length, w)
				if interrupted(ctx, err) {
					err = nil
				}
				if path == "-" {
					return deviceError(err, device)
				}
				said, readErr := summary(name)
				switch {
				case err != nil && readErr != nil: // nothing came
					_ = os.Remove(name)
				case readErr != nil:
					return readErr
				default:
					fmt.Fprintln(cmd.OutOrStdout(), said)
				}
				return deviceError(err, device)
			})
		},
	}
	conn.addFlags(cmd)
	durationflag.Var(cmd.Flags(), &length, "for", time.Minute, "record that long, at most 24h")
	cmd.Flags().StringVarP(&path, "output", "o", "", "file to write, which must not be there yet (default DEVICE-TIME.jsonl); - is stdout")
	return cmd
}

// RecordDevice implements hub.
func (r remote) RecordDevice(ctx context.Context, namespace, device string, length time.Duration, w io.Writer) error {
	return r.c.RecordDevice(ctx, namespace, device, length, w)
}

// summary says what is in a recording.
func summary(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	r, err := recording.Read(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	s := fmt.Sprintf("%s: %s of %s, %d events", path, r.Length().Round(time.Millisecond), r.Device, len(r.Events))
	if !r.Cut {
		s = fmt.Sprintf("%s: %s of %s, %d events", path, r.Length().Round(time.Millisecond), r.Device, len(r.Events)-1)
	}
	if r.Dropped > 0 {
		s += fmt.Sprintf(", dropped %d more", r.Dropped)
	}
	if r.Cut {
		s += "; it ends early"
	}
	return s, nil
}
