// Package importer makes DeviceModels of what others have written down about
// devices: register maps in CSV, SunSpec's JSON models and OPC UA NodeSet2
// files. What a model cannot hold is left out and told, with its place in the
// file; it is never guessed. The package does no I/O of its own and its input
// may come from anyone: it is bounded in bytes, depth and number.
package importer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Format is a kind of file.
type Format string

// The formats.
const (
	CSV     Format = "csv"     // a register map
	SunSpec Format = "sunspec" // one SunSpec model as JSON
	NodeSet Format = "nodeset" // an OPC UA NodeSet2 file
)

// Formats lists the formats.
var Formats = []Format{CSV, SunSpec, NodeSet}

// Bounds on the input. A NodeSet is read as a stream, the others whole. Tests
// lower them: reaching them takes seconds.
var (
	maxText   int64 = 16 << 20
	maxStream int64 = 64 << 20
)

const maxWarnings = 500

// Options say how to import. The zero Options recognise the format and use
// what the file says.
type Options struct {
	Format Format
	Name   string // of the model; "": what the file suggests, or else Fallback
	// Fallback is the name where nothing suggests one.
	Fallback string
	// Base is the register of a SunSpec model's first point (ID); nil is where
	// the model stands right behind SunSpec's marker at 40000 and the common
	// model.
	Base *int
	// Repeat is how many instances of a SunSpec model's repeating groups to take:
	// the file does not say how many a device has.
	Repeat int
	// Under restricts a NodeSet to what is below the node with this browse name
	// or node id.
	Under string
	// Check says what the protocol's driver would refuse, with pointers below
	// /spec/properties/{name}. What it names is left out and told.
	Check func(*models.DeviceModel) []models.FieldError
}

// Warning is one thing that was not carried over, or not as it stands.
type Warning struct {
	Line    int    // in the file, 0 where there are none to count
	Pointer string // JSON Pointer into the file, where it is JSON
	Text    string
}

func (w Warning) String() string {
	switch {
	case w.Line > 0:
		return "line " + strconv.Itoa(w.Line) + ": " + w.Text
	case w.Pointer != "":
		return w.Pointer + ": " + w.Text
	}
	return w.Text
}

// Result is a model that passes validation, and what it lacks.
type Result struct {
	Format   Format
	Model    *models.DeviceModel
	Warnings []Warning
}

// Import reads a file to its end and makes a model of it. It fails when the
// file cannot be read as its format, or holds nothing that a model can. The
// result's Warnings are filled in that case, too.
func Import(r io.Reader, o Options) (Result, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	head, err := in.Peek(32 << 10)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return Result{}, fmt.Errorf("read: %w", err)
	}
	f := o.Format
	if f == "" {
		if f, err = Recognise(head); err != nil {
			return Result{}, err
		}
	}
	if wrong := o.unfit(f); wrong != "" {
		return Result{Format: f}, fmt.Errorf("%s: the file is taken for %s", wrong, f)
	}
	b := newBuilder(o)
	switch f {
	case CSV:
		err = b.csv(in)
	case SunSpec:
		err = b.sunspec(in)
	case NodeSet:
		err = b.nodeset(in)
	default:
		err = fmt.Errorf("format %q is none of csv, sunspec, nodeset", f)
	}
	if err == nil {
		err = b.finish()
	}
	return Result{Format: f, Model: b.model, Warnings: b.warnings}, err
}

// unfit names an option that says nothing about files of a format; "" is none.
func (o *Options) unfit(f Format) string {
	switch {
	case o.Base != nil && f != SunSpec:
		return "base is of SunSpec models"
	case o.Repeat != 0 && f != SunSpec:
		return "repeat is of SunSpec models"
	case o.Under != "" && f != NodeSet:
		return "under is of OPC UA NodeSets"
	}
	return ""
}

