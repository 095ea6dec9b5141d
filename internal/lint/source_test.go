package lint

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "gantry"

// source is one Go file of the module.
type source struct {
	name string // slash-separated, from the module's root
	ast  *ast.File
	test bool
}

// dir is the package's directory, "." for the root.
func (s *source) dir() string { return path.Dir(s.name) }

// forTests reports whether the file is a test or a suite that tests run.
func (s *source) forTests() bool { return s.test || slices.Contains(s.imports(), "testing") }

// imports lists what the file imports.
func (s *source) imports() []string {
	paths := make([]string, 0, len(s.ast.Imports))
	for _, spec := range s.ast.Imports {
		p, _ := strconv.Unquote(spec.Path.Value)
		paths = append(paths, p)
	}
	return paths
}

var fset = token.NewFileSet()

// at says where a node is, from the module's root.
func at(n ast.Node) string {
	p := fset.Position(n.Pos())
	rel, err := filepath.Rel(root(), p.Filename)
	if err != nil {
		rel = p.Filename
	}
	return filepath.ToSlash(rel) + ":" + strconv.Itoa(p.Line)
}

// root is the module's directory.
var root = sync.OnceValue(func() string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(text, []byte("module "+module+"\n")) {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			panic("no go.mod of " + module + " above the tests")
		}
		dir = parent
	}
})

// skipDirs are not ours, or not source.
var skipDirs = []string{"bin", "data", "node_modules", "testdata", "dist"}

// files lists the files of the tree with one of the endings given.
func files(t *testing.T, endings ...string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(root(), func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && full != root() && (strings.HasPrefix(d.Name(), ".") || slices.Contains(skipDirs, d.Name())) {
			if d.Name() == ".github" {
				return nil
			}
			return fs.SkipDir
		}
		if !d.IsDir() && slices.ContainsFunc(endings, func(e string) bool { return strings.HasSuffix(d.Name(), e) }) {
			rel, err := filepath.Rel(root(), full)
			if err != nil {
				return err
			}
			names = append(names, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(), filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var parseOnce struct {
	sync.Once
	all []*source
	err error
}

// sources parses every Go file of the module, those for other systems and build tags too.
func sources(t *testing.T) []*source {
	t.Helper()
	parseOnce.Do(func() {
		for _, name := range files(t, ".go") {
			f, err := parser.ParseFile(fset, filepath.Join(root(), filepath.FromSlash(name)), nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				parseOnce.err = err
				return
			}
			parseOnce.all = append(parseOnce.all, &source{name: name, ast: f, test: strings.HasSuffix(name, "_test.go")})
		}
	})
	if parseOnce.err != nil {
		t.Fatal(parseOnce.err)
	}
	if len(parseOnce.all) < 10 {
		t.Fatalf("only %d Go files found below %s", len(parseOnce.all), root())
	}
	return parseOnce.all
}

// parse makes a source of a snippet, to show that a rule sees what it is there for.
func parse(t *testing.T, name, text string) *source {
	t.Helper()
	f, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return &source{name: name, ast: f, test: strings.HasSuffix(name, "_test.go")}
}

// lastName is the identifier that ends an expression: "wg" of s.node.wg.
func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}
