package archtest

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// TestHouseRules is the point of this package: it holds the tree to the rules.
func TestHouseRules(t *testing.T) {
	tree, err := Load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.Files) < 10 {
		t.Fatalf("only %d files found: is this the module's root?", len(tree.Files))
	}
	for _, name := range slices.Sorted(maps.Keys(Rules)) {
		t.Run(name, func(t *testing.T) {
			for _, violation := range Rules[name](tree) {
				t.Error(violation)
			}
		})
	}
}

const (
	modelsPkg = "// Package models is nouns.\npackage models\n"
	hubPkg    = "// Package devicehub is a hub.\npackage devicehub\n"
)

func imports(header string, dirs ...string) string {
	for _, dir := range dirs {
		header += "import _ \"" + Module + "/" + dir + "\"\n"
	}
	return header
}

// Every rule is shown trees that it must accept and trees that it must not.
// want is a part of the only violation; "" means none.
func TestRules(t *testing.T) {
	files := func(pairs ...string) map[string]string {
		m := make(map[string]string)
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	for _, c := range []struct {
		rule, name string
		files      map[string]string
		want       string
	}{
		{"layers", "down", files("twin/a.go", imports("package twin\n", "models", "models/catalog", "internal/x")), ""},
		{"layers", "up", files("models/a.go", imports("package models\n", "twin")), "models/a.go:2: models may not import twin, only: nothing"},
		{"layers", "sideways", files("cloudapi/b/a.go", imports("package b\n", "devicehub/store")), "cloudapi may not import devicehub/store"},
		{"layers", "a test may", files("models/a_test.go", imports("package models\n", "twin")), ""},
		{"layers", "own subfolder", files("mappers/builtin/a.go", imports("package builtin\n", "mappers", "mappers/modbus")), ""},
		{"layers", "lookalike", files("twin/a.go", imports("package twin\n", "modelsx")), "twin may not import modelsx"},
		{"layers", "unknown folder", files("extras/a.go", "package extras\n"), `"extras" needs a row`},
		{"layers", "another module", files("models/a.go", "package models\nimport _ \"example.org/twin\"\n"), ""},

		{"internal", "layer 0", files("internal/x/a.go", imports("package x\n", "models", "internal/y")), ""},
		{"internal", "above", files("internal/x/a.go", imports("package x\n", "twin")), "internal/x may not import twin"},
		{"internal", "the whole", files("internal/e2e/a.go", imports("package e2e\n", "devicehub", "edgeruntime")), ""},
		{"internal", "cli for cmd", files("cmd/whimbrel/a.go", imports("package main\n", "internal/cli/edge")), ""},
		{"internal", "cli for others", files("devicehub/a.go", imports(hubPkg, "internal/cli")), "internal/cli is for cmd"},

		{"test tools", "in a test", files("devicehub/a_test.go", imports(hubPkg, "internal/pgtest")), ""},
		{"test tools", "in the product", files("devicehub/a.go", imports(hubPkg, "internal/pgtest")), "internal/pgtest is for tests only"},
		{"test tools", "in one another", files("internal/faultproxy/a.go", imports("package faultproxy\n", "internal/holdport")), ""},

		{"reach", "direct", files("cmd/whimbrel-edge/a.go", imports("package main\n", "cloudapi/client")), "cmd/whimbrel-edge reaches cloudapi/client"},
		{"reach", "in two steps", files(
			"cmd/whimbrel-edge/a.go", imports("package main\n", "internal/cli"),
			"internal/cli/a.go", imports("package cli\n", "models", "internal/x"),
			"internal/x/a.go", imports("package x\n", "devicehub/store"),
		), "cmd/whimbrel-edge -> internal/cli -> internal/x -> devicehub/store"},
		{"reach", "a circle ends", files(
			"cmd/whimbrel-edge/a.go", imports("package main\n", "internal/x"),
			"internal/x/a.go", imports("package x\n", "internal/y"),
			"internal/y/a.go", imports("package y\n", "internal/x"),
		), ""},
		{"reach", "the other binary may", files("cmd/whimbrel/a.go", imports("package main\n", "devicehub", "cloudapi")), ""},
		{"reach", "cloud to edge", files("devicehub/sessions/a.go", imports("package sessions\n", "edgeruntime/link")), "devicehub/sessions reaches edgeruntime/link"},
		{"reach", "through tests only", files("edgeruntime/a_test.go", imports("package edgeruntime\n", "devicehub")), ""},

		{"pure packages", "clock", files("twin/a.go", "package twin\nimport \"time\"\nvar t = time.Now()\n"), "twin/a.go:3: time.Now"},
		{"pure packages", "clock by another name", files("models/catalog/a.go", "package catalog\nimport clock \"time\"\nvar f = clock.Since\n"), "time.Since"},
		{"pure packages", "durations", files("twin/a.go", "package twin\nimport \"time\"\nvar d = time.Second\n"), ""},
		{"pure packages", "in a test", files("twin/a_test.go", "package twin\nimport \"time\"\nvar t = time.Now()\n"), ""},
		{"pure packages", "elsewhere", files("devicehub/a.go", "package devicehub\nimport \"time\"\nvar t = time.Now()\n"), ""},
		{"pure packages", "files", files("models/a.go", "package models\nimport _ \"os\"\n"), "os in a pure package"},
		{"pure packages", "urls", files("models/a.go", "package models\nimport _ \"net/url\"\n"), ""},
		{"pure packages", "twin and the world", files("twin/a.go", "package twin\nimport _ \"example.org/x\"\n"), "standard library only"},

		{"package comment", "present", files("models/a.go", modelsPkg, "models/b.go", "package models\n"), ""},
		{"package comment", "missing", files("models/a.go", "package models\n"), "package models has no package comment"},
		{"package comment", "detached", files("models/a.go", "// Package models is nouns.\n\npackage models\n"), "has no package comment"},
		{"package comment", "twice", files("models/a.go", modelsPkg, "models/b.go", modelsPkg), "models/b.go:2: package models has its comment in models/a.go already"},
		{"package comment", "misnamed", files("models/a.go", "// Nouns.\npackage models\n"), `must start with "Package models "`},
		{"package comment", "a command", files("cmd/x/a.go", "// Whimbrel-edge runs devices.\npackage main\n"), ""},
		{"package comment", "tests only", files("internal/e2e/a_test.go", "// Package e2e tests the whole.\npackage e2e\n"), ""},
		{"package comment", "external tests", files("models/a.go", modelsPkg, "models/a_test.go", "package models_test\n"), ""},

		{"package name", "folder", files("devicehub/util/a.go", "package x\n"), `"util" says nothing`},
		{"package name", "clause", files("devicehub/x/a.go", "package helpers\n"), `"helpers" says nothing`},
		{"package name", "fine", files("internal/backoff/a.go", "package backoff\n"), ""},

		{"sleeping tests", "plain", files("twin/a_test.go", "package twin\nimport \"time\"\nfunc f() {\n\ttime.Sleep(1)\n}\n"), "twin/a_test.go:4: time.Sleep"},
		{"sleeping tests", "reason", files("twin/a_test.go", "package twin\nimport \"time\"\nfunc f() {\n\ttime.Sleep(1) //sleep: bus silence\n}\n"), ""},
		{"sleeping tests", "no reason", files("twin/a_test.go", "package twin\nimport \"time\"\nfunc f() {\n\ttime.Sleep(1) //sleep:\n}\n"), "time.Sleep"},
		{"sleeping tests", "bubble", files("twin/a_test.go", "package twin\nimport (\n\"testing/synctest\"\n\"time\"\n)\nvar _ = synctest.Wait\nfunc f() { time.Sleep(1) }\n"), ""},
		{"sleeping tests", "product", files("mappers/a.go", "package mappers\nimport \"time\"\nfunc f() { time.Sleep(1) }\n"), ""},

		{"ending", "exit", files("devicehub/a.go", "package devicehub\nimport \"os\"\nfunc f() { os.Exit(1) }\n"), "os.Exit"},
		{"ending", "fatal", files("devicehub/a.go", "package devicehub\nimport \"log\"\nfunc f() { log.Fatalf(\"\") }\n"), "log.Fatalf"},
		{"ending", "panic", files("devicehub/a.go", "package devicehub\nfunc f() {\n\tpanic(1)\n}\n"), "devicehub/a.go:3: panic"},
		{"ending", "panic in a must", files("devicehub/a.go", "package devicehub\nfunc mustParse() { panic(1) }\n"), ""},
		{"ending", "unreachable panic", files("devicehub/a.go", "package devicehub\nfunc f() {\n\tpanic(1) // unreachable: all kinds are above\n}\n"), ""},
		{"ending", "panic in a variable", files("devicehub/a.go", "package devicehub\nvar f = func() { panic(1) }\n"), "panic"},
		{"ending", "main", files("cmd/x/a.go", "package main\nimport \"os\"\nfunc main() { os.Exit(1) }\n"), ""},
		{"ending", "test", files("devicehub/a_test.go", "package devicehub\nfunc f() { panic(1) }\n"), ""},

		{"init", "function", files("devicehub/a.go", "package devicehub\nfunc init() {}\n"), "func init"},
		{"init", "method", files("devicehub/a.go", "package devicehub\ntype t int\nfunc (t) init() {}\n"), ""},
		{"init", "generated", files("protocols/edgelink/a.pb.go", "// Code generated by protoc-gen-go. DO NOT EDIT.\n\npackage edgelink\nfunc init() {}\n"), ""},

		{"global logger", "call", files("devicehub/a.go", "package devicehub\nimport \"log/slog\"\nfunc f() { slog.Info(\"\") }\n"), "slog.Info is the global logger"},
		{"global logger", "type", files("devicehub/a.go", "package devicehub\nimport \"log/slog\"\nfunc f(l *slog.Logger) { l.Info(\"\") }\n"), ""},
	} {
		t.Run(c.rule+"/"+c.name, func(t *testing.T) {
			fsys := make(fstest.MapFS)
			for name, src := range c.files {
				fsys[name] = &fstest.MapFile{Data: []byte(src)}
			}
			tree, err := Load(fsys)
			if err != nil {
				t.Fatal(err)
			}
			got := Rules[c.rule](tree)
			switch {
			case c.want == "" && len(got) != 0:
				t.Errorf("violations %q, want none", got)
			case c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)):
				t.Errorf("violations %q, want one with %q", got, c.want)
			}
		})
	}
}

func TestLoadLeavesOutWhatIsNotOurs(t *testing.T) {
	tree, err := Load(fstest.MapFS{
		"models/a.go":            {Data: []byte("package models\n")},
		"models/testdata/bad.go": {Data: []byte("not Go at all")},
		"examples/one/go.mod":    {Data: []byte("module example.org/one\n")},
		"examples/one/a.go":      {Data: []byte("package main\n")},
		".git/a.go":              {Data: []byte("package git\n")},
		"_old/a.go":              {Data: []byte("package old\n")},
		"internal/deps/deps.go":  {Data: []byte("package deps\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.Files) != 1 || tree.Files[0].Path != "models/a.go" {
		t.Errorf("loaded %d files, want models/a.go only", len(tree.Files))
	}
}

func TestLoadReportsWhatDoesNotParse(t *testing.T) {
	if _, err := Load(fstest.MapFS{"models/a.go": {Data: []byte("package")}}); err == nil {
		t.Error("Load accepted a file that does not parse")
	}
}
