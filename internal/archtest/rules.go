package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"path"
	"slices"
	"strings"
)

// Rules are all house rules by name. Each returns its violations.
var Rules = map[string]func(*Tree) []string{
	"layers":          layers,
	"internal":        internals,
	"test tools":      testTools,
	"reach":           reach,
	"pure packages":   purePackages,
	"package comment": packageComments,
	"package name":    packageNames,
	"sleeping tests":  sleepingTests,
	"ending":          ending,
	"init":            inits,
	"global logger":   globalLogger,
}

// mayImport is the layer diagram, one row per top-level folder. A folder's own
// subfolders, internal/ (whose rows are below) and other modules are always
// allowed. Test files may import anything.
var mayImport = map[string]string{
	"models":      "",
	"protocols":   "models", // for edgelink, whose records hold Values; neverReach keeps the others from it
	"migrations":  "",
	"internal":    "models protocols migrations",
	"twin":        "models",
	"mappers":     "models protocols",
	"simulators":  "models protocols",
	"edgeruntime": "models twin mappers protocols migrations",
	"devicehub":   "models twin protocols migrations",
	"cloudapi":    "models twin",
	"cmd":         "models protocols migrations twin mappers simulators edgeruntime devicehub cloudapi",
}

// everything is for what stands above all layers.
const everything = "models protocols migrations twin mappers simulators edgeruntime devicehub cloudapi"

// internalMayImport names the folders of internal/ that may import more than
// the row of internal above says.
var internalMayImport = map[string]string{
	"internal/cli":   everything, // the commands of the binaries: part of cmd
	"internal/e2e":   everything, // tests of the whole
	"internal/bench": everything, // measurements of the whole
}

// onlyFor names folders that some others alone may import.
var onlyFor = map[string]string{
	"internal/cli": "cmd internal/e2e internal/bench",
}

// forTests are folders that only test files, and one another, may import.
const forTests = "internal/archtest internal/bench internal/e2e internal/faultproxy internal/holdport " +
	"internal/dockertest internal/doctest internal/need internal/pgtest edgeruntime/engine/enginetest"

// neverReach says what a folder may not import by any number of steps. The
// layers alone would let it through internal/.
var neverReach = map[string]string{
	"cmd/whimbrel-edge": "devicehub cloudapi", // the small gateway's binary has no cloud half
	"edgeruntime":       "devicehub cloudapi simulators",
	"devicehub":         "edgeruntime mappers simulators cloudapi",
	"cloudapi":          "edgeruntime mappers simulators devicehub",
	"models":            "protocols migrations twin",
	"protocols":         "migrations twin",
	"protocols/modbus":  "models",
	"protocols/mqtt":    "models",
}

// pure are the packages that decide without doing: no clock, no I/O. twin is
// held to the standard library on top.
const pure = "models twin devicehub/placement"

var (
	clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}
	doing = []string{
		"database/sql", "log", "log/slog", "math/rand", "math/rand/v2", "net", "net/http", "os", "os/exec",
		"os/signal", "os/user", "syscall",
	}
	bannedNames = []string{
		"base", "common", "commons", "constants", "helper", "helpers", "misc", "shared", "types", "util", "utils",
	}
)

// layers checks that imports only go down.
func layers(t *Tree) (bad []string) {
	for _, f := range t.Files {
		from := top(f.Dir())
		allowed, known := mayImport[from]
		if !known {
			bad = append(bad, t.violation(f.Package, "folder %q needs a row in mayImport", from))
			continue
		}
		if f.Test() || from == "internal" {
			continue
		}
		for imp, pos := range f.imports {
			dir, ok := ours(imp)
			if to := top(dir); ok && to != from && to != "internal" && !withinAny(to, allowed) {
				bad = append(bad, t.violation(pos, "%s may not import %s, only: %s", from, dir, orNothing(allowed)))
			}
		}
	}
	return bad
}

// internals checks internal/, folder by folder, and who may import it.
func internals(t *Tree) (bad []string) {
	for _, f := range t.Files {
		if f.Test() {
			continue
		}
		from := f.Dir()
		for imp, pos := range f.imports {
			dir, ok := ours(imp)
			if !ok {
				continue
			}
			if within(from, "internal") && !within(dir, "internal") && !withinAny(dir, internalAllowed(from)) {
				bad = append(bad, t.violation(pos, "%s may not import %s, only: %s", from, dir, internalAllowed(from)))
			}
			for _, target := range slices.Sorted(maps.Keys(onlyFor)) {
				if within(dir, target) && !within(from, target) && !withinAny(from, onlyFor[target]) {
					bad = append(bad, t.violation(pos, "%s is for %s only", dir, onlyFor[target]))
				}
			}
		}
	}
	return bad
}

