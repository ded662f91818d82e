package importer

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/whimbrel-edge/whimbrel/models"
)

// columns are those of a register map that mean something.
var columns = []string{"name", "type", "table", "register", "encoding", "order", "scale", "unit", "access",
	"description", "reference", "length", "bit", "offset", "scaleFrom", "nullValue", "minimum", "maximum"}

// The words that register maps have for things.
var (
	tables = map[string]string{
		"coil": "coil", "discrete": "discrete", "discrete input": "discrete", "input": "input", "input register": "input",
		"holding": "holding", "holding register": "holding",
	}
	encodings = map[string]string{
		"bool": "bool", "bit": "bool", "boolean": "bool",
		"int16": "int16", "s16": "int16", "i16": "int16", "short": "int16",
		"uint16": "uint16", "u16": "uint16", "word": "uint16",
		"int32": "int32", "s32": "int32", "i32": "int32",
		"uint32": "uint32", "u32": "uint32", "dword": "uint32",
		"int64": "int64", "s64": "int64", "i64": "int64",
		"uint64": "uint64", "u64": "uint64",
		"float32": "float32", "f32": "float32", "float": "float32", "real": "float32",
		"float64": "float64", "f64": "float64", "double": "float64", "lreal": "float64",
		"string": "string", "ascii": "string",
	}
	accesses = map[string]models.Access{
		"": models.Read, "r": models.Read, "ro": models.Read, "read": models.Read, "readonly": models.Read,
		"w": models.Write, "wo": models.Write, "write": models.Write, "writeonly": models.Write,
		"rw": models.ReadWrite, "readwrite": models.ReadWrite,
	}
)

// csv reads a register map: a header, then a row per property.
func (b *builder) csv(r io.Reader) error {
	text, err := readAll(r, "register maps")
	if err != nil {
		return err
	}
	text = bytes.TrimPrefix(text, []byte("\uFEFF"))
	if bytes.HasPrefix(text, []byte{0xFF, 0xFE}) || bytes.HasPrefix(text, []byte{0xFE, 0xFF}) {
		return errors.New("line 1: the file is UTF-16; save it as UTF-8")
	}
	if !utf8.Valid(text) { // spreadsheets still write the code pages of old
		runes := make([]rune, len(text))
		for i, c := range text {
			runes[i] = rune(c)
		}
		text = []byte(string(runes))
		b.warn(place{line: 1}, "the file is not UTF-8: it is read as ISO 8859-1")
	}
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	in := csv.NewReader(bytes.NewReader(bytes.ReplaceAll(text, []byte("\r"), []byte("\n"))))
	in.FieldsPerRecord, in.TrimLeadingSpace = -1, true
	in.Comma = separator(text)
	m := sheet{b: b, comma: in.Comma == ';'}
	header, err := in.Read()
	if err != nil {
		return csvError(err)
	}
	headLine, _ := in.FieldPos(0)
	if err := m.header(header, headLine); err != nil {
		return err
	}
	for {
		row, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return csvError(err)
		}
		line, _ := in.FieldPos(0)
		if !slices.ContainsFunc(row, func(s string) bool { return strings.TrimSpace(s) != "" }) {
			continue
		}
		m.row(place{line: line}, row)
	}
	m.doubts()
	b.model.Spec.Protocol = "modbus"
	return nil
}

func csvError(err error) error {
	var parse *csv.ParseError
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("the file has no header")
	case errors.As(err, &parse):
		return fmt.Errorf("line %d, column %d: %w", parse.Line, parse.Column, parse.Err)
	}
	return err
}

// separator is the one that occurs most in the first line, outside of quotes.
func separator(text []byte) rune {
	counts := map[rune]int{}
	quoted := false
	for _, c := range string(text[:min(len(text), 64<<10)]) {
		if c == '"' {
			quoted = !quoted
		}
		if c == '\n' && !quoted {
			break
		}
		if !quoted && (c == ',' || c == ';' || c == '\t') {
			counts[c]++
		}
	}
	best := ','
	for _, c := range []rune{';', '\t'} {
		if counts[c] > counts[best] {
			best = c
		}
	}
	return best
}

// sheet is a register map being read.
type sheet struct {
	b     *builder
	comma bool // numbers may have a decimal comma
	at    map[string]int
	wide  int // columns of the header

	count  map[string]int // rows by table
	looks  map[string]int // of these, with a register that looks like a reference
	firsts map[string]place

	plain      int // rows of registers without an encoding
	firstPlain place
}

