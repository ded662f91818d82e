package modbus

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/internal/sidebyside"
)

func TestMain(m *testing.M) {
	sidebyside.Tests("6") // nearly all of them wait for devices that are silent
	goleak.VerifyTestMain(m)
}