func internalAllowed(dir string) string {
	for root, allowed := range internalMayImport {
		if within(dir, root) {
			return allowed
		}
	}
	return mayImport["internal"]
}

// testTools checks that what is made for tests stays out of the product.
func testTools(t *Tree) (bad []string) {
	for _, f := range t.Files {
		if f.Test() || withinAny(f.Dir(), forTests) {
			continue
		}
		for imp, pos := range f.imports {
			if dir, ok := ours(imp); ok && withinAny(dir, forTests) {
				bad = append(bad, t.violation(pos, "%s is for tests only", dir))
			}
		}
	}
	return bad
}

// reach follows imports to their end.
func reach(t *Tree) (bad []string) {
	edges := t.edges()
	for _, root := range slices.Sorted(maps.Keys(neverReach)) {
		for _, from := range slices.Sorted(maps.Keys(edges)) {
			if !within(from, root) {
				continue
			}
			if way := wayTo(edges, from, neverReach[root]); way != nil {
				bad = append(bad, fmt.Sprintf("%s reaches %s: %s", from, way[len(way)-1], strings.Join(way, " -> ")))
			}
		}
	}
	return bad
}

// edges is who imports whom inside the module, tests left out.
func (t *Tree) edges() map[string][]string {
	edges := make(map[string][]string)
	for _, f := range t.Files {
		if f.Test() {
			continue
		}
		for imp := range f.imports {
			if dir, ok := ours(imp); ok && !slices.Contains(edges[f.Dir()], dir) {
				edges[f.Dir()] = append(edges[f.Dir()], dir)
			}
		}
	}
	return edges
}

// wayTo is a shortest chain of imports from a folder to one of roots, nil when
// there is none.
func wayTo(edges map[string][]string, from, roots string) []string {
	ways := [][]string{{from}}
	seen := map[string]bool{from: true}
	for len(ways) > 0 {
		way := ways[0]
		ways = ways[1:]
		for _, next := range edges[way[len(way)-1]] {
			if seen[next] {
				continue
			}
			seen[next] = true
			longer := append(slices.Clone(way), next)
			if withinAny(next, roots) {
				return longer
			}
			ways = append(ways, longer)
		}
	}
	return nil
}

// purePackages checks that what decides neither looks at the clock nor does
// anything.
func purePackages(t *Tree) (bad []string) {
	for _, f := range t.Files {
		if f.Test() || !withinAny(f.Dir(), pure) {
			continue
		}
		for name, pos := range f.selectors("time") {
			if slices.Contains(clock, name) {
				bad = append(bad, t.violation(pos, "time.%s in a pure package: take the time as an argument", name))
			}
		}
		for imp, pos := range f.imports {
			if slices.Contains(doing, imp) {
				bad = append(bad, t.violation(pos, "%s in a pure package: it decides, others do", imp))
			}
			if _, own := ours(imp); within(f.Dir(), "twin") && !own && strings.Contains(top(imp), ".") {
				bad = append(bad, t.violation(pos, "%s: twin uses models and the standard library only", imp))
			}
		}
	}
	return bad
}