// Recognise tells a file's format from how it begins.
func Recognise(head []byte) (Format, error) {
	text := bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\uFEFF")), " \t\r\n")
	if len(text) == 0 {
		return "", errors.New("the file is empty")
	}
	first, _, _ := bytes.Cut(text, []byte("\n"))
	switch {
	case text[0] == '<' && bytes.Contains(text, []byte("UANodeSet")):
		return NodeSet, nil
	case text[0] == '<':
		return "", errors.New("the file is XML, but no UANodeSet begins in it; XML is read as OPC UA NodeSet2 only (--format nodeset)")
	case text[0] == '{' && bytes.Contains(text, []byte(`"apiVersion"`)) && bytes.Contains(text, []byte(`"kind"`)):
		return "", errors.New("the file is an object of Whimbrel or Kubernetes already; use: whimbrel apply -f")
	case text[0] == '{':
		return SunSpec, nil
	case bytes.HasPrefix(text, []byte("apiVersion:")) || bytes.HasPrefix(text, []byte("kind:")):
		return "", errors.New("the file is an object of Whimbrel or Kubernetes already; use: whimbrel apply -f")
	case bytes.ContainsAny(first, ",;\t"):
		return CSV, nil
	}
	return "", errors.New("the format is not recognised; name it with --format csv, sunspec or nodeset")
}

// readAll reads what has to be in memory whole.
func readAll(r io.Reader, what string) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxText+1))
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	if int64(len(text)) > maxText {
		return nil, fmt.Errorf("%s of more than %d MiB are not read", what, maxText>>20)
	}
	return text, nil
}

// builder puts a model together.
type builder struct {
	o        Options
	model    *models.DeviceModel
	warnings []Warning
	unsaid   int // warnings beyond maxWarnings
	names    map[string]place
	doubles  map[string]int // how often a name was wanted that was taken
	full     bool
}

// place is where in a file something stands.
type place struct {
	line    int
	pointer string
}

func newBuilder(o Options) *builder {
	return &builder{o: o, names: map[string]place{}, doubles: map[string]int{}, model: &models.DeviceModel{
		TypeMeta: models.TypeMeta{APIVersion: models.APIVersion, Kind: "DeviceModel"},
		Metadata: models.ObjectMeta{Namespace: models.DefaultNamespace},
	}}
}

func (b *builder) warn(at place, format string, args ...any) {
	if len(b.warnings) >= maxWarnings {
		b.unsaid++
		return
	}
	b.warnings = append(b.warnings, Warning{Line: at.line, Pointer: at.pointer, Text: fmt.Sprintf(format, args...)})
}

// add takes a property into the model, under a name that it can have there. It
// reports whether it could.
func (b *builder) add(at place, p models.Property) bool {
	if len(b.model.Spec.Properties) >= models.MaxProperties {
		if !b.full {
			b.warn(at, "a model holds %d properties: this one and all after it are left out", models.MaxProperties)
		}
		b.full = true
		return false
	}
	wanted := p.Name
	name := propertyName(wanted)
	if name == "" {
		b.warn(at, "%s has no letter or digit to make a property's name of: left out", short(wanted))
		return false
	}
	if _, taken := b.names[name]; taken {
		first := name
		for taken {
			b.doubles[first]++
			n := strconv.Itoa(b.doubles[first] + 1)
			name = cut(first, 63-len(n)-1) + "-" + n
			_, taken = b.names[name]
		}
	}
	if name != wanted {
		b.warn(at, "%s is called %s in the model", short(wanted), name)
	}
	p.Name = name
	p.Description = summary(p.Description)
	p.Unit = strings.ToValidUTF8(strings.TrimSpace(p.Unit), "?")
	alone := models.DeviceModel{Metadata: models.ObjectMeta{Name: "x", Namespace: models.DefaultNamespace},
		Spec: models.DeviceModelSpec{Protocol: "x", Properties: []models.Property{p}}}
	alone.Default()
	if errs := alone.Validate(); len(errs) > 0 {
		b.warn(at, "%s is left out: %s %s", name, strings.TrimPrefix(errs[0].Pointer, "/spec/properties/0/"), errs[0].Detail)
		return false
	}
	b.names[name] = at
	b.model.Spec.Properties = append(b.model.Spec.Properties, alone.Spec.Properties[0])
	return true
}

