package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/mappers/builtin"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/models/catalog"
	"github.com/whimbrel-edge/whimbrel/models/importer"
)

func modelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "model",
		Aliases: []string{"models"},
		GroupID: GroupObjects,
		Short:   "Device models from the catalog, and out of other formats",
		Long: `Prints device models, for apply -f -. No hub is asked.

The catalog holds models of devices that people own. Register maps in CSV, SunSpec models and OPC UA NodeSet2 files
are imported.`,
		Example: `  whimbrel model list
  whimbrel model show sdm630 | whimbrel apply -f -
  whimbrel model import registers.csv --name pump | whimbrel apply -f -`,
	}
	cmd.AddCommand(modelListCommand(), modelShowCommand(), modelImportCommand())
	return cmd
}

func modelListCommand() *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the catalog",
		Args:  arguments(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			return listModels(cmd.OutOrStdout(), out)
		},
	}
	out.addFlag(cmd, "json", "yaml")
	return cmd
}

func listModels(w io.Writer, out output) error {
	type entry struct {
		Name        string `json:"name"`
		Protocol    string `json:"protocol"`
		Properties  int    `json:"properties"`
		Description string `json:"description"`
		Source      string `json:"source"`
		Licence     string `json:"licence"`
	}
	var entries []entry
	for _, name := range catalog.Names() {
		m, err := catalog.Model(name)
		if err != nil {
			return err
		}
		entries = append(entries, entry{Name: name, Protocol: m.Spec.Protocol, Properties: len(m.Spec.Properties), Description: m.Spec.Description,
			Source: m.Metadata.Annotations[catalog.SourceAnnotation], Licence: m.Metadata.Annotations[catalog.LicenceAnnotation]})
	}
	if out.document() {
		return out.print(w, entries)
	}
	t := &table{titles: []string{"NAME!", "PROTOCOL", "PROPERTIES", "DESCRIPTION"}}
	for _, e := range entries {
		t.row(e.Name, e.Protocol, strconv.Itoa(e.Properties), e.Description)
	}
	t.write(w, terminalWidth(w), "")
	return nil
}

func modelShowCommand() *cobra.Command {
	var out output
	var base int
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Print a model of the catalog",
		Long: `Prints a model of the catalog as YAML, for apply -f -.

A SunSpec model is taken to begin behind the marker at 40000 and a common model of 66 registers. --base moves it to the
register at which a device has its ID.`,
		Example: `  whimbrel model show sdm630 | whimbrel apply -f -
  whimbrel model show sunspec-inverter-103 --base 40069 | whimbrel apply -f -`,
		Args: arguments(1, 1, "the NAME of a model"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return catalog.Names(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			text, err := catalog.Text(args[0])
			if err != nil {
				return err
			}
			moved := cmd.Flags().Changed("base")
			if base < 0 || base > 65535 {
				return Usagef("--base must be from 0 to 65535, got %d", base)
			}
			if !moved && out.format != "json" {
				_, err := cmd.OutOrStdout().Write(text) // as it is, with its comments
				return err
			}
			m, err := catalog.Model(args[0])
			if err == nil && moved {
				err = catalog.Rebase(m, base)
			}
			if err != nil {
				return err
			}
			return printModel(cmd.OutOrStdout(), m, out)
		},
	}
	out.addFlag(cmd, "yaml", "json")
	cmd.Flags().IntVar(&base, "base", 0, "of a SunSpec model: the register of its ID (default as the model says)")
	return cmd
}

// printModel prints a model without a namespace, so that apply -n chooses it.
func printModel(w io.Writer, m *models.DeviceModel, out output) error {
	if out.format == "" {
		out.format = "yaml"
	}
	m.Metadata.Namespace = ""
	return out.print(w, m)
}

