package main_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// A source is one Go file of the module, parsed.
type source struct {
	name string // path from the module's root, with slashes
	dir  string
	text []byte
	file *ast.File
	fset *token.FileSet
}

// test reports whether the file is only ever compiled into tests: a test's
// own, or of a package made for tests such as blobstore/blobtest.
func (s *source) test() bool { return strings.HasSuffix(s.name, "_test.go") || testPackage(s.dir) }

// line is the line on which a node begins.
func (s *source) line(n ast.Node) int { return s.fset.Position(n.Pos()).Line }

// lines is how many lines a node goes over.
func (s *source) lines(n ast.Node) int { return s.fset.Position(n.End()).Line - s.line(n) + 1 }

// code is lines without those that a long text takes, such as an SQL
// statement, which is one literal however long it is.
func (s *source) code(n ast.Node) int {
	lines := s.lines(n)
	ast.Inspect(n, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok {
			lines -= s.lines(l) - 1
		}
		return true
	})
	return lines
}

// testPackage reports whether a folder is a package made for tests, or part of one.
func testPackage(dir string) bool {
	for part := range strings.SplitSeq(dir, "/") {
		if strings.HasSuffix(part, "test") || part == "chaos" || part == "bench" {
			return true
		}
	}
	return false
}

// root is the folder of the module.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module starling\n") {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod of module starling in the working directory or above it")
		}
		dir = filepath.Dir(dir)
	}
}

var parsed struct {
	sync.Once
	sources []*source
	err     error
}

// sources returns all Go files of the module, whatever system they are for.
func sources(t *testing.T) []*source {
	t.Helper()
	dir := root(t)
	parsed.Do(func() { parsed.sources, parsed.err = parseAll(dir) })
	if parsed.err != nil {
		t.Fatal(parsed.err)
	}
	if len(parsed.sources) < 10 {
		t.Fatalf("only %d Go files found", len(parsed.sources))
	}
	return parsed.sources
}

func parseAll(dir string) ([]*source, error) {
	var all []*source
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skip(dir, name)
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		text, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, text, parser.ParseComments)
		if err != nil {
			return err
		}
		all = append(all, &source{name, path.Dir(name), text, file, fset})
		return nil
	})
	return all, err
}

// skip leaves out what is not of the module.
func skip(dir, name string) error {
	base := path.Base(name)
	if name == "." {
		return nil
	}
	if strings.HasPrefix(base, ".") || base == "testdata" || base == "bin" || base == "node_modules" {
		return fs.SkipDir
	}
	if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(name), "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}
