package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/models"
)

func trustCommand() *cobra.Command {
	var conn connection
	cmd := &cobra.Command{
		Use:     "trust DEVICE FINGERPRINT",
		GroupID: GroupObjects,
		Short:   "Trust the certificate that a device's server shows",
		Long: `Adds a certificate's fingerprint to connection.trust of a device, such as an OPC UA server. Whoever holds the certificate's key can
then be that device: compare the fingerprint with the one that the server shows at its own console before.

A device whose server is not trusted says in its status which fingerprint the server has, and gives this command.`,
		Example:           "  whimbrel trust press-1 sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
		Args:              arguments(2, 2, "a device and a fingerprint, such as sha256: and 64 hexadecimal digits"),
		ValidArgsFunction: conn.completeDevice,
		RunE: func(cmd *cobra.Command, args []string) error {
			fingerprint, err := parseFingerprint(args[1])
			if err != nil {
				return err
			}
			return conn.withDevice(cmd, args[0], func(ctx context.Context, h hub, device models.Key) error {
				return trust(ctx, cmd, h, device, fingerprint)
			})
		},
	}
	conn.addFlags(cmd)
	return cmd
}

var fingerprintForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

func parseFingerprint(text string) (string, error) {
	fingerprint := strings.ToLower(text)
	if !fingerprintForm.MatchString(fingerprint) {
		return "", Usagef("a fingerprint is sha256: and 64 hexadecimal digits, got %q", text)
	}
	return fingerprint, nil
}

// trustTries is how often the device may be changed by somebody else meanwhile.
const trustTries = 3

func trust(ctx context.Context, cmd *cobra.Command, h hub, key models.Key, fingerprint string) error {
	for try := 1; ; try++ {
		o, err := h.Get(ctx, key)
		if models.KindOf(err) == models.KindNotFound {
			return notFound(key)
		}
		if err != nil {
			return err
		}
		device := o.(*models.Device)
		var connection struct {
			Trust []string `json:"trust"`
		}
		if err := json.Unmarshal(device.Spec.Connection, &connection); err != nil {
			return fmt.Errorf("the connection of %s is not one with a list of whom to trust: %w", short(key), err)
		}
		if err := trustable(ctx, h, device); err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		if slices.ContainsFunc(connection.Trust, func(t string) bool { return strings.EqualFold(t, fingerprint) }) {
			fmt.Fprintf(w, "%s trusts %s already\n", short(key), fingerprint)
			return nil
		}
		if shown := shownFingerprint(device); shown != "" && shown != fingerprint {
			fmt.Fprintf(cmd.ErrOrStderr(), "note: the server that answers at present shows another certificate: %s\n", shown)
		}
		patch, err := json.Marshal(map[string]any{"spec": map[string]any{"connection": map[string]any{"trust": append(connection.Trust, fingerprint)}}})
		if err != nil {
			return err
		}
		err = h.Patch(ctx, key, patch, device.Metadata.ResourceVersion)
		if models.KindOf(err) == models.KindPrecondition && try < trustTries {
			continue
		}
		if err != nil {
			return err
		}
		more := ""
		if n := len(connection.Trust); n > 0 {
			more = fmt.Sprintf(" beside %d other", n)
		}
		fmt.Fprintf(w, "%s trusts %s now%s; its edge connects again\n", short(key), fingerprint, more)
		return nil
	}
}

// trustable refuses a device whose protocol has no certificates: by the schema of
// its connection. Where that cannot be told, the hub says what it thinks of it.
func trustable(ctx context.Context, h hub, d *models.Device) error {
	o, err := h.Get(ctx, models.Key{Kind: "DeviceModel", Namespace: d.Metadata.Namespace, Name: d.Spec.Model})
	if err != nil {
		return nil
	}
	protocol := o.(*models.DeviceModel).Spec.Protocol
	if o, err = h.Get(ctx, models.Key{Kind: "Mapper", Name: protocol}); err != nil {
		return nil
	}
	var schema struct {
		Properties           map[string]json.RawMessage `json:"properties"`
		AdditionalProperties any                        `json:"additionalProperties"`
	}
	if json.Unmarshal(o.(*models.Mapper).Spec.Connection, &schema) != nil || schema.AdditionalProperties != false || schema.Properties["trust"] != nil {
		return nil
	}
	return models.Errorf(models.KindInvalid, "%s speaks %s, which has no server certificates: there is nothing to trust", short(models.KeyOf(d)), protocol)
}

var fingerprintIn = regexp.MustCompile(`sha256:[0-9a-f]{64}`)

// shownFingerprint is the one that the device's status tells of, "" when it tells
// of none.
func shownFingerprint(d *models.Device) string {
	if d.Status == nil {
		return ""
	}
	for _, c := range d.Status.Conditions {
		if f := fingerprintIn.FindString(c.Message); f != "" {
			return f
		}
	}
	return ""
}
