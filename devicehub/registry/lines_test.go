package registry

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/devicehub/store/storetest"
	"github.com/whimbrel-edge/whimbrel/models"
)

const lineMapper = `{kind: Mapper, apiVersion: whimbrel/v1, metadata: {name: %s}, spec: {version: "1",
  connection: {properties: {url: {type: string}, listen: {type: boolean}},
    x-line: {url: url, schemes: {%s: {baud: 9600, parity: even}}, with: {listen: false}}}, address: {}}}`

const lineModel = `{kind: DeviceModel, apiVersion: whimbrel/v1, metadata: {name: %s}, spec: {protocol: %s, properties: [{name: v, type: int, address: {}}]}}`

func onLine(name, node, model, connection string) string {
	return fmt.Sprintf(`{kind: Device, apiVersion: whimbrel/v1, metadata: {name: %s}, spec: {model: %s, node: %q, connection: {%s}}}`, name, model, node, connection)
}

func disagreement(t *testing.T, r *Registry, name string) string {
	t.Helper()
	o, err := r.Get(t.Context(), models.Key{Kind: "Device", Namespace: "default", Name: name})
	if err != nil {
		t.Fatal(err)
	}
	conditions := o.(*models.Device).Status.Conditions
	i := slices.IndexFunc(conditions, func(c models.Condition) bool { return c.Type == "LineAgreed" })
	if i < 0 {
		return ""
	}
	if c := conditions[i]; c.Status != "False" || c.Reason != "LineSettingsDiffer" {
		t.Errorf("%+v", c)
	}
	return conditions[i].Message
}

func TestDevicesOnOneLineAgree(t *testing.T) {
	r := running(t, storetest.NewMemory())
	r.SetStatuses(&fakeStatuses{})
	apply(t, r, fmt.Sprintf(lineMapper, "bus", "rtu"))
	apply(t, r, fmt.Sprintf(lineMapper, "words", "serial"))
	apply(t, r, fmt.Sprintf(lineModel, "meter", "bus"))
	apply(t, r, fmt.Sprintf(lineModel, "scale", "words"))
	put := func(text string) error {
		_, _, err := put(r, object(t, text), models.WriteOptions{})
		return err
	}
	const usb = `url: "rtu:///dev/ttyUSB0`
	apply(t, r, onLine("m1", "n1", "meter", usb+`"`))
	apply(t, r, onLine("m2", "n1", "meter", usb+`?baud=9600"`))
	apply(t, r, onLine("other-line", "n1", "meter", `url: "rtu:///dev/ttyUSB1?baud=1200"`))
	apply(t, r, onLine("other-node", "n2", "meter", usb+`?baud=1200"`))
	apply(t, r, onLine("nowhere", "", "meter", usb+`?baud=1200"`))
	apply(t, r, onLine("tcp", "n1", "meter", `url: "tcp://h:1/dev/ttyUSB0"`))

	// Who comes onto the line is told, in which way ever.
	for text, want := range map[string]string{
		onLine("m3", "n1", "meter", usb+`?baud=1200"`):                                        "/dev/ttyUSB0 of node n1 is used otherwise by Device default/m1: baud is 1200 here and 9600 there",
		onLine("m3", "n1", "meter", usb+`", listen: true`):                                    "listen is true here and false there",
		onLine("s1", "n1", "scale", `url: "serial:///dev/ttyUSB0"`):                           "scheme is serial:// here and rtu:// there",
		onLine("nowhere", "n1", "meter", usb+`?baud=1200"`):                                   "baud is 1200 here",
		onLine("other-node", "n1", "meter", usb+`?baud=1200"`):                                "baud is 1200 here",
		onLine("other-line", "n1", "meter", `url: "rtu:///dev/ttyUSB0?baud=1200"`):            "baud is 1200 here",
		onLine("m3", "n1", "meter", `url: "rtu:///dev/../dev//ttyUSB0?baud=1200&parity=odd"`): "baud is 1200 here and 9600 there, parity is odd here and even there",
	} {
		refused(t, put(text), models.KindInvalid, "/spec/connection", want)
	}
	if got := disagreement(t, r, "m1"); got != "" {
		t.Errorf("m1: %s", got)
	}

	// Who is on it may change it, and all are told until the others follow.
	watched, _ := collect(t, r, models.ListOptions{Kind: "Device", Namespace: "default"}, "")
	waitUntil(t, func() bool { return strings.HasSuffix(watched(), "BOOKMARK") })
	before := watched()
	if err := put(onLine("m1", "n1", "meter", usb+`?baud=1200"`)); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { return strings.Contains(watched()[len(before):], "MODIFIED m2") })
	for name, want := range map[string]string{
		"m1": "Device default/m2 uses /dev/ttyUSB0 otherwise: baud is 1200 here and 9600 there; devices on one line have the same settings",
		"m2": "Device default/m1 uses /dev/ttyUSB0 otherwise: baud is 9600 here and 1200 there; devices on one line have the same settings",
	} {
		if got := disagreement(t, r, name); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	if err := put(onLine("m2", "n1", "meter", usb+`?baud=1200"`)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"m1", "m2", "other-line", "tcp", "nowhere"} {
		if got := disagreement(t, r, name); got != "" {
			t.Errorf("%s: %s", name, got)
		}
	}
	// The settings of one that has gone bind nobody.
	for _, name := range []string{"m1", "m2"} {
		if _, err := r.Delete(t.Context(), models.Key{Kind: "Device", Namespace: "default", Name: name}, models.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, r, onLine("s1", "n1", "scale", `url: "serial:///dev/ttyUSB0"`))
	err := put(onLine("m1", "n1", "meter", usb+`"`))
	if err == nil || !strings.Contains(err.Error(), "scheme is rtu:// here and serial:// there") {
		t.Error(err)
	}
}
