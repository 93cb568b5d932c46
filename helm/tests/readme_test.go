package chart_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the table of values into the README")

const (
	tableBegins = "<!-- values.yaml as a table: go test -run TestReadme -update -->\n"
	tableEnds   = "<!-- end -->\n"
)

// The README's table is values.yaml: each value, its default and what its comment says.
func TestReadme(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !ok || !ends {
		t.Fatal("the README has no place for the table")
	}
	want := before + tableBegins + "\n" + valuesTable(t) + "\n" + tableEnds + after
	if *update {
		if err := os.WriteFile("../README.md", []byte(want), 0o644); err != nil { //nolint:gosec // it is for everybody
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Error("the table in helm/README.md is not values.yaml: run go test -run TestReadme -update in helm/tests")
	}
}

func valuesTable(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(chartDir, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("| value | default | what it is |\n| --- | --- | --- |\n")
	rows(t, &b, root.Content[0], "")
	return b.String()
}

// rows writes a row for each value; a map whose values have comments of their own is not a value but their folder.
func rows(t *testing.T, b *strings.Builder, node *yaml.Node, prefix string) {
	t.Helper()
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		doc := comment(key)
		if isFolder(value) {
			if doc != "" {
				fmt.Fprintf(b, "| **`%s%s`** | | %s |\n", prefix, key.Value, doc)
			}
			rows(t, b, value, prefix+key.Value+".")
			continue
		}
		if doc == "" {
			t.Errorf("values.yaml:%d: %s%s has no comment", key.Line, prefix, key.Value)
		}
		fmt.Fprintf(b, "| `%s%s` | %s | %s |\n", prefix, key.Value, defaultOf(t, value), doc)
	}
}

func isFolder(node *yaml.Node) bool {
	if node.Kind != yaml.MappingNode || node.Style&yaml.FlowStyle != 0 {
		return false
	}
	for i := 0; i < len(node.Content); i += 2 {
		if comment(node.Content[i]) != "" || isFolder(node.Content[i+1]) {
			return true
		}
	}
	return false
}

// comment is what stands right above a key: the last paragraph, for the first key of a file has the file's own above it.
func comment(key *yaml.Node) string {
	paragraphs := strings.Split(key.HeadComment, "\n\n")
	lines := strings.Split(paragraphs[len(paragraphs)-1], "\n")
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(strings.TrimPrefix(line, "#"), " ")
	}
	return strings.ReplaceAll(strings.Join(lines, " "), "|", "\\|")
}

func defaultOf(t *testing.T, node *yaml.Node) string {
	t.Helper()
	var value any
	if err := node.Decode(&value); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 60 {
		return "see values.yaml"
	}
	return "`" + string(text) + "`"
}
