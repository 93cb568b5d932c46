package deploy_test

import (
	"debug/elf"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// instructions are those of the Dockerfile, without comments, each in one line.
func instructions(t *testing.T) []string {
	t.Helper()
	text := regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(read(t, "Dockerfile"), "")
	text = regexp.MustCompile(`\\\n\s*`).ReplaceAllString(text, "")
	var all []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, line)
		}
	}
	return all
}

// dockerRun is the shell's part of the RUN instruction in which something stands.
func dockerRun(t *testing.T, with string) string {
	t.Helper()
	for _, line := range instructions(t) {
		if rest, ok := strings.CutPrefix(line, "RUN "); ok && strings.Contains(rest, with) {
			return regexp.MustCompile(`^(--\S+\s+)+`).ReplaceAllString(rest, "")
		}
	}
	t.Fatalf("no RUN with %s", with)
	return ""
}

// The last stage is made of nothing but what the one before it put together, and is not root.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	lines := instructions(t)
	last := 0
	for i, line := range lines {
		word, _, _ := strings.Cut(line, " ")
		if !regexp.MustCompile(`^(FROM|ARG|LABEL|COPY|RUN|WORKDIR|USER|EXPOSE|ENTRYPOINT|CMD)$`).MatchString(word) {
			t.Errorf("unknown instruction: %s", line)
		}
		if word == "FROM" {
			last = i
		}
	}
	if lines[last] != "FROM scratch" {
		t.Errorf("the last stage is %q", lines[last])
	}
	stage := strings.Join(lines[last:], "\n")
	for _, want := range []string{
		"COPY --from=build /rootfs/ /", "USER 65532:65532", "EXPOSE 143 993 24 8080", `ENTRYPOINT ["/starling"]`, `CMD ["serve"]`,
		`org.opencontainers.image.title="Starling"`, `org.opencontainers.image.licenses="Apache-2.0"`,
	} {
		if !strings.Contains(stage, want) {
			t.Errorf("the last stage has no %s", want)
		}
	}
	if n := strings.Count(stage, "COPY"); n != 1 {
		t.Errorf("the last stage copies %d times", n)
	}
	build := dockerRun(t, "go build")
	for _, want := range []string{"CGO_ENABLED=0 ", "GOOS=$TARGETOS ", "GOARCH=$TARGETARCH ", " -trimpath ", " -o /rootfs/starling ./cmd/starling"} {
		if !strings.Contains(build, want) {
			t.Errorf("the program is built without %s: %s", want, build)
		}
	}
	module := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))[1]
	if !strings.Contains(lines[0], "golang:"+module+"-") {
		t.Errorf("%s: go.mod wants Go %s", lines[0], module)
	}
}

// What is kept out of the image's context is nothing that git knows, or the version would be a dirty one.
func TestDockerignore(t *testing.T) {
	t.Parallel()
	var patterns []string
	for line := range strings.Lines(read(t, "Dockerfile.dockerignore")) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			patterns = append(patterns, line)
		}
	}
	if _, err := os.Stat("../.git"); err != nil {
		t.Skip("no git repository around: ", err)
	}
	for name := range strings.Lines(run(t, "git", "-C", "..", "ls-files")) {
		name = strings.TrimSpace(name)
		for _, p := range patterns {
			tail, anywhere := strings.CutPrefix(p, "**/")
			for at := name; at != "."; at = filepath.Dir(at) {
				whole, err := filepath.Match(p, at)
				if err != nil {
					t.Fatal(err)
				}
				base, _ := filepath.Match(tail, filepath.Base(at)) // as good a pattern as the whole
				if whole || anywhere && base {
					t.Errorf("%s, which git knows, is left out by %s", name, p)
				}
			}
		}
	}
}

// rootfs is what the image is made of.
func rootfs(t *testing.T) string {
	t.Helper()
	if !exists("/etc/ssl/certs/ca-certificates.crt") {
		missing(t, "no CA certificates; deploy/setup installs them")
	}
	dir, err := os.MkdirTemp("", "starling-rootfs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if !static(t, program(t)) {
		missing(t, "no static program without a static libc: set "+fullBuild+" to build as the Dockerfile does")
	}
	binary, err := os.ReadFile(program(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "starling"), binary, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "sh", "-c", strings.ReplaceAll(dockerRun(t, "/etc/passwd"), "/rootfs", dir))
	return dir
}

// static reports whether a program needs no library.
func static(t *testing.T, path string) bool {
	t.Helper()
	file, err := elf.Open(path)
	if err != nil {
		t.Skipf("only Linux has containers: %v", err)
	}
	defer file.Close()
	libraries, err := file.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	return len(libraries) == 0
}

// The image has what the program needs, and nothing else.
func TestImage(t *testing.T) {
	t.Parallel()
	dir := rootfs(t)
	var files []string
	var size int64
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		size += info.Size()
		name, err = filepath.Rel(dir, name)
		files = append(files, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(files, " "); got != "etc/group etc/passwd etc/ssl/certs/ca-certificates.crt starling" {
		t.Errorf("files: %s", got)
	}
	t.Logf("the image has %.1f MB", float64(size)/1e6)
	if size > 80e6 {
		t.Errorf("the image has %d octets; is there something in it that should not be?", size)
	}
	if passwd := read(t, filepath.Join(dir, "etc/passwd")); !strings.HasPrefix(passwd, "starling:x:65532:65532:") {
		t.Errorf("passwd: %s", passwd)
	}
}

// The program runs where there is nothing but the image, as the image's user, who
// can write to /tmp only; and starts there although nothing it depends on answers.
func TestInContainer(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can chroot")
	}
	dir := rootfs(t)
	inside := func(env []string, args ...string) *exec.Cmd {
		cmd := exec.Command("/starling", args...)
		cmd.Dir, cmd.Env = "/", env
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
		return cmd
	}
	out, err := inside(nil, "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "starling ") {
		t.Errorf("version: %v %s", err, out)
	}
	out, err = inside(nil).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "serve") {
		t.Errorf("help: %v %s", err, out)
	}
	admin := freeAddress(t)
	env := []string{
		"STARLING_POSTGRES_DSN=postgres://starling@127.0.0.1:1/starling", "STARLING_NATS_URLS=nats://127.0.0.1:1",
		"STARLING_BLOBS_S3_ENDPOINT=http://127.0.0.1:1", "STARLING_BLOBS_S3_BUCKET=mail",
		"STARLING_BLOBS_S3_ACCESS_KEY=a", "STARLING_BLOBS_S3_SECRET_KEY=b",
		"STARLING_IMAP_LISTEN=127.0.0.1:0", "STARLING_IMAP_LISTEN_TLS=", "STARLING_LMTP_LISTEN=127.0.0.1:0",
		"STARLING_ADMIN_LISTEN=" + admin,
	}
	node := start(t, inside(env, "serve"))
	eventually(t, "the node is alive", func() bool {
		status, _ := get(t, "http://"+admin+"/livez")
		return status == 200
	})
	if status, body := get(t, "http://"+admin+"/readyz"); status != 503 || !strings.Contains(body, "postgres") {
		t.Errorf("readyz: %d %s", status, body)
	}
	out, err = inside(env, "health").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "postgres") {
		t.Errorf("health: %v %s", err, out)
	}
	if status := node.end(); status != 0 {
		t.Errorf("ended with %d", status)
	}
}

// freeAddress is one that nobody listens on; for programs that cannot say which they took.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
