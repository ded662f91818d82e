package importer

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/whimbrel-edge/whimbrel/models"
)

// Bounds on a NodeSet: of a file that is read as a stream, the nodes stay.
const (
	maxNodes  = 300_000
	maxChain  = 100 // of parents, or of supertypes
	maxFields = 1000
)

// node is what is kept of a node.
type node struct {
	class    string // UAVariable, …
	id       string // with the file's namespace indexes, aliases resolved
	browse   string // without namespace
	parent   string // "" where the file does not say
	typ      string // HasTypeDefinition
	super    string // of a type
	dataType string
	rank     int
	access   uint8
	text     string // description
	line     int
	unit     string           // the EngineeringUnits that the node is
	enum     map[int64]string // the EnumStrings or EnumValues that it is, or a DataType's fields
}

// xmlNode is a node as the file has it. Values are read only where they say
// something about another node.
type xmlNode struct {
	NodeID       string         `xml:"NodeId,attr"`
	BrowseName   string         `xml:"BrowseName,attr"`
	ParentNodeID string         `xml:"ParentNodeId,attr"`
	DataType     string         `xml:"DataType,attr"`
	ValueRank    string         `xml:"ValueRank,attr"`
	AccessLevel  string         `xml:"AccessLevel,attr"`
	Description  []string       `xml:"Description"`
	References   []xmlReference `xml:"References>Reference"`
	Fields       []xmlField     `xml:"Definition>Field"`
	Unit         string         `xml:"Value>ExtensionObject>Body>EUInformation>DisplayName>Text"`
	EnumStrings  []string       `xml:"Value>ListOfLocalizedText>LocalizedText>Text"`
	EnumValues   []xmlEnum      `xml:"Value>ListOfExtensionObject>ExtensionObject>Body>EnumValueType"`
}

type xmlReference struct {
	Type    string `xml:"ReferenceType,attr"`
	Forward string `xml:"IsForward,attr"`
	Target  string `xml:",chardata"`
}

type xmlField struct {
	Name  string `xml:"Name,attr"`
	Value string `xml:"Value,attr"`
}

type xmlEnum struct {
	Value string `xml:"Value"`
	Name  string `xml:"DisplayName>Text"`
}

// Ids of OPC UA's own namespace.
const (
	idEnumeration       = "i=29"
	idStructure         = "i=22"
	idHasTypeDefinition = "i=40"
	idHasSubtype        = "i=45"
	idNamespaceMetadata = "i=11616"
	idDictionary        = "i=72"
	idDataTypeDesc      = "i=69"
)

// hierarchical are the references that lead from a node to what is in it.
var hierarchical = []string{"i=47", "i=46", "i=35", "i=49", "i=17604", "i=14936", "i=33", "i=34", "i=44"}

// coreAliases are aliases that files use without saying so.
var coreAliases = map[string]string{
	"HasComponent": "i=47", "HasProperty": "i=46", "Organizes": "i=35", "HasOrderedComponent": "i=49", "HasAddIn": "i=17604",
	"HasTypeDefinition": idHasTypeDefinition, "HasSubtype": idHasSubtype, "Aggregates": "i=44", "HasChild": "i=34",
}

// carried is how values of OPC UA's own data types are carried: the ones with
// an encoding of their own, and those that travel as one of them.
var carried = map[string]models.Type{
	"i=1": models.TypeBool,
	"i=2": models.TypeInt, "i=3": models.TypeInt, "i=4": models.TypeInt, "i=5": models.TypeInt, "i=6": models.TypeInt,
	"i=7": models.TypeInt, "i=8": models.TypeInt, "i=9": models.TypeInt, "i=27": models.TypeInt, "i=28": models.TypeInt,
	"i=19": models.TypeInt, idEnumeration: models.TypeInt, "i=288": models.TypeInt, "i=289": models.TypeInt, "i=256": models.TypeInt,
	"i=852": models.TypeInt, "i=11737": models.TypeInt,
	"i=10": models.TypeFloat, "i=11": models.TypeFloat, "i=26": models.TypeFloat, "i=290": models.TypeFloat, "i=50": models.TypeFloat,
	"i=12": models.TypeString, "i=13": models.TypeString, "i=14": models.TypeString, "i=16": models.TypeString, "i=17": models.TypeString,
	"i=18": models.TypeString, "i=20": models.TypeString, "i=21": models.TypeString, "i=291": models.TypeString, "i=293": models.TypeString,
	"i=294": models.TypeString, "i=295": models.TypeString, "i=12877": models.TypeString, "i=12878": models.TypeString,
	"i=12879": models.TypeString, "i=12880": models.TypeString, "i=12881": models.TypeString, "i=23751": models.TypeString,
	"i=15": models.TypeBytes, "i=30": models.TypeBytes, "i=311": models.TypeBytes,
}