// packageComments checks that every package says what it is, once.
func packageComments(t *Tree) (bad []string) {
	type comments struct {
		first *File // any file of the package, to point at
		docs  []*File
	}
	packages := make(map[string]*comments)
	for _, f := range t.Files {
		if f.generated || strings.HasSuffix(f.Name.Name, "_test") {
			continue
		}
		p := packages[f.Dir()]
		if p == nil {
			p = &comments{first: f}
			packages[f.Dir()] = p
		}
		// The comment belongs into the product's file, where there is one.
		if p.first.Test() && !f.Test() {
			p.first = f
		}
		if f.Doc != nil {
			p.docs = append(p.docs, f)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(packages)) {
		p := packages[dir]
		if len(p.docs) == 0 {
			bad = append(bad, t.violation(p.first.Package, "package %s has no package comment", p.first.Name.Name))
			continue
		}
		for _, f := range p.docs[1:] {
			bad = append(bad, t.violation(f.Package, "package %s has its comment in %s already", f.Name.Name, p.docs[0].Path))
		}
		doc := p.docs[0]
		if want := "Package " + doc.Name.Name + " "; doc.Name.Name != "main" && !strings.HasPrefix(doc.Doc.Text(), want) {
			bad = append(bad, t.violation(doc.Package, "the package comment must start with %q", want))
		}
	}
	return bad
}

// packageNames checks that a name says what is in the package.
func packageNames(t *Tree) (bad []string) {
	seen := make(map[string]bool)
	for _, f := range t.Files {
		if seen[f.Dir()] {
			continue
		}
		seen[f.Dir()] = true
		for _, name := range []string{path.Base(f.Dir()), f.Name.Name} {
			if slices.Contains(bannedNames, name) {
				bad = append(bad, t.violation(f.Package, "%q says nothing: name the package for what it gives", name))
				break
			}
		}
	}
	return bad
}

// sleepingTests checks that no test waits for luck. A file that imports
// testing/synctest sleeps in a bubble's time; anything else gives its reason on
// the line, as in
//
//	time.Sleep(d) //sleep: the device needs 50 ms of silence
func sleepingTests(t *Tree) (bad []string) {
	for _, f := range t.Files {
		if !f.Test() || f.importName("testing/synctest") != "" {
			continue
		}
		for name, pos := range f.selectors("time") {
			if name == "Sleep" && !hasReason(t.commentAt(f, pos), "sleep:") {
				bad = append(bad, t.violation(pos, "time.Sleep in a test: poll a condition, use testing/synctest, or add //sleep: and the reason"))
			}
		}
	}
	return bad
}

func hasReason(comment, mark string) bool {
	text := strings.TrimSpace(strings.TrimPrefix(comment, "//"))
	reason, ok := strings.CutPrefix(text, mark)
	return ok && strings.TrimSpace(reason) != ""
}

// ending checks that only a main package ends the process. A panic is allowed
// in functions called must… or Must…, and on a line whose comment says that it
// is unreachable.
func ending(t *Tree) (bad []string) {
	for _, f := range t.Files {
		if f.Test() || f.generated || f.Name.Name == "main" {
			continue
		}
		for name, pos := range f.selectors("os") {
			if name == "Exit" {
				bad = append(bad, t.violation(pos, "os.Exit outside a main package: return an error"))
			}
		}
		for name, pos := range f.selectors("log") {
			if strings.HasPrefix(name, "Fatal") || strings.HasPrefix(name, "Panic") {
				bad = append(bad, t.violation(pos, "log.%s outside a main package: return an error", name))
			}
		}
		for _, pos := range panics(f) {
			if !strings.Contains(t.commentAt(f, pos), "unreachable") {
				bad = append(bad, t.violation(pos, "panic: return an error, name the function must…, or say on the line why it is unreachable"))
			}
		}
	}
	return bad
}

// panics are the calls of panic in f outside functions named for it.
func panics(f *File) (calls []token.Pos) {
	for _, decl := range f.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok && strings.HasPrefix(strings.ToLower(fn.Name.Name), "must") {
			continue
		}
		ast.Inspect(decl, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if fn, ok := call.Fun.(*ast.Ident); ok && fn.Name == "panic" {
					calls = append(calls, call.Pos())
				}
			}
			return true
		})
	}
	return calls
}

// inits checks that nothing happens by being imported.
func inits(t *Tree) (bad []string) {
	for _, f := range t.Files {
		if f.generated {
			continue
		}
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				bad = append(bad, t.violation(fn.Pos(), "func init: make it an explicit call or an explicit table"))
			}
		}
	}
	return bad
}

// globalLogger checks that loggers are passed in.
func globalLogger(t *Tree) (bad []string) {
	global := []string{
		"Debug", "DebugContext", "Default", "Error", "ErrorContext", "Info", "InfoContext", "Log", "LogAttrs",
		"SetDefault", "Warn", "WarnContext", "With",
	}
	for _, f := range t.Files {
		if f.Test() || f.Name.Name == "main" {
			continue
		}
		for name, pos := range f.selectors("log/slog") {
			if slices.Contains(global, name) {
				bad = append(bad, t.violation(pos, "slog.%s is the global logger: take a *slog.Logger", name))
			}
		}
	}
	return bad
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}
