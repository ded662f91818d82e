package opcua

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/whimbrel-edge/whimbrel/internal/sidebyside"
)

func TestMain(m *testing.M) {
	sidebyside.Tests("4") // half of their time they wait for servers that are gone or silent
	goleak.VerifyTestMain(m)
}
