package opcua

import (
	"fmt"
	"testing"

	"github.com/whimbrel-edge/whimbrel/mappers"
	"github.com/whimbrel-edge/whimbrel/models"
	"github.com/whimbrel-edge/whimbrel/simulators/opcuasim"
)

func TestCommandsNameTheDevice(t *testing.T) {
	for device, want := range map[string]string{"press-1": "press-1", "lab.press-1": "-n lab press-1"} {
		if got := argument(device); got != want {
			t.Errorf("%s is %s, want %s", device, got, want)
		}
	}
}

// A bad value says which node it is about, what is wrong, and what to do.
func TestBadValuesSayWhy(t *testing.T) {
	t.Parallel()
	sim := counting(t, func(c *opcuasim.Config) { c.Nodes = append(c.Nodes, nodes()...) })
	dev := open(t, New(), fmt.Sprintf(`{"url": %q}`, sim.URL()),
		pt("missing", models.TypeInt, models.Read, `{"node": "ns=2;s=missing"}`),
		pt("folder", models.TypeInt, models.Read, `{"node": "i=85"}`),
		pt("text", models.TypeBool, models.Read, `{"node": "ns=2;s=setpoint"}`),
		pt("element", models.TypeInt, models.Read, `{"node": "ns=2;s=profile", "index": 9}`))
	out := make([]mappers.Result, 4)
	if err := dev.Read(t.Context(), []int{0, 1, 2, 3}, out); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		"node ns=2;s=missing: BadNodeIdUnknown: the node id refers to a node that does not exist in the server address space; correct the property's address; the server's nodes: whimbrel browse test",
		"node i=85: BadAttributeIdInvalid: the attribute is not supported for the specified Node; the node is no variable: the property's address must name one",
		"node ns=2;s=setpoint: the node holds Float, the property bool; correct the property's type, or its address",
		"node ns=2;s=profile: index 9: the node holds 3 elements; correct the property's type, or its address",
	} {
		if out[i].Quality != models.Bad || out[i].Err == nil || out[i].Err.Error() != want {
			t.Errorf("%s: %+v", dev.points[i].property, out[i])
		}
	}
}