func modelImportCommand() *cobra.Command {
	var out output
	var o importer.Options
	var format string
	var base int
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Make a device model of a register map, a SunSpec model or an OPC UA NodeSet",
		Long: `Prints a device model made of a file, for apply -f -; what could not be carried over is said on stderr, with its place.
FILE - is standard input. The format is recognised.

csv      A register map with a header. Columns: name, type, table, register, encoding, order, scale, unit, access; also
         description, reference, length, bit, offset, scaleFrom, nullValue, minimum, maximum. In any order; name, table and
         register (or reference) are needed. Separated by commas, semicolons or tabs.
sunspec  A SunSpec model as JSON. Its registers begin at --base: without it, where the model stands right behind the
         marker at 40000 and the common model. Groups that repeat are taken --repeat times.
nodeset  An OPC UA NodeSet2 file. Its variables become properties, except those that only belong to types; --under takes
         those below one object.`,
		Example: `  whimbrel model import registers.csv --name pump | whimbrel apply -f -
  whimbrel model import model_103.json --base 40069
  whimbrel model import plant.NodeSet2.xml --under Boiler1`,
		Args: arguments(1, 1, "a FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			if o.Format = importer.Format(format); format != "" && !slices.Contains(importer.Formats, o.Format) {
				return Usagef("--format must be csv, sunspec or nodeset, got %q", format)
			}
			if cmd.Flags().Changed("base") {
				if base < 0 || base > 65535 {
					return Usagef("--base must be from 0 to 65535, got %d", base)
				}
				o.Base = &base
			}
			if o.Name != "" {
				if wrong := models.CheckLabelName(o.Name); wrong != "" {
					return Usagef("--name %s", wrong)
				}
			}
			return importModel(cmd, args[0], o, out)
		},
	}
	out.addFlag(cmd, "yaml", "json")
	f := cmd.Flags()
	f.StringVar(&format, "format", "", "csv, sunspec or nodeset (default what the file looks like)")
	f.StringVar(&o.Name, "name", "", "the model's name (default from the file)")
	f.IntVar(&base, "base", 0, "SunSpec: the register of the model's ID (default 40070, or 40002 for model 1)")
	f.IntVar(&o.Repeat, "repeat", 0, "SunSpec: how many instances of repeating groups to take")
	f.StringVar(&o.Under, "under", "", "NodeSet: only what is below the node of this browse name or id")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"csv", "sunspec", "nodeset"}, cobra.ShellCompDirectiveNoFileComp)) // fails for unknown flags only
	return cmd
}

func importModel(cmd *cobra.Command, name string, o importer.Options, out output) error {
	in, label := cmd.InOrStdin(), "standard input"
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		in, label = f, name
		file := filepath.Base(name)
		o.Fallback, _, _ = strings.Cut(file, ".")
	}
	o.Check = misfits
	result, err := importer.Import(in, o)
	for _, w := range result.Warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", plain(w.String()))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", label, err)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "model %s: %s\n", result.Model.Metadata.Name, properties(len(result.Model.Spec.Properties)))
	return printModel(cmd.OutOrStdout(), result.Model, out)
}

// somewhere are connections to try models on. Nothing is connected.
var somewhere = map[string]string{
	"modbus": `{"url": "tcp://192.0.2.1"}`,
	"opcua":  `{"url": "opc.tcp://192.0.2.1"}`,
	"serial": `{"url": "serial:///dev/null"}`,
}

// misfits says what the protocol's driver would refuse of a model.
func misfits(m *models.DeviceModel) []models.FieldError {
	driver := builtin.Drivers()[m.Spec.Protocol]
	if driver == nil {
		return []models.FieldError{{Pointer: "/spec/protocol", Detail: fmt.Sprintf("there is no driver for %q", m.Spec.Protocol)}}
	}
	props, err := models.Resolve(m, &models.Device{})
	var device mappers.Device
	if err == nil {
		device, err = driver.Open(mappers.DeviceConfig{Name: m.Metadata.Name, Connection: json.RawMessage(somewhere[m.Spec.Protocol]), Points: mappers.PointsOf(props)})
	}
	var e *models.Error
	switch {
	case err == nil:
		_ = device.Close() // it has reached for nothing
		return nil
	case errors.As(err, &e) && len(e.Fields) > 0:
		return e.Fields
	}
	return []models.FieldError{{Detail: err.Error()}}
}