var coreNames = map[string]string{
	"Boolean": "i=1", "SByte": "i=2", "Byte": "i=3", "Int16": "i=4", "UInt16": "i=5", "Int32": "i=6", "UInt32": "i=7", "Int64": "i=8",
	"UInt64": "i=9", "Float": "i=10", "Double": "i=11", "String": "i=12", "DateTime": "i=13", "Guid": "i=14", "ByteString": "i=15",
	"XmlElement": "i=16", "NodeId": "i=17", "ExpandedNodeId": "i=18", "StatusCode": "i=19", "QualifiedName": "i=20", "LocalizedText": "i=21",
	"Structure": idStructure, "BaseDataType": "i=24", "Number": "i=26", "Integer": "i=27", "UInteger": "i=28", "Enumeration": idEnumeration,
	"Duration": "i=290", "UtcTime": "i=294", "LocaleId": "i=295",
}

// about are the properties that tell something about the variable they belong
// to, and are no values of the device's.
var about = []string{"EngineeringUnits", "EURange", "InstrumentRange", "EnumStrings", "EnumValues", "ValueAsText", "ValuePrecision", "Definition",
	"TrueState", "FalseState", "InputArguments", "OutputArguments", "NodeVersion", "DefaultInstanceBrowseName", "DictionaryFragment", "DataTypeVersion"}

// space is a NodeSet being read.
type space struct {
	b       *builder
	uris    []string // by the file's index
	aliases map[string]string
	nodes   map[string]*node
	order   []*node           // variables, as they stand in the file
	owners  map[string]string // from forward references: who has the node
}

// nodeset reads a NodeSet2 file.
func (b *builder) nodeset(r io.Reader) error {
	s := &space{b: b, uris: []string{"http://opcfoundation.org/UA/"}, aliases: map[string]string{}, nodes: map[string]*node{}, owners: map[string]string{}}
	if err := s.read(r); err != nil {
		return err
	}
	b.model.Spec.Protocol = "opcua"
	return s.variables()
}

// read takes in the nodes.
func (s *space) read(r io.Reader) error {
	limited := &io.LimitedReader{R: r, N: maxStream}
	d := xml.NewDecoder(limited)
	// The encodings besides UTF-8 in which such files come are rare; a wrong
	// letter in a description is not worth a table.
	d.CharsetReader = func(charset string, _ io.Reader) (io.Reader, error) {
		return nil, fmt.Errorf("the encoding is %s; save the file as UTF-8", charset)
	}
	root := false
	for {
		token, err := d.Token()
		switch {
		case errors.Is(err, io.EOF) && root && limited.N > 0:
			return nil
		case errors.Is(err, io.EOF) && limited.N > 0:
			return errors.New("there is no UANodeSet in the file")
		case err != nil:
			return xmlError(d, limited, err)
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if !root {
			if start.Name.Local != "UANodeSet" {
				return fmt.Errorf("the file's root is %s, not UANodeSet", short(start.Name.Local))
			}
			root = true
			continue
		}
		if err := s.element(d, start); err != nil {
			return xmlError(d, limited, err)
		}
	}
}

// xmlError says in which line XML is broken, or that there is too much of it.
func xmlError(d *xml.Decoder, limited *io.LimitedReader, err error) error {
	if limited.N <= 0 {
		return fmt.Errorf("files of more than %d MiB are not read", maxStream>>20)
	}
	var syntax *xml.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("line %d: %s", syntax.Line, syntax.Msg)
	}
	line, _ := d.InputPos()
	return fmt.Errorf("line %d: %w", line, err)
}

