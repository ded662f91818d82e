package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/internal/durationflag"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/twin"
)

func twinCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "twin",
		GroupID: GroupObjects,
		Short:   "Read what a device reports, and set what it should be",
	}
	cmd.AddCommand(twinGetCommand(), twinSetCommand(), twinWritesCommand(), twinReadCommand())
	return cmd
}

func twinGetCommand() *cobra.Command {
	var conn connection
	var out output
	var watch bool
	var when, uid string
	cmd := &cobra.Command{
		Use:   "get DEVICE",
		Short: "Show a device's values: reported, desired and how writes are doing",
		Example: `  whimbrel twin get boiler-1
  whimbrel twin get boiler-1 -o json
  whimbrel twin get boiler-1 -w
  whimbrel twin get boiler-1 --at 2026-01-02T15:04:05Z
  whimbrel twin get boiler-1 --at 2h
  whimbrel twin get boiler-1 --at 2h --uid 01K8ZQ0C4M7T2X9V5B3N6R1D8E`,
		Args:              arguments(1, 1, "the name of a device"),
		ValidArgsFunction: conn.completeDevice,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			at, err := moment("--at", when, time.Now())
			if err != nil {
				return err
			}
			if watch && when != "" {
				return Usagef("--at and --watch cannot be given together")
			}
			if uid != "" && when == "" {
				return Usagef("--uid needs --at: a device that was deleted has a twin only in the past")
			}
			return conn.withDevice(cmd, args[0], func(ctx context.Context, h hub, device models.Key) error {
				if when != "" {
					return twinAt(ctx, cmd.OutOrStdout(), h, device, uid, at, out)
				}
				if watch {
					return followTwin(ctx, cmd, h, device, out)
				}
				doc, err := h.Twin(ctx, device.Namespace, device.Name)
				if err != nil {
					return deviceError(err, device)
				}
				w := cmd.OutOrStdout()
				if out.document() {
					return out.print(w, doc)
				}
				writeTwin(w, doc, time.Now())
				return nil
			})
		},
	}
	conn.addFlags(cmd)
	out.addFlag(cmd, "json", "yaml")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on and show what changes")
	cmd.Flags().StringVar(&when, "at", "", "show the twin as it was at a time, or so long ago, such as 2h or 7d")
	cmd.Flags().StringVar(&uid, "uid", "", "with --at: of a device that was deleted")
	return cmd
}

// moment reads a flag that is a time, or how long ago it was; nothing is now.
func moment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return now, nil
	}
	t, err := models.ParseMoment(text, now)
	if err != nil {
		return t, Usagef("%s %v, got %q", flag, err, text)
	}
	return t, nil
}

func twinAt(ctx context.Context, w io.Writer, h hub, device models.Key, uid string, at time.Time, out output) error {
	doc, err := h.TwinAt(ctx, device.Namespace, device.Name, uid, at)
	if err != nil {
		return err
	}
	if out.document() {
		return out.print(w, doc)
	}
	fmt.Fprintf(w, "%s was %s at %s (desired version %d)\n\n", doc.Device, doc.State, at.UTC().Format(time.RFC3339), doc.DesiredVersion)
	order := slices.Sorted(maps.Keys(doc.Properties))
	twinTable(doc, order, at).write(w, terminalWidth(w), "")
	for _, name := range order {
		if note := doc.Properties[name].Note; note != "" {
			fmt.Fprintf(w, "%s: %s\n", plain(name), plain(note))
		}
	}
	return nil
}

func twinReadCommand() *cobra.Command {
	var conn connection
	var out output
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "read DEVICE [PROPERTY…]",
		Short: "Read values from the device, now",
		Long: `Reads values from the device, now, whatever their intervals are: those of the named properties, or of all that can be read.
twin get shows what was reported last and asks nobody.`,
		Example: `  whimbrel twin read boiler-1
  whimbrel twin read boiler-1 temperature setpoint --wait 2s
  whimbrel twin read boiler-1 temperature -o json`,
		Args:              arguments(1, -1, "the name of a device"),
		ValidArgsFunction: conn.completeDevice,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			if wait <= 0 {
				return Usagef("--wait must be above 0s")
			}
			return conn.withDevice(cmd, args[0], func(ctx context.Context, h hub, device models.Key) error {
				var names []string
				if len(args) > 1 {
					names = args[1:]
				}
				read, err := h.ReadDevice(ctx, device.Namespace, device.Name, names, wait)
				if err != nil {
					return deviceError(err, device)
				}
				w := cmd.OutOrStdout()
				if out.document() {
					return out.print(w, models.Readings{Device: device.Name, Properties: read})
				}
				units := map[string]string{}
				if doc, err := h.Twin(ctx, device.Namespace, device.Name); err == nil { // without it, values without units
					for name, p := range doc.Properties {
						units[name] = p.Unit
					}
				}
				t := &table{titles: []string{"PROPERTY!", "VALUE", "QUALITY!", "TIME"}}
				for _, name := range slices.Sorted(maps.Keys(read)) {
					r := read[name]
					q := r.Quality.String()
					if r.Reason != models.ReasonNone {
						q = fmt.Sprintf("%s (%s)", q, r.Reason)
					}
					t.row(name, value(r.Value, r.Name, units[name]), q, clock(r.Time))
				}
				t.write(w, terminalWidth(w), "")
				return nil
			})
		},
	}
	conn.addFlags(cmd)
	out.addFlag(cmd, "json", "yaml")
	durationflag.Var(cmd.Flags(), &wait, "wait", 10*time.Second, "wait that long for the device, at most 1m")
	return cmd
}