func (m *sheet) header(names []string, line int) error {
	m.at, m.wide = map[string]int{}, len(names)
	m.count, m.looks, m.firsts = map[string]int{}, map[string]int{}, map[string]place{}
	for i, name := range names {
		key := strings.ToLower(strings.TrimSpace(name))
		switch {
		case key == "":
		case !slices.ContainsFunc(columns, func(c string) bool { return strings.EqualFold(c, key) }):
			m.b.warn(place{line: line}, "column %s is not known and left out; known are %s", short(name), strings.Join(columns, ", "))
		default:
			if _, twice := m.at[key]; twice {
				return fmt.Errorf("line %d: column %s appears twice", line, short(name))
			}
			m.at[key] = i
		}
	}
	_, name := m.at["name"]
	_, table := m.at["table"]
	_, register := m.at["register"]
	_, reference := m.at["reference"]
	if !name || !reference && (!register || !table) {
		return fmt.Errorf("line %d: the header needs the columns name, table and register (or reference); it has %s", line, short(strings.Join(names, ", ")))
	}
	return nil
}

func (m *sheet) row(at place, row []string) {
	if len(row) > m.wide && slices.ContainsFunc(row[m.wide:], func(s string) bool { return strings.TrimSpace(s) != "" }) {
		m.b.warn(at, "has %d fields, the header %d: what is beyond is left out", len(row), m.wide)
	}
	p, err := m.property(at, row)
	if err != nil {
		m.b.warn(at, "left out: %s", err)
		return
	}
	m.b.add(at, p)
}

// cell returns a row's text in a column, "" where there is none.
func (m *sheet) cell(row []string, column string) string {
	i, ok := m.at[column]
	if !ok || i >= len(row) {
		return ""
	}
	return strings.TrimSpace(row[i])
}

func (m *sheet) property(at place, row []string) (p models.Property, err error) {
	// The first thing that is wrong tells; what follows from it would not.
	fail := func(format string, args ...any) {
		if err == nil {
			err = fmt.Errorf(format, args...)
		}
	}
	cell := func(column string) string { return m.cell(row, column) }
	word := func(column string) string {
		return strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(strings.Join(strings.Fields(cell(column)), " ")), "s"), " ")
	}
	number := func(column string) *float64 {
		text := cell(column)
		if text == "" {
			return nil
		}
		if m.comma && strings.Count(text, ",") == 1 && !strings.Contains(text, ".") {
			text = strings.Replace(text, ",", ".", 1)
		}
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			fail("%s must be a number, got %s", column, short(cell(column)))
			return nil
		}
		return &f
	}
	integer := func(column string, low, high int64) *int {
		text := cell(column)
		if text == "" {
			return nil
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if hex, ok := strings.CutPrefix(strings.ToLower(text), "0x"); ok {
			n, err = strconv.ParseInt(hex, 16, 64)
		}
		if err != nil || n < low || n > high {
			fail("%s must be a whole number from %d to %d, got %s", column, low, high, short(cell(column)))
			return nil
		}
		return new(int(n))
	}

	p = models.Property{Name: cell("name"), Unit: cell("unit"), Description: cell("description")}
	if p.Name == "" {
		fail("name is empty")
	}
	var ok bool
	if p.Access, ok = accesses[strings.NewReplacer(" ", "", "/", "", "-", "", "_", "").Replace(strings.ToLower(cell("access")))]; !ok {
		fail("access must be Read, Write or ReadWrite, got %s", short(cell("access")))
	}
	var a registers
	a.Register = integer("register", 0, 65535)
	a.Reference = cell("reference")
	switch {
	case a.Register == nil && a.Reference == "":
		fail("register is empty")
	case a.Register != nil && a.Reference != "":
		fail("has register %d and reference %s: one is enough", *a.Register, short(a.Reference))
	}
	if text := word("table"); text != "" {
		if a.Table, ok = tables[text]; !ok {
			fail("table must be coil, discrete, input or holding, got %s", short(cell("table")))
		}
	} else if a.Register != nil {
		fail("table is empty: coil, discrete, input or holding")
	}
	table := a.Table
	if table == "" && a.Reference != "" {
		table = map[byte]string{'0': "coil", '1': "discrete", '3': "input", '4': "holding"}[a.Reference[0]]
	}
	bits := table == "coil" || table == "discrete"
	if text := strings.ToLower(cell("encoding")); text != "" {
		if a.Encoding, ok = encodings[text]; !ok {
			fail("encoding must be bool, int16, uint16, int32, uint32, int64, uint64, float32, float64 or string, got %s", short(cell("encoding")))
		}
	}
	a.Order = strings.ToUpper(cell("order"))
	if a.Order != "" && !slices.Contains([]string{"ABCD", "CDAB", "BADC", "DCBA"}, a.Order) {
		fail("order must be ABCD, CDAB, BADC or DCBA, got %s", short(a.Order))
	}
	a.Length, a.Bit = integer("length", 1, 125), integer("bit", 0, 15)
	a.Scale, a.Offset, a.ScaleFrom = number("scale"), number("offset"), integer("scalefrom", 0, 65535)
	if text := cell("nullvalue"); text != "" {
		a.NullValue = text
		if a.Encoding != "string" {
			if f := number("nullvalue"); f != nil {
				a.NullValue = *f
			}
			if n, err := strconv.ParseInt(text, 0, 64); err == nil { // which a float64 may not hold
				a.NullValue = n
			} else if u, err := strconv.ParseUint(text, 0, 64); err == nil {
				a.NullValue = u
			}
		}
	}
	if a.Scale != nil && *a.Scale == 0 {
		m.b.warn(at, "scale 0 would make every value 0: left out")
		a.Scale = nil
	}
	if bits || a.Encoding == "string" || a.Encoding == "bool" || a.Bit != nil {
		// Maps fill such columns in for all rows.
		if a.Scale != nil && *a.Scale != 1 || a.Offset != nil && *a.Offset != 0 {
			m.b.warn(at, "scale and offset mean nothing here and are left out")
		}
		a.Scale, a.Offset = nil, nil
	}
	if bits {
		if a.NullValue != nil {
			m.b.warn(at, "nullValue means nothing in the table %s and is left out", table)
		}
		a.Order, a.Encoding, a.NullValue = "", "", nil
	}
	if !bits && a.Encoding == "" && a.Bit == nil && err == nil {
		if m.plain++; m.plain == 1 {
			m.firstPlain = at
		}
	}
	p.Type = m.typeOf(at, cell("type"), a, bits, fail)
	if (table == "input" || table == "discrete") && p.Access != models.Read {
		m.b.warn(at, "access %s does not go with the table %s, which cannot be written: it is Read", p.Access, table)
		p.Access = models.Read
	}
	for _, bound := range []struct {
		column string
		into   **models.Value
	}{{"minimum", &p.Minimum}, {"maximum", &p.Maximum}} {
		if f := number(bound.column); f != nil {
			*bound.into = new(models.Float(*f))
		}
	}
	if a.Register != nil {
		m.count[a.Table]++
		if m.firsts[a.Table] == (place{}) {
			m.firsts[a.Table] = at
		}
		if lead := map[string]int{"discrete": 1, "input": 3, "holding": 4}[a.Table] * 10000; lead > 0 && *a.Register > lead && *a.Register < lead+10000 {
			m.looks[a.Table]++
		}
	}
	p.Address = mustJSON(a)
	return p, err
}

