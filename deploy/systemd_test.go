package deploy_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The unit is one that systemd accepts, it shuts in the program well, and gives it the time to drain.
func TestSystemd(t *testing.T) {
	t.Parallel()
	analyze := need(t, "systemd-analyze")
	unit := read(t, "systemd/starling.service")
	self, err := os.Executable() // systemd wants the program to be there
	if err != nil {
		t.Fatal(err)
	}
	file := put(t, filepath.Join(t.TempDir(), "starling.service"), replace(t, unit, "/usr/local/bin/starling", self))
	if said := run(t, analyze, "verify", file); strings.Contains(said, "starling.service") {
		t.Error(said)
	}
	// 1.5 of 10; what is left are the ports below 1024 and the network. Fails above.
	run(t, analyze, "security", "--offline=yes", "--threshold=15", "--no-pager", file)

	for line := range strings.Lines(read(t, "systemd/starling.sysusers")) {
		if !regexp.MustCompile(`^u starling - "[^"]+"\n$`).MatchString(line) {
			t.Errorf("sysusers: %q", line)
		}
	}
	known := variables(t)
	settings := make(map[string]string)
	for _, set := range regexp.MustCompile(`(STARLING_[A-Z0-9_]+)=(\S+)`).FindAllStringSubmatch(unit, -1) {
		if !known[set[1]] {
			t.Errorf("%s is no setting", set[1])
		}
		settings[set[1]] = set[2]
	}
	duration := func(text string) time.Duration {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	drain := duration(settings["STARLING_SHUTDOWN_DELAY"]) + duration(settings["STARLING_SHUTDOWN_GRACE"])
	stop := regexp.MustCompile(`(?m)^TimeoutStopSec=(\S+)$`).FindStringSubmatch(unit)
	if stop == nil || duration(stop[1]) < drain+10*time.Second {
		t.Errorf("systemd waits %v for a drain of %v", stop, drain)
	}
}
