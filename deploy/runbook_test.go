package deploy_test

import (
	"path/filepath"
	"regexp"
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