// typeOf is a property's type: the one that the row names, where that can hold
// what the registers do, or else the one that follows from them.
func (m *sheet) typeOf(at place, named string, a registers, bits bool, fail func(string, ...any)) models.Type {
	whole := func(f *float64) bool { return f == nil || *f == math.Trunc(*f) }
	natural := models.TypeInt
	switch {
	case bits || a.Bit != nil || a.Encoding == "bool":
		natural = models.TypeBool
	case a.Encoding == "string":
		natural = models.TypeString
	case a.Encoding == "float32" || a.Encoding == "float64" || a.ScaleFrom != nil || !whole(a.Scale) || !whole(a.Offset):
		natural = models.TypeFloat
	}
	if named == "" {
		return natural
	}
	t := models.Type(strings.ToLower(named))
	if !slices.Contains(models.Types, t) {
		fail("type must be bool, int, float or string, got %s", short(named))
	}
	if t == models.TypeInt && natural == models.TypeFloat {
		m.b.warn(at, "type int cannot hold what its encoding and scale make without rounding: it is float")
		return natural
	}
	return t
}

// doubts tells of what can be read in two ways.
func (m *sheet) doubts() {
	if m.plain > 0 {
		m.b.warn(m.firstPlain, "%s without an encoding, this the first: their registers are read as uint16, or bool where the type is bool", rows(m.plain))
	}
	for _, table := range []string{"discrete", "input", "holding"} {
		if n := m.count[table]; n > 0 && m.looks[table] == n {
			m.b.warn(m.firsts[table], "all registers of the table %s look like references, counted from %d; they are taken as they travel, counted from 0. If that is wrong, call the column reference",
				table, map[string]int{"discrete": 10001, "input": 30001, "holding": 40001}[table])
		}
	}
}

func rows(n int) string {
	if n == 1 {
		return "a row is"
	}
	return fmt.Sprintf("%d rows are", n)
}