// finish names the model and has it checked as a whole.
func (b *builder) finish() error {
	m := b.model
	m.Metadata.Name = modelName(b.o.Name, m.Metadata.Name, b.o.Fallback, "imported")
	if b.o.Name != "" {
		m.Metadata.Name = b.o.Name
	}
	if b.o.Check != nil && len(m.Spec.Properties) > 0 {
		bad := map[string]string{}
		for _, f := range b.o.Check(m) {
			rest, ok := strings.CutPrefix(f.Pointer, "/spec/properties/")
			name, field, _ := strings.Cut(rest, "/")
			if !ok {
				return &models.Error{Kind: models.KindInvalid, Fields: []models.FieldError{f}}
			}
			if bad[name] == "" {
				bad[name] = strings.TrimPrefix(strings.TrimPrefix(field+": ", "address: "), "address/") + f.Detail
			}
		}
		m.Spec.Properties = slices.DeleteFunc(m.Spec.Properties, func(p models.Property) bool {
			if bad[p.Name] != "" {
				b.warn(b.names[p.Name], "%s is left out: %s", p.Name, bad[p.Name])
			}
			return bad[p.Name] != ""
		})
	}
	if b.unsaid > 0 {
		b.warnings = append(b.warnings, Warning{Text: fmt.Sprintf("and %d warnings more", b.unsaid)})
	}
	if len(m.Spec.Properties) == 0 {
		return errors.New("nothing in the file can be a property of a device")
	}
	m.Default()
	if errs := m.Validate(); len(errs) > 0 {
		return &models.Error{Kind: models.KindInvalid, Fields: errs}
	}
	if text, err := json.Marshal(m); err != nil {
		return err
	} else if len(text) > models.MaxDocumentBytes {
		b.warnings = append(b.warnings, Warning{Text: fmt.Sprintf("the model has %d bytes, and a hub takes at most %d: split it", len(text), models.MaxDocumentBytes)})
	}
	return nil
}

// plainLetters are the letters of register maps from Europe, in ASCII.
var plainLetters = map[rune]string{
	'ä': "ae", 'ö': "oe", 'ü': "ue", 'Ä': "Ae", 'Ö': "Oe", 'Ü': "Ue", 'ß': "ss", 'å': "a", 'æ': "ae", 'ø': "o", 'Å': "A", 'Æ': "Ae", 'Ø': "O",
	'á': "a", 'à': "a", 'â': "a", 'ã': "a", 'é': "e", 'è': "e", 'ê': "e", 'í': "i", 'ì': "i", 'î': "i", 'ó': "o", 'ò': "o", 'ô': "o", 'õ': "o",
	'ú': "u", 'ù': "u", 'û': "u", 'ç': "c", 'ñ': "n", 'É': "E", 'È': "E", 'À': "A", 'Ç': "C",
}

// propertyName makes a property's name of any text, "" when there is nothing to
// make it of.
func propertyName(s string) string {
	var out []byte
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			out = append(out, byte(r))
		case plainLetters[r] != "":
			out = append(out, plainLetters[r]...)
		case len(out) == 0: // a name begins with a letter or digit
		case r == '.' || r == '_' || r == '-':
			out = append(out, byte(r))
		case out[len(out)-1] != '-' && out[len(out)-1] != '.':
			out = append(out, '-')
		}
	}
	if len(out) > 63 {
		out = out[:63]
	}
	return strings.TrimRight(string(out), "-._")
}

// modelName makes a model's name of the first text that has one in it.
func modelName(texts ...string) string {
	for _, s := range texts {
		var out []byte
		for _, r := range strings.ToLower(s) {
			switch {
			case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
				out = append(out, byte(r))
			case len(out) > 0 && out[len(out)-1] != '-':
				out = append(out, '-')
			}
		}
		if len(out) > 63 {
			out = out[:63]
		}
		if name := strings.Trim(string(out), "-"); name != "" {
			return name
		}
	}
	return ""
}

// cut shortens to n bytes, between characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// summary is a description on one line, and of a long one the sentences that
// fit.
func summary(s string) string {
	const most = 200
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	if len(s) <= most {
		return s
	}
	s = cut(s, most)
	if i := strings.LastIndex(s, ". "); i > 0 {
		return s[:i+1]
	}
	return s + "…"
}

// short quotes a text from the file for a message.
func short(s string) string { return strconv.Quote(cut(s, 80)) }

// mustJSON encodes an address.
func mustJSON(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // unreachable: addresses are strings and finite numbers
	}
	return text
}

// registers is an address in Modbus's terms.
type registers struct {
	Table     string   `json:"table,omitempty"`
	Register  *int     `json:"register,omitempty"`
	Reference string   `json:"reference,omitempty"`
	Encoding  string   `json:"encoding,omitempty"`
	Order     string   `json:"order,omitempty"`
	Length    *int     `json:"length,omitempty"`
	Bit       *int     `json:"bit,omitempty"`
	Scale     *float64 `json:"scale,omitempty"`
	Offset    *float64 `json:"offset,omitempty"`
	ScaleFrom *int     `json:"scaleFrom,omitempty"`
	NullValue any      `json:"nullValue,omitempty"`
}
