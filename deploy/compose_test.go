package deploy_test

import (
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// compose is what compose.yaml uses of the Compose Specification; any other field is a mistake.
type compose struct {
	Name      string
	XStarling service `yaml:"x-starling"`
	XNode     service `yaml:"x-node"`
	XNATS     service `yaml:"x-nats"`
	Services  map[string]service
	Volumes   map[string]struct{}
	Networks  map[string]struct {
		IPAM struct{ Config []struct{ Subnet string } }
	}
}

type service struct {
	Image       string
	Build       struct{ Context, Dockerfile string }
	Entrypoint  []string
	Command     []string
	Environment map[string]string
	Hostname    string
	Profiles    []string
	Ports       []string
	Volumes     []string
	Tmpfs       []string
	ReadOnly    bool     `yaml:"read_only"`
	CapDrop     []string `yaml:"cap_drop"`
	SecurityOpt []string `yaml:"security_opt"`
	Sysctls     map[string]string
	Ulimits     map[string]int
	Restart     string
	ShmSize     string        `yaml:"shm_size"`
	StopGrace   time.Duration `yaml:"stop_grace_period"`
	Networks    map[string]struct {
		Address string `yaml:"ipv4_address"`
	}
	Healthcheck struct {
		Test              []string
		Interval, Timeout time.Duration
		StartPeriod       time.Duration `yaml:"start_period"`
		Retries           int
	}
	DependsOn map[string]struct{ Condition string } `yaml:"depends_on"`
}

func TestCompose(t *testing.T) {
	t.Parallel()
	text := read(t, "compose.yaml")
	decoder := yaml.NewDecoder(strings.NewReader(text))
	decoder.KnownFields(true)
	var c compose
	if err := decoder.Decode(&c); err != nil {
		t.Fatal(err)
	}
	kinds := make(map[string]int)
	for name := range c.Services {
		kinds[strings.TrimRight(name, "123")]++
	}
	if got := fmt.Sprint(kinds); got != "map[admin:1 haproxy:1 migrate:1 nats:3 node:2 postgres:1 s:1]" {
		t.Errorf("services: %s", got)
	}
	known := variables(t)
	for name, s := range c.Services {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkService(t, &c, &s, known)
		})
	}
	checkProxy(t, &c)
	checkSecrets(t, text)
}

// checkService looks at all to which a service refers, and how it is shut in.
func checkService(t *testing.T, c *compose, s *service, known map[string]bool) {
	for name := range s.Environment {
		if strings.HasPrefix(name, "STARLING_") && !known[name] {
			t.Errorf("%s is no setting", name)
		}
	}
	for other, d := range s.DependsOn {
		on, ok := c.Services[other]
		switch {
		case !ok:
			t.Errorf("depends on %s, which is not there", other)
		case d.Condition == "service_healthy" && len(on.Healthcheck.Test) == 0:
			t.Errorf("waits until %s is healthy, which nobody looks at", other)
		}
	}
	for _, v := range s.Volumes {
		source, _, _ := strings.Cut(v, ":")
		_, named := c.Volumes[source]
		if !named && source != "./tls" && !exists(source) {
			t.Errorf("mounts %s, which is not there", source)
		}
	}
	if len(s.Healthcheck.Test) > 0 && (s.Healthcheck.Test[0] != "CMD" || s.Healthcheck.Retries == 0 || s.Healthcheck.Interval == 0) {
		t.Errorf("health check: %+v", s.Healthcheck)
	}
	if s.Image != "starling" {
		if !strings.Contains(s.Image, ":") {
			t.Errorf("%s has no tag", s.Image)
		}
		return
	}
	if !exists(path.Join(s.Build.Context, s.Build.Dockerfile)) {
		t.Errorf("is built by %+v", s.Build)
	}
	if !s.ReadOnly || len(s.Tmpfs) != 1 || fmt.Sprint(s.CapDrop) != "[ALL]" || len(s.SecurityOpt) != 1 {
		t.Errorf("is not shut in: %+v", s)
	}
	if help := run(t, program(t), s.Command[0], "--help"); s.Command[0] != "help" && !strings.Contains(help, "starling "+s.Command[0]) {
		t.Errorf("%s is no command", s.Command[0])
	}
	if s.Command[0] != "serve" {
		return
	}
	delay, err1 := time.ParseDuration(s.Environment["STARLING_SHUTDOWN_DELAY"])
	grace, err2 := time.ParseDuration(s.Environment["STARLING_SHUTDOWN_GRACE"])
	if err1 != nil || err2 != nil || s.StopGrace < delay+grace+10*time.Second {
		t.Errorf("is killed after %v, while it needs %v and %v", s.StopGrace, delay, grace)
	}
}

// checkProxy: the nodes believe HAProxy, at its address in the network, and no one else.
func checkProxy(t *testing.T, c *compose) {
	t.Helper()
	network := netip.MustParsePrefix(c.Networks["default"].IPAM.Config[0].Subnet)
	address := netip.MustParseAddr(c.Services["haproxy"].Networks["default"].Address)
	if !network.Contains(address) {
		t.Errorf("%v is not in %v", address, network)
	}
	haproxy := read(t, "haproxy/haproxy.cfg")
	for _, node := range []string{"node1", "node2"} {
		for _, setting := range []string{"STARLING_IMAP_PROXY_NETWORKS", "STARLING_LMTP_PROXY_NETWORKS"} {
			if got := c.Services[node].Environment[setting]; got != address.String()+"/32" {
				t.Errorf("%s: %s is %s", node, setting, got)
			}
		}
		for _, port := range []string{"143", "993", "24"} {
			if !strings.Contains(haproxy, fmt.Sprintf("server %s %s:%s\n", node, node, port)) {
				t.Errorf("HAProxy does not know port %s of %s", port, node)
			}
		}
	}
	for _, published := range c.Services["haproxy"].Ports {
		port := published[strings.LastIndexByte(published, ':')+1:]
		if !strings.Contains(haproxy, "bind :"+port+"\n") {
			t.Errorf("HAProxy does not listen on %s", port)
		}
	}
}

// checkSecrets: each comes from .env, and env.example names it, without a value.
func checkSecrets(t *testing.T, text string) {
	t.Helper()
	example := read(t, "env.example")
	for _, v := range regexp.MustCompile(`\$\{?(\w+)[^}]*\}?`).FindAllStringSubmatch(text, -1) {
		if !strings.Contains(v[0], ":?") {
			t.Errorf("%s may be empty", v[0])
		}
		if !strings.Contains(example, "\n"+v[1]+"=\n") {
			t.Errorf("env.example has no %s, or has a value for it", v[1])
		}
	}
	for _, v := range regexp.MustCompile(`(?m)^\s+\w*(?:PASSWORD|SECRET|KEY|TOKEN)\w*: (.*)$`).FindAllStringSubmatch(text, -1) {
		if !strings.HasPrefix(v[1], "${") && !strings.HasPrefix(v[1], "/tls/") {
			t.Errorf("a secret in the file? %s", v[0])
		}
	}
}
