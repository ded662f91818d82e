// Package archtest keeps the house rules by reading the source tree: which
// package may import which, what pure packages may do, and a few habits. The
// rules are in rules.go; a new one is a function there and a row in Rules.
// Nothing imports this package.
package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Module is the import path of the tree's root.
const Module = "github.com/whimbrel-edge/whimbrel"

// A Tree is the parsed source of the module.
type Tree struct {
	Files []*File // in order of their paths
	fset  *token.FileSet
}

// A File is one parsed Go file.
type File struct {
	Path string // slash-separated, from the root of the module
	*ast.File
	generated bool
	comments  map[int]string // the text of the comments that touch a line
}

// Dir is the package's folder, "." for the root.
func (f *File) Dir() string { return path.Dir(f.Path) }

// Test reports whether f is compiled for tests only.
func (f *File) Test() bool { return strings.HasSuffix(f.Path, "_test.go") }

// Load parses every Go file of the module in fsys. It leaves out what is not
// the product's own code: hidden folders, testdata, third_party, internal/deps
// (which only pins versions in go.mod) and modules of their own, such as those
// under examples.
//
// The tree is parsed here, and not asked of the go command, because go test
// caches a pass by the files that the test itself opened.
func Load(fsys fs.FS) (*Tree, error) {
	t := &Tree{fset: token.NewFileSet()}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return t.enter(fsys, name)
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		f, err := t.parse(fsys, name)
		if err != nil {
			return err
		}
		t.Files = append(t.Files, f)
		return nil
	})
	return t, err
}

func (t *Tree) enter(fsys fs.FS, dir string) error {
	if dir == "." {
		return nil
	}
	base := path.Base(dir)
	if strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") ||
		slices.Contains([]string{"testdata", "third_party", "vendor"}, base) || dir == "internal/deps" {
		return fs.SkipDir
	}
	if _, err := fs.Stat(fsys, path.Join(dir, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}

func (t *Tree) parse(fsys fs.FS, name string) (*File, error) {
	src, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.ParseFile(t.fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	f := &File{Path: name, File: parsed, generated: ast.IsGenerated(parsed), comments: make(map[int]string)}
	for _, group := range parsed.Comments {
		for _, c := range group.List {
			for line := t.line(c.Pos()); line <= t.line(c.End()); line++ {
				f.comments[line] += c.Text
			}
		}
	}
	return f, nil
}

func (t *Tree) line(p token.Pos) int { return t.fset.Position(p).Line }

// commentAt is the comment on the line of p.
func (t *Tree) commentAt(f *File, p token.Pos) string { return f.comments[t.line(p)] }

// violation words one complaint with its place.
func (t *Tree) violation(p token.Pos, format string, args ...any) string {
	pos := t.fset.Position(p)
	return fmt.Sprintf("%s:%d: %s", pos.Filename, pos.Line, fmt.Sprintf(format, args...))
}

// imports yields the import paths of f with their positions.
func (f *File) imports(yield func(string, token.Pos) bool) {
	for _, spec := range f.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err == nil && !yield(name, spec.Pos()) {
			return
		}
	}
}

// ours turns an import path into a folder of this module.
func ours(importPath string) (dir string, ok bool) {
	if importPath == Module {
		return ".", true
	}
	return strings.CutPrefix(importPath, Module+"/")
}

// importName is what f calls the package at importPath, "" when it does not
// import it by a usable name.
func (f *File) importName(importPath string) string {
	for _, spec := range f.Imports {
		if name, err := strconv.Unquote(spec.Path.Value); err != nil || name != importPath {
			continue
		}
		switch {
		case spec.Name == nil:
			return path.Base(importPath)
		case spec.Name.Name == "_" || spec.Name.Name == ".":
			return ""
		default:
			return spec.Name.Name
		}
	}
	return ""
}

// selectors yields every use of a name of the package at importPath in f.
func (f *File) selectors(importPath string) func(yield func(string, token.Pos) bool) {
	return func(yield func(string, token.Pos) bool) {
		name := f.importName(importPath)
		if name == "" {
			return
		}
		more := true
		ast.Inspect(f.File, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if ok && more {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == name {
					more = yield(sel.Sel.Name, sel.Pos())
				}
			}
			return more
		})
	}
}

// within reports whether dir is root or below it.
func within(dir, root string) bool { return dir == root || strings.HasPrefix(dir, root+"/") }

// withinAny reports whether dir is one of the space-separated roots or below.
func withinAny(dir, roots string) bool {
	return slices.ContainsFunc(strings.Fields(roots), func(root string) bool { return within(dir, root) })
}

// top is the first folder of dir.
func top(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}