func (s *space) element(d *xml.Decoder, start xml.StartElement) error {
	switch start.Name.Local {
	case "NamespaceUris":
		var list struct {
			URI []string `xml:"Uri"`
		}
		if err := d.DecodeElement(&list, &start); err != nil {
			return err
		}
		for _, uri := range list.URI {
			s.uris = append(s.uris, strings.TrimSpace(uri))
		}
		return nil
	case "Aliases":
		var list struct {
			Alias []struct {
				Name string `xml:"Alias,attr"`
				ID   string `xml:",chardata"`
			} `xml:"Alias"`
		}
		if err := d.DecodeElement(&list, &start); err != nil {
			return err
		}
		for _, a := range list.Alias {
			s.aliases[a.Name] = strings.TrimSpace(a.ID)
		}
		return nil
	case "UAVariable", "UAObject", "UAMethod", "UAView", "UADataType", "UAObjectType", "UAVariableType", "UAReferenceType":
		if len(s.nodes) >= maxNodes {
			return fmt.Errorf("there are more than %d nodes", maxNodes)
		}
		line, _ := d.InputPos()
		var x xmlNode
		if err := d.DecodeElement(&x, &start); err != nil {
			return err
		}
		s.take(start.Name.Local, line, &x)
		return nil
	}
	return d.Skip()
}

// resolve gives an id for an id or an alias.
func (s *space) resolve(text string) string {
	text = strings.TrimSpace(text)
	if strings.Contains(text, "=") {
		return text
	}
	for _, names := range []map[string]string{s.aliases, coreAliases, coreNames} {
		if id, ok := names[text]; ok {
			return id
		}
	}
	return text
}

func (s *space) take(class string, line int, x *xmlNode) {
	n := &node{class: class, id: strings.TrimSpace(x.NodeID), line: line, rank: -1, access: 1, browse: x.BrowseName,
		parent: strings.TrimSpace(x.ParentNodeID), dataType: s.resolve(x.DataType)}
	at := place{line: line}
	if n.id == "" {
		s.b.warn(at, "a node without NodeId is left out")
		return
	}
	if first := s.nodes[n.id]; first != nil {
		s.b.warn(at, "%s is also in line %d: the first counts", short(n.id), first.line)
		return
	}
	if _, rest, ok := strings.Cut(n.browse, ":"); ok && !strings.ContainsFunc(n.browse[:len(n.browse)-len(rest)-1], func(r rune) bool { return r < '0' || r > '9' }) {
		n.browse = rest
	}
	if x.DataType == "" {
		n.dataType = "i=24"
	}
	if x.ValueRank != "" {
		rank, err := strconv.Atoi(strings.TrimSpace(x.ValueRank))
		if err != nil {
			s.b.warn(at, "%s: ValueRank %s is no number; -1 is taken", short(n.browse), short(x.ValueRank))
			rank = -1
		}
		n.rank = rank
	}
	if x.AccessLevel != "" {
		level, err := strconv.ParseUint(strings.TrimSpace(x.AccessLevel), 10, 32)
		if err != nil {
			s.b.warn(at, "%s: AccessLevel %s is no number; 1 (read) is taken", short(n.browse), short(x.AccessLevel))
			level = 1
		}
		n.access = uint8(level)
	}
	if len(x.Description) > 0 {
		n.text = cut(x.Description[0], 300)
	}
	for _, ref := range x.References {
		s.reference(n, s.resolve(ref.Type), s.resolve(ref.Target), ref.Forward != "false" && ref.Forward != "0")
	}
	switch {
	case n.browse == "EngineeringUnits":
		n.unit = cut(strings.TrimSpace(x.Unit), 40)
	case n.browse == "EnumStrings" && len(x.EnumStrings) <= maxFields:
		var symbols []sunspecSymbol
		for i, name := range x.EnumStrings {
			symbols = append(symbols, sunspecSymbol{Name: name, Value: int64(i)})
		}
		n.enum = enumOf(symbols)
	case n.browse == "EnumValues" && len(x.EnumValues) <= maxFields, class == "UADataType" && len(x.Fields) <= maxFields:
		var symbols []sunspecSymbol
		for _, v := range x.EnumValues {
			if i, err := strconv.ParseInt(strings.TrimSpace(v.Value), 10, 64); err == nil {
				symbols = append(symbols, sunspecSymbol{Name: v.Name, Value: i})
			}
		}
		for _, f := range x.Fields {
			if i, err := strconv.ParseInt(strings.TrimSpace(f.Value), 10, 64); err == nil {
				symbols = append(symbols, sunspecSymbol{Name: f.Name, Value: i})
			}
		}
		n.enum = enumOf(symbols)
	}
	s.nodes[n.id] = n
	if class == "UAVariable" {
		s.order = append(s.order, n)
	}
}

