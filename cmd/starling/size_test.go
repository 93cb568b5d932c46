package main_test

import (
	"bytes"
	"go/ast"
	"go/token"
	"testing"
)

const (
	maxFile     = 600 // lines
	maxFunction = 80  // lines
)

// Files and functions stay short enough to be read in one go. Tests may be
// long, and so may tables: files of declarations without a function, and
// functions that do nothing but return one literal. The text of a literal,
// such as an SQL statement, is no code.
func TestSizes(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test() || ast.IsGenerated(s.file) {
			continue
		}
		if n := bytes.Count(s.text, []byte{'\n'}); n > maxFile && !isTable(s.file) {
			t.Errorf("%s: %d lines, at most %d: give a part of it a file of its own", s.name, n, maxFile)
		}
		for _, d := range s.file.Decls {
			sizes(t, s, d)
		}
	}
}

// sizes checks a declaration: a function, or the function literals in a
// variable's value.
func sizes(t *testing.T, s *source, d ast.Decl) {
	t.Helper()
	if f, ok := d.(*ast.FuncDecl); ok {
		if n := s.code(f); n > maxFunction && !returnsLiteral(f.Body) {
			t.Errorf("%s:%d: %s has %d lines, at most %d", s.name, s.line(f), f.Name.Name, n, maxFunction)
		}
		return
	}
	ast.Inspect(d, func(n ast.Node) bool {
		if f, ok := n.(*ast.FuncLit); ok && s.code(f) > maxFunction {
			t.Errorf("%s:%d: a function of %d lines, at most %d", s.name, s.line(f), s.code(f), maxFunction)
		}
		return true
	})
}

func isTable(f *ast.File) bool {
	for _, d := range f.Decls {
		if g, ok := d.(*ast.GenDecl); !ok || g.Tok == token.TYPE {
			return false
		}
	}
	return true
}

func returnsLiteral(body *ast.BlockStmt) bool {
	if body == nil || len(body.List) != 1 {
		return false
	}
	r, ok := body.List[0].(*ast.ReturnStmt)
	if !ok || len(r.Results) != 1 {
		return false
	}
	_, ok = r.Results[0].(*ast.CompositeLit)
	return ok
}