// deviceError says that a device is not there in the words of all commands; of one
// that was deleted the hub knows more.
func deviceError(err error, device models.Key) error {
	if models.KindOf(err) == models.KindNotFound && !strings.Contains(err.Error(), "uid=") {
		return notFound(device)
	}
	return err
}

func writeTwin(w io.Writer, doc twin.Document, now time.Time) {
	seen := ""
	if doc.LastSeen != nil {
		seen = ", seen " + ago(doc.LastSeen, now)
	}
	fmt.Fprintf(w, "%s is %s%s (twin version %d, desired version %d)\n\n", doc.Device, doc.State, seen, doc.Version, doc.DesiredVersion)
	twinTable(doc, slices.Sorted(maps.Keys(doc.Properties)), now).write(w, terminalWidth(w), "")
}

func twinTable(doc twin.Document, order []string, now time.Time) *table {
	t := &table{titles: []string{"PROPERTY!", "VALUE", "QUALITY!", "AGE", "DESIRED", "WRITE"}}
	for _, name := range order {
		p := doc.Properties[name]
		t.row(name, reported(p), quality(p.Reported), reportedAge(p, now), desired(p), fate(p.Write))
	}
	return t
}

// followTwin shows a twin and then what changes of it, until it is interrupted.
func followTwin(ctx context.Context, cmd *cobra.Command, h hub, device models.Key, out output) error {
	doc, err := h.Twin(ctx, device.Namespace, device.Name)
	if err != nil {
		return deviceError(err, device)
	}
	w := cmd.OutOrStdout()
	p := twinPrinter{w: w, out: out, state: doc.State, shown: doc.Properties}
	if err := p.begin(doc); err != nil {
		return err
	}
	err = h.StreamTwins(ctx, selection{kind: "Device", namespace: device.Namespace}, func(c twin.StreamChange) error {
		switch {
		case c.Document.Device != device.Name:
			return nil
		case c.Deleted:
			return models.Errorf(models.KindNotFound, "%s was deleted", short(device))
		}
		return p.change(c.Document)
	})
	if interrupted(ctx, err) {
		return nil
	}
	return err
}

// twinPrinter prints a twin's changes in the format that was asked for.
type twinPrinter struct {
	w     io.Writer
	out   output
	state models.DeviceState
	shown map[string]twin.PropertyDoc
	rows  *stream
}

var changeTitles = []string{"TIME!", "PROPERTY!", "VALUE", "QUALITY!", "DESIRED", "WRITE"}

func (p *twinPrinter) begin(doc twin.Document) error {
	if p.out.document() {
		return p.document(doc)
	}
	t := &table{titles: changeTitles}
	for _, name := range slices.Sorted(maps.Keys(doc.Properties)) {
		t.row(changeRow(name, doc.Properties[name])...)
	}
	p.rows = startStream(p.w, t)
	return nil
}

func (p *twinPrinter) document(doc twin.Document) error {
	if p.out.format == "json" {
		return line(p.w, doc)
	}
	fmt.Fprintln(p.w, "---")
	return p.out.print(p.w, doc)
}

// change prints what is new in a change: a stream that was taken up again
// begins with all of the twin.
func (p *twinPrinter) change(doc twin.Document) error {
	fresh := map[string]twin.PropertyDoc{}
	for name, now := range doc.Properties {
		if before, ok := p.shown[name]; !ok || !sameProperty(before, now) {
			fresh[name] = now
			p.shown[name] = now
		}
	}
	turned := doc.State != p.state
	p.state = doc.State
	if len(fresh) == 0 && !turned {
		return nil
	}
	if p.out.document() {
		doc.Properties = fresh
		return p.document(doc)
	}
	if turned {
		p.rows.row(clock(time.Now()), "(device)", string(doc.State), "", "", "")
	}
	for _, name := range slices.Sorted(maps.Keys(fresh)) {
		p.rows.row(changeRow(name, fresh[name])...)
	}
	return nil
}