func (s *space) reference(n *node, kind, target string, forward bool) {
	switch {
	case kind == idHasTypeDefinition && forward:
		n.typ = target
	case kind == idHasSubtype && !forward:
		n.super = target
	case slices.Contains(hierarchical, kind) && forward:
		if s.owners[target] == "" {
			s.owners[target] = n.id
		}
	case slices.Contains(hierarchical, kind) && n.parent == "":
		n.parent = target
	}
}

// parent is the node that has n, nil where the file does not hold it.
func (s *space) parent(n *node) *node {
	id := n.parent
	if id == "" {
		id = s.owners[n.id]
	}
	return s.nodes[id]
}

// ancestry is the way to a node from the outermost one in the file.
func (s *space) ancestry(n *node) []*node {
	way := []*node{n}
	for p := s.parent(n); p != nil && len(way) < maxChain && !slices.Contains(way, p); p = s.parent(p) {
		way = append(way, p)
	}
	slices.Reverse(way)
	return way
}

// candidate is a variable that may become a property.
type candidate struct {
	*node
	way []*node
}

// variables makes properties of the variables.
func (s *space) variables() error {
	var found []candidate
	declared := map[string]int{} // by the type that declares them
	var first []string
	belongs := map[string]*node{} // the unit or enumeration that a variable has
	enums := map[string]*node{}
	for _, n := range s.order {
		if p := s.parent(n); p != nil && n.unit != "" {
			belongs[p.id] = n
		} else if p != nil && n.enum != nil {
			enums[p.id] = n
		}
	}
	unders := 0
	for _, n := range s.order {
		way := s.ancestry(n)
		if slices.Contains(about, n.browse) || n.typ == idDictionary || n.typ == idDataTypeDesc {
			continue
		}
		if i := slices.IndexFunc(way, func(p *node) bool {
			return strings.HasSuffix(p.class, "Type") || p.class == "UAMethod" || p.typ == idNamespaceMetadata || p.typ == idDictionary
		}); i >= 0 {
			if strings.HasSuffix(way[i].class, "Type") {
				if declared[way[i].browse]++; declared[way[i].browse] == 1 {
					first = append(first, way[i].browse)
				}
			}
			continue
		}
		if s.b.o.Under != "" && !slices.ContainsFunc(way[:len(way)-1], func(p *node) bool { return p.browse == s.b.o.Under || p.id == s.b.o.Under }) {
			unders++
			continue
		}
		found = append(found, candidate{n, way})
	}
	if len(first) > 0 {
		total := 0
		for _, n := range declared {
			total += n
		}
		s.b.warn(place{}, "variables that types declare are left out, %d of %s: a model is made of instances", total, few(first))
	}
	switch {
	case len(found) == 0 && unders > 0:
		return fmt.Errorf("no variable is below %s; %d are elsewhere", short(s.b.o.Under), unders)
	case len(found) == 0 && len(first) > 0:
		return errors.New("the file declares types and has no instances; import a file exported from a server, or browse one")
	case len(found) == 0:
		return errors.New("the file has no variables")
	}
	common := commonWay(found)
	name := "nodeset"
	if common > 0 {
		name = found[0].way[common-1].browse
	}
	s.b.model.Metadata.Name = modelName(name)
	s.b.model.Spec.Description = cut("from the NodeSet of "+s.uri(found[0].id), 300)
	for _, c := range found {
		if s.b.full {
			break
		}
		s.property(c, common, belongs[c.id], enums[c.id])
	}
	return nil
}

// commonWay is how many ancestors all have in common; the variable itself is
// none.
func commonWay(found []candidate) int {
	n := len(found[0].way) - 1
	for _, c := range found[1:] {
		n = min(n, len(c.way)-1)
		for i := range n {
			if c.way[i] != found[0].way[i] {
				n = i
				break
			}
		}
	}
	return n
}

