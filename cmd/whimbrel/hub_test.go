package main

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whimbrel-edge/whimbrel/internal/cli"
)

// A hub that is told nonsense says so with exit code 2, before it makes anything.
func TestHubMistakes(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"hub", "--listen", "0.0.0.0:0", "--insecure-http"}, "loopback"},
		{[]string{"up", "--listen", "127.0.0.1:0", "--mqtt", "bad"}, "--mqtt must be an address"},
		{[]string{"up", "--listen", "127.0.0.1:0", "--api", "bad"}, "--api must be an address"},
		{[]string{"hub", "--listen", "nonsense"}, "--listen"},
		{[]string{"hub", "--listen", "127.0.0.1:0", "--link", "8443"}, "--link"},
		{[]string{"hub", "--tls-cert", "x.pem"}, "--tls-key"},
		{[]string{"hub", "--listen", "127.0.0.1:0", "--insecure-http", "--tls-cert", "x.pem", "--tls-key", "x.key"}, "together"},
		{[]string{"hub", "--database", "mysql://root:secret@db/x"}, "--database"},
		{[]string{"hub", "--database", "sqlite://"}, "--database"},
		{[]string{"hub", "--public-url", "hub.example.com"}, "--public-url"},
		{[]string{"up", "--listen", "0.0.0.0:0"}, "loopback"},
	} {
		errs := &bytes.Buffer{}
		dir := filepath.Join(t.TempDir(), "data")
		root := cli.New()
		root.AddCommand(commands(&settings{})...)
		root.SetArgs(append(c.args, "--data", dir))
		root.SetOut(io.Discard)
		root.SetErr(errs)
		if code := cli.Execute(t.Context(), root); code != 2 || !strings.Contains(errs.String(), c.says) || strings.Contains(errs.String(), "secret") {
			t.Errorf("%v: exit code %d, %s", c.args, code, errs)
		}
		if found, _ := filepath.Glob(dir); len(found) > 0 {
			t.Errorf("%v: made %v", c.args, found)
		}
	}
}
