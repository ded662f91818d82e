package logging

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestLogger(t *testing.T) {
	for _, tc := range []struct {
		args  []string
		debug bool
		json  bool
		fails string
	}{
		{args: nil},
		{args: []string{"--log-level", "debug"}, debug: true},
		{args: []string{"--log-format=json", "--log-level=DEBUG"}, debug: true, json: true},
		{args: []string{"--log-format=xml"}, fails: `--log-format must be text or json, got "xml"`},
		{args: []string{"--log-level=loud"}, fails: `--log-level must be`},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			var c Config
			cmd := &cobra.Command{Use: "x"}
			c.AddFlags(cmd)
			if err := cmd.ParseFlags(tc.args); err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			log, err := c.Logger(&b)
			if tc.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fails) {
					t.Fatalf("error %v, want %s", err, tc.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			log.Debug("quiet")
			log.Warn("loud", "device", "boiler-1")
			if strings.Contains(b.String(), "quiet") != tc.debug || !strings.Contains(b.String(), "boiler-1") {
				t.Errorf("logged %q", b.String())
			}
			if json.Valid(bytes.Split(b.Bytes(), []byte("\n"))[0]) != tc.json {
				t.Errorf("JSON: logged %q", b.String())
			}
		})
	}
}
