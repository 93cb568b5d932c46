package main_test

import (
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// rfcTable is a table of Markdown whose rows are
//
//	| RFC 9051 §6.4.7 | COPY | cmd_copy.go | copy.txt, TestCopy |
//
// section, what it is, the files that do it (from frontend/imap, or with
// their folder from frontend), and what shows it: scripts of
// frontend/imap/testdata/script, and tests of any package of frontend.
const rfcTable = "frontend/imap/RFC.md"

var (
	// A reference may be broken over two lines of a comment.
	citation = regexp.MustCompile(`RFC\s+(\d+)\s+§\s?(\d+(?:\.\d+)*)`)
	margin   = regexp.MustCompile(`\n[ \t]*//[ \t]?`)
	testName = regexp.MustCompile(`^(Test|Fuzz|Example)[A-Z]\w*$`)
)

// Every section of an RFC that the code of frontend cites has a row, and
// every row names code and scripts that are there.
func TestRFCTable(t *testing.T) {
	t.Parallel()
	dir := root(t)
	text, err := os.ReadFile(filepath.Join(dir, rfcTable))
	if err != nil {
		t.Fatal(err)
	}
	all := sources(t)
	rows := make(map[string]bool)
	for i, line := range strings.Split(string(text), "\n") {
		cells, section := row(line)
		if section == "" {
			continue
		}
		if rows[section] {
			t.Errorf("%s:%d: %s has a row already", rfcTable, i+1, section)
		}
		rows[section] = true
		for _, problem := range checkRow(dir, cells, all) {
			t.Errorf("%s:%d: %s: %s", rfcTable, i+1, section, problem)
		}
	}
	if len(rows) == 0 {
		t.Errorf("%s has no rows", rfcTable)
	}
	for _, s := range all {
		if s.test() || !within(s.dir, "frontend") {
			continue
		}
		for _, section := range citations(string(s.text)) {
			if !rows[section] {
				t.Errorf("%s cites %s, which has no row in %s", s.name, section, rfcTable)
				rows[section] = true // said once
			}
		}
	}
}

// row splits a line of the table; section is "" if it is none.
func row(line string) (cells []string, section string) {
	if !strings.HasPrefix(line, "|") {
		return nil, ""
	}
	cells = strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	cited := citations(cells[0])
	if len(cited) != 1 {
		return nil, ""
	}
	return cells, cited[0]
}

func citations(text string) []string {
	var sections []string
	for _, m := range citation.FindAllStringSubmatch(margin.ReplaceAllString(text, " "), -1) {
		sections = append(sections, "RFC "+m[1]+" §"+m[2])
	}
	return sections
}

// checkRow returns what is wrong with a row.
func checkRow(dir string, cells []string, all []*source) (problems []string) {
	if len(cells) != 4 {
		return []string{"a row has four cells: section, what it is, files, scripts or tests"}
	}
	files, shown := names(cells[2]), names(cells[3])
	if len(files) == 0 {
		problems = append(problems, "names no file that does it")
	}
	for _, name := range files {
		at := path.Join("frontend/imap", name)
		if strings.Contains(name, "/") {
			at = path.Join("frontend", name)
		}
		if _, err := os.Stat(filepath.Join(dir, at)); err != nil {
			problems = append(problems, "no file "+at)
		}
	}
	if len(shown) == 0 {
		problems = append(problems, "names no script and no test")
	}
	for _, name := range shown {
		if testName.MatchString(name) {
			if !hasTest(all, name) {
				problems = append(problems, "no test "+name+" in frontend")
			}
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "frontend/imap/testdata/script", name)); err != nil {
			problems = append(problems, "no script "+name)
		}
	}
	return problems
}

// names splits a cell at commas and spaces, and takes code quotes off.
func names(cell string) []string {
	return strings.FieldsFunc(cell, func(r rune) bool { return r == ',' || r == ' ' || r == '`' })
}

func hasTest(all []*source, name string) bool {
	for _, s := range all {
		if !strings.HasSuffix(s.name, "_test.go") || !within(s.dir, "frontend") {
			continue
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == name {
				return true
			}
		}
	}
	return false
}

func TestRFCTableReader(t *testing.T) {
	t.Parallel()
	got := citations("// see RFC 9051 §6.4.7, and RFC\n\t// 4315 §3.\nRFC 3501 has no section")
	if len(got) != 2 || got[0] != "RFC 9051 §6.4.7" || got[1] != "RFC 4315 §3" {
		t.Errorf("citations are %q", got)
	}
	cells, section := row("| RFC 9051 §6.4.7 | COPY | `cmd_copy.go` | `copy.txt`, TestCopy |")
	if section != "RFC 9051 §6.4.7" || len(cells) != 4 || len(names(cells[3])) != 2 {
		t.Errorf("row is %q of %s", cells, section)
	}
	if _, section := row("| section | what | where | shown by |"); section != "" {
		t.Errorf("the heading is a row of %s", section)
	}
	dir := t.TempDir()
	if problems := checkRow(dir, cells, nil); len(problems) != 3 { // no file, no script, no test
		t.Errorf("problems are %q", problems)
	}
	if problems := checkRow(dir, cells[:3], nil); len(problems) != 1 {
		t.Errorf("problems of a short row are %q", problems)
	}
}
