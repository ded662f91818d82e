package opcuasim

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestStartFromFile(t *testing.T) {
	sim := Start(t, "testdata/press.yaml")
	if got := sim.Describe(); sim.Name() != "press" || len(got) != 1 || !strings.Contains(got[0], sim.URL()) {
		t.Errorf("%q: %q", sim.Name(), got)
	}
	c, err := connect(t, sim)
	if err != nil {
		t.Fatal(err)
	}
	for node, want := range map[string]any{"ns=2;s=temperature": 20.0, "ns=2;s=whole": int16(20), "ns=2;s=hot": false, "ns=2;i=7": float32(45), "ns=2;s=serial": "WB-20"} {
		got := read(t, c, node, 13).Value.Value()
		ok := got == want
		switch v := got.(type) { // these move
		case float64:
			ok = v >= 20 && v <= 45
		case int16:
			ok = v >= 20 && v <= 45
		case bool:
			ok = true
		}
		if !ok || reflect.TypeOf(got) != reflect.TypeOf(want) {
			t.Errorf("%s is %v, want %v", node, got, want)
		}
	}
}

func TestConfigRefuses(t *testing.T) {
	good, err := os.ReadFile("testdata/press.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "sim.yaml")
	for _, tc := range []struct{ old, new, want string }{
		{"name: press", "nmae: press", "unknown field nmae"},
		{"kind: OPCUASimulator", "kind: Toaster", "must hold one OPCUASimulator"},
		{"tick: 20ms", "tick: 1us", "tick 1µs is below 1ms"},
		{"Basic256Sha256/SignAndEncrypt", "Basic256", `security "Basic256" is none of`},
		{"type: Double", "type: Float64", `type "Float64" is none of`},
		{"signal: temperature", "signal: pressure", "there is no signal pressure"},
		{"name: hot, type: Boolean", "name: hot, type: Int16", "cannot be shown as Int16"},
		{`"ns=2;i=7"`, `"i=7"`, "nodes are in namespaces 1 to 200"},
		{"value: WB-20", "value: 7", "cannot be shown as String"},
		{"[1, 2, 3]", "[1, 70000]", "element 1: must be from -32768 to 32767"},
		{"name: serial", "name: hot", "two nodes have this name"},
		{"minimum: 0", "minimum: 0, signal: hot", "a writable node is an input, but hot is a signal"},
		{"[None, Basic256Sha256/SignAndEncrypt]", "[None]\ncertificate: x.pem", "certificate goes with a security other than None"},
		{"users: {operator: secret}\nanonymous: true", "anonymous: false", "nobody may connect"},
	} {
		text := strings.Replace(string(good), tc.old, tc.new, 1)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := Load(path)
		if err == nil {
			_, err = New(cfg)
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want …%s…", tc.new, err, tc.want)
		}
	}
}

func TestCertificateIsKept(t *testing.T) {
	cfg := press()
	cfg.Security, cfg.Certificate = []string{"Basic256Sha256/Sign"}, filepath.Join(t.TempDir(), "a", "press.pem")
	var shown [][]byte
	for range 2 {
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.certify(); err != nil {
			t.Fatal(err)
		}
		shown = append(shown, s.Certificate())
	}
	if len(shown[0]) == 0 || !bytes.Equal(shown[0], shown[1]) {
		t.Error("the certificate is another one the second time")
	}
}
