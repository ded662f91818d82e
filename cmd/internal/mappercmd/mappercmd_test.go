package mappercmd

import (
	"io"
	"strings"
	"testing"
)

// A program that took a built-in mapper's name would be refused by the edge.
func TestBuiltInNamesHaveNoCredential(t *testing.T) {
	for _, name := range []string{"modbus", "opcua", "serial"} {
		cmd := Credential()
		cmd.SetArgs([]string{name, "--data", t.TempDir()})
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), name+" is built into the edge") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
