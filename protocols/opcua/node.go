package opcua

import (
	"fmt"
	"regexp"

	"github.com/gopcua/opcua/ua"
)

var nodeForm = regexp.MustCompile(`^(ns=[0-9]{1,5};)?([isgb])=(.+)$`)

// ParseNode reads a node id: ns=2;s=Boiler.Temp, with i= for a number, g= for a
// GUID and b= for an opaque id in base64. Without ns= it is in namespace 0.
func ParseNode(text string) (*ua.NodeID, error) {
	if !nodeForm.MatchString(text) {
		return nil, fmt.Errorf("must be a node id such as ns=2;s=Boiler.Temp or i=2258, got %q", text)
	}
	id, err := ua.ParseNodeID(text)
	if err != nil {
		return nil, fmt.Errorf("must be a node id such as ns=2;s=Boiler.Temp or i=2258, got %q: %w", text, err)
	}
	return id, nil
}