func few(names []string) string {
	if len(names) > 3 {
		return strings.Join(names[:3], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

func (s *space) property(c candidate, common int, unit, enum *node) {
	at := place{line: c.line}
	var steps []string
	for _, p := range c.way[common:] {
		steps = append(steps, strings.ReplaceAll(p.browse, ".", "_"))
	}
	// The end of a path says more than its beginning.
	for len(steps) > 1 && len(strings.Join(steps, ".")) > 60 {
		steps = steps[1:]
	}
	p := models.Property{Name: strings.Join(steps, "."), Description: c.text}
	address, ok := s.address(c.id)
	if !ok {
		s.b.warn(at, "%s is left out: %s is no node id of a namespace in the file", short(p.Name), short(c.id))
		return
	}
	p.Address = mustJSON(struct {
		Node string `json:"node"`
	}{address})
	switch c.access & 3 {
	case 0:
		s.b.warn(at, "%s is left out: its AccessLevel is neither read nor write", short(p.Name))
		return
	case 1:
		p.Access = models.Read
	case 2:
		p.Access = models.Write
	case 3:
		p.Access = models.ReadWrite
	}
	scalar, names, why := s.carry(c.dataType)
	if why != "" {
		s.b.warn(at, "%s is left out: %s", short(p.Name), why)
		return
	}
	switch {
	case c.rank == -1:
		p.Type = scalar
	case c.rank >= 0:
		p.Type = models.TypeArray
	default: // -2 any, -3 one value or a list of them
		s.b.warn(at, "%s may hold one value or an array: one is taken", short(p.Name))
		p.Type = scalar
	}
	if p.Type == models.TypeInt {
		if enum != nil {
			names = enum.enum
		}
		p.Enum = names
	}
	if unit != nil && (p.Type == models.TypeInt || p.Type == models.TypeFloat) {
		p.Unit = unit.unit
	}
	s.b.add(at, p)
}

// carry is how a data type's values are carried, or why they cannot be.
func (s *space) carry(id string) (t models.Type, names map[int64]string, why string) {
	asked := id
	for range maxChain {
		if t, ok := carried[id]; ok {
			if id != idEnumeration {
				names = nil
			}
			return t, names, ""
		}
		if id == idStructure || id == "i=24" {
			break
		}
		n := s.nodes[id]
		if n == nil || n.super == "" {
			return "", nil, fmt.Sprintf("its data type %s is not in the file", s.called(asked))
		}
		if len(n.enum) > 0 && names == nil {
			names = n.enum
		}
		id = n.super
	}
	if id == "i=24" {
		return "", nil, "its data type is abstract: any value may be in it"
	}
	return "", nil, fmt.Sprintf("its data type %s is a structure", s.called(asked))
}

// called is a node's id, and its name where the file has it.
func (s *space) called(id string) string {
	if n := s.nodes[id]; n != nil {
		return cut(n.browse, 60) + " (" + cut(id, 60) + ")"
	}
	return cut(id, 80)
}

// uri is the namespace of a node id.
func (s *space) uri(id string) string {
	rest, ok := strings.CutPrefix(id, "ns=")
	if !ok {
		return s.uris[0]
	}
	digits, _, _ := strings.Cut(rest, ";")
	if i, err := strconv.Atoi(digits); err == nil && i >= 0 && i < len(s.uris) {
		return s.uris[i]
	}
	return ""
}

// address is a node's id with the URI of its namespace: a server numbers
// namespaces as it likes.
func (s *space) address(id string) (string, bool) {
	plain := id
	if strings.HasPrefix(id, "ns=") {
		_, plain, _ = strings.Cut(id, ";")
	}
	kind, rest, ok := strings.Cut(plain, "=")
	if !ok || !slices.Contains([]string{"i", "s", "g", "b"}, kind) || rest == "" || len(rest) > 4096 {
		return "", false
	}
	if kind == "i" {
		if _, err := strconv.ParseUint(rest, 10, 32); err != nil {
			return "", false
		}
	}
	uri := s.uri(id)
	switch uri {
	case "":
		return "", false
	case s.uris[0]:
		return plain, true
	}
	// As OPC UA's text form of expanded ids has it.
	return "nsu=" + strings.NewReplacer("%", "%25", ";", "%3B").Replace(uri) + ";" + plain, true
}
