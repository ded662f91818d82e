package identitytest_test

import (
	"testing"

	"github.com/whimbrel-edge/whimbrel/devicehub/identity"
	"github.com/whimbrel-edge/whimbrel/devicehub/identity/identitytest"
)

func TestMemory(t *testing.T) {
	identitytest.Run(t, func(*testing.T) identity.Stores { return identitytest.NewMemory().Stores() })
}
