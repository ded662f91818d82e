package opcua

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/gopcua/opcua/ua"
)

var nodeForm = regexp.MustCompile(`^(ns=[0-9]{1,5};)?([isgb])=(.+)$`)

// ParseNode reads a node id: ns=2;s=Boiler.Temp, with i= for a number, g= for a
// GUID and b= for an opaque id in base64. Without ns= it is in namespace 0.
func ParseNode(text string) (*ua.NodeID, error) {
	if !nodeForm.MatchString(text) {
		return nil, fmt.Errorf("must be a node id such as ns=2;s=Boiler.Temp or i=2258, got %q", text)
	}
	full := text
	if !strings.HasPrefix(text, "ns=") {
		full = "ns=0;" + text // without it gopcua trips over a ";" in the id
	}
	id, err := ua.ParseNodeID(full)
	if err != nil {
		return nil, fmt.Errorf("must be a node id such as ns=2;s=Boiler.Temp or i=2258, got %q: %w", text, err)
	}
	return id, nil
}

// Ref names a node: by an id, and by the namespace's URI where that is known
// rather than its index, which every server chooses for itself.
type Ref struct {
	id  *ua.NodeID
	uri string // "": the id's own index holds
}

// ParseRef reads a node id as ParseNode does, or with the namespace's URI, as in
// nsu=http://example.com/UA/;s=Boiler.Temp. In the URI "%" and ";" are written
// %25 and %3B.
func ParseRef(text string) (Ref, error) {
	rest, ok := strings.CutPrefix(text, "nsu=")
	if !ok {
		id, err := ParseNode(text)
		return Ref{id: id}, err
	}
	escaped, plain, ok := strings.Cut(rest, ";")
	uri, err := url.PathUnescape(escaped)
	if !ok || err != nil || uri == "" || strings.HasPrefix(plain, "ns=") {
		return Ref{}, fmt.Errorf("must be a node id such as nsu=http://example.com/UA/;s=Boiler.Temp, got %q", text)
	}
	id, err := ParseNode(plain)
	if err != nil {
		return Ref{}, err
	}
	return Ref{id: id, uri: uri}, nil
}

// Unknown is the namespace URI that a server with these namespaces does not
// have, "" where there is none to miss.
func (r Ref) Unknown(namespaces []string) string {
	if r.uri == "" || slices.Contains(namespaces, r.uri) {
		return ""
	}
	return r.uri
}

// In is the node's id at a server with these namespaces. Where the URI is not
// among them it is one in the last namespace there can be, which servers do not
// have: they answer that they do not know the node.
func (r Ref) In(namespaces []string) *ua.NodeID {
	if r.uri == "" {
		return r.id
	}
	index := slices.Index(namespaces, r.uri)
	if index < 0 || index > noNamespace {
		index = noNamespace
	}
	switch r.id.Type() {
	case ua.NodeIDTypeString, ua.NodeIDTypeGUID, ua.NodeIDTypeByteString:
		id := *r.id
		_ = id.SetNamespace(uint16(index)) // these take any
		return &id
	}
	return ua.NewNumericNodeID(uint16(index), r.id.IntID())
}

const noNamespace = 1<<16 - 1