func sameProperty(a, b twin.PropertyDoc) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

func changeRow(name string, p twin.PropertyDoc) []string {
	when := nothing
	if p.Reported != nil && p.Reported.Time != nil {
		when = clock(*p.Reported.Time)
	}
	return []string{when, name, reported(p), quality(p.Reported), desired(p), fate(p.Write)}
}

// clock is the time of day, as the person's own clock shows it.
func clock(t time.Time) string { return t.Local().Format("15:04:05") }

func twinSetCommand() *cobra.Command {
	var conn connection
	var out output
	var opts setOptions
	cmd := &cobra.Command{
		Use:   "set DEVICE PROPERTY=VALUE…",
		Short: "Set what a device's properties should be",
		Long: `Sets what a device's properties should be. The device need not be reachable: it gets the value when it is.

A VALUE that is JSON is taken as such: 45.5, true, "007", [1, 2]. Anything else is a string, such as the name of an enum's
value. An empty VALUE, or null, withdraws what was desired.

With --wait the exit code is 0 only when the device has confirmed every value in that time.`,
		Example: `  whimbrel twin set boiler-1 setpoint=45.5 --wait 5s
  whimbrel twin set boiler-1 mode=heat --reason "cold night"
  whimbrel twin set boiler-1 setpoint=`,
		Args:              arguments(2, -1, "a device and at least one PROPERTY=VALUE"),
		ValidArgsFunction: conn.completeDevice,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			if opts.Wait < 0 || opts.Expire < 0 {
				return Usagef("--wait and --expire must not be negative")
			}
			patch, err := parsePatch(args[1:])
			if err != nil {
				return err
			}
			return conn.withDevice(cmd, args[0], func(ctx context.Context, h hub, device models.Key) error {
				return set(ctx, cmd, h, device, patch, opts, out)
			})
		},
	}
	conn.addFlags(cmd)
	out.addFlag(cmd, "json", "yaml")
	durationflag.Var(cmd.Flags(), &opts.Wait, "wait", 0, "wait that long for the device to confirm, such as 5s")
	durationflag.Var(cmd.Flags(), &opts.Expire, "expire", 0, "withdraw the values when they are not confirmed for that long, such as 30s")
	cmd.Flags().StringVar(&opts.Reason, "reason", "", "why, for the record")
	return cmd
}

// parsePatch reads arguments of the form PROPERTY=VALUE.
func parsePatch(args []string) (map[string]models.Value, error) {
	patch := map[string]models.Value{}
	for _, a := range args {
		name, text, ok := strings.Cut(a, "=")
		if !ok || name == "" {
			return nil, Usagef("expected PROPERTY=VALUE, got %q", a)
		}
		if _, twice := patch[name]; twice {
			return nil, Usagef("%s is given twice", name)
		}
		patch[name] = parseValue(text)
	}
	return patch, nil
}

// parseValue takes JSON as what it is and anything else as a string. Nothing is
// null. Whether it fits the property is for the hub to say.
func parseValue(text string) models.Value {
	if strings.TrimSpace(text) == "" {
		return models.Null
	}
	var v models.Value
	if err := json.Unmarshal([]byte(text), &v); err == nil {
		return v
	}
	return models.String(text)
}

func set(ctx context.Context, cmd *cobra.Command, h hub, device models.Key, patch map[string]models.Value, opts setOptions, out output) error {
	doc, known, err := h.PatchDesired(ctx, device.Namespace, device.Name, patch, opts)
	if !known {
		return deviceError(err, device)
	}
	w := cmd.OutOrStdout()
	if out.document() {
		if perr := out.print(w, doc); perr != nil {
			return perr
		}
		return err
	}
	pending := false
	for _, name := range slices.Sorted(maps.Keys(patch)) {
		p := doc.Properties[name]
		if patch[name].IsNull() {
			fmt.Fprintf(w, "%s withdrawn\n", plain(name))
			continue
		}
		state := "pending"
		if p.Write != nil {
			state = fate(p.Write)
		}
		shown := value(patch[name], "", p.Unit)
		if p.Desired != nil {
			shown = desired(p)
		}
		fmt.Fprintf(w, "%s = %s: %s\n", plain(name), plain(shown), plain(state))
		pending = pending || p.Write == nil || p.Write.State == twin.Pending
	}
	if err != nil && pending {
		fmt.Fprintln(w, "What is pending stays so until the device confirms it; an empty VALUE withdraws it.")
	}
	return err
}
