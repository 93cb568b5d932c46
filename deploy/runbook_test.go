package deploy_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What the texts of this folder refer to is there: sections, files, settings and commands.
func TestTexts(t *testing.T) {
	t.Parallel()
	known := variables(t)
	help := run(t, program(t), "help")
	for _, name := range []string{"runbook.md", "postfix/README.md"} {
		text := read(t, name)
		sections := make(map[string]bool)
		for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
			sections[strings.ReplaceAll(strings.ToLower(heading[1]), " ", "-")] = true
		}
		for _, link := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(text, -1) {
			if section, ok := strings.CutPrefix(link[1], "#"); ok {
				if !sections[section] {
					t.Errorf("%s: there is no section %s", name, link[1])
				}
			} else if !exists(filepath.Join(filepath.Dir(name), link[1])) {
				t.Errorf("%s: there is no %s", name, link[1])
			}
		}
		for _, setting := range regexp.MustCompile("`((?:imap|lmtp|mail|postgres|blobs|nats|tls|auth|admin|traces|shutdown)[._][a-z0-9_.]+)[`:]").FindAllStringSubmatch(text, -1) {
			if !known["STARLING_"+strings.ToUpper(strings.ReplaceAll(setting[1], ".", "_"))] {
				t.Errorf("%s: there is no setting %s", name, setting[1])
			}
		}
		for _, command := range regexp.MustCompile("`starling ([a-z]+)").FindAllStringSubmatch(text, -1) {
			if !strings.Contains(help, "\n  "+command[1]+" ") {
				t.Errorf("%s: there is no starling %s", name, command[1])
			}
		}
	}
}

// Lines of the log that the runbook sends somebody to look for are ones that the program writes.
func TestLogLines(t *testing.T) {
	t.Parallel()
	var program strings.Builder
	for _, folder := range []string{"../cmd/starling", "../frontend", "../metadata", "../blobstore", "../events"} {
		err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				program.WriteString(read(t, path))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	lines := 0
	for _, sentence := range regexp.MustCompile(`(?i)\blog has\b[^.]*`).FindAllString(read(t, "runbook.md"), -1) {
		for _, line := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(sentence, -1) {
			if lines++; !regexp.MustCompile(`(Info|Warn|Error)\("` + regexp.QuoteMeta(line[1]) + `"`).MatchString(program.String()) {
				t.Errorf("nothing writes %q into the log", line[1])
			}
		}
	}
	if lines < 4 {
		t.Errorf("%d lines of the log were found in the runbook", lines)
	}
}

// What the table of failures names is there: each test where it is said to be, and each figure
// among those that a test finds on a node.
func TestTableOfFailures(t *testing.T) {
	t.Parallel()
	_, table, found := strings.Cut(read(t, "runbook.md"), "\n| what fails | what then |")
	table, _, ended := strings.Cut(table, "\n\n")
	rows := strings.Split(table, "\n")[2:]
	if !found || !ended || len(rows) < 20 {
		t.Fatalf("the table has %d rows", len(rows))
	}
	sources := make(map[string]string) // tests, by folder
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel("..", filepath.Dir(path))
		sources[folder] += string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	figuresShown := strings.Fields(sources[filepath.Join("cmd", "starling")]) // TestMetrics looks for those that it lists
	quoted := regexp.MustCompile("`([^`]+)`")
	for _, row := range rows {
		cells := strings.Split(row, " | ")
		if len(cells) != 4 {
			t.Errorf("a row has %d cells: %s", len(cells), row)
			continue
		}
		figures, tests := quoted.FindAllStringSubmatch(cells[2], -1), quoted.FindAllStringSubmatch(cells[3], -1)
		if len(tests) == 0 {
			t.Errorf("nothing shows %s", cells[0])
		}
		for _, test := range tests {
			folder, name, _ := strings.Cut(test[1], " ")
			if !strings.Contains(sources[folder], "\nfunc "+name+"(t *testing.T)") {
				t.Errorf("there is no %s in %s", name, folder)
			}
		}
		for _, figure := range figures {
			if strings.HasPrefix(figure[1], "starling_") && !slices.Contains(figuresShown, figure[1]) {
				t.Errorf("there is no figure %s", figure[1])
			}
		}
	}
}
