package mappers

import (
	"errors"
	"testing"

	"github.com/whimbrel-edge/whimbrel/models"
)

func TestAFailureSaysItsReasonOnce(t *testing.T) {
	for cause, want := range map[string]string{
		"modbus: not connected: open /dev/x: no such file": "not-connected: open /dev/x: no such file",
		"modbus: not connected":                            "not-connected: modbus: not connected",
		"dial tcp: not connected: x":                       "not-connected: dial tcp: not connected: x",
		"opcua: refused":                                   "not-connected: opcua: refused",
	} {
		if got := Fail(models.ReasonNotConnected, errors.New(cause)).Error(); got != want {
			t.Errorf("%s: %s, want %s", cause, got, want)
		}
	}
}
