package enginetest

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFake(t *testing.T) {
	f := NewFake(Image)
	f.Behave, f.OnExec = Steps, ExecSteps
	Suite(t, f, []byte("whimbrel.test/loaded:1\n"), "whimbrel.test/loaded:1")
}
