package main_test

import (
	"go/ast"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "starling/"

// layers is who may import whom of ours. A row is for a folder and for those
// below it that have no row. Tests, and packages made for them, are free to
// bring real parts together, but for cmd and what the second table says.
var layers = map[string][]string{
	"metadata":  {},
	"blobstore": {},
	"events":    {},

	"frontend/imapwire": {},
	"frontend/message":  {},
	"frontend/listen":   {},

	"frontend/mailstore": {"metadata", "blobstore", "blobstore/codec", "blobstore/cache", "events", "frontend/message"},
	"frontend/auth":      {"metadata"},
	// Of metadata and blobstore the protocols know the types and the sentinels: see forbidden.
	"frontend/imap":  {"metadata", "blobstore", "frontend/imapwire", "frontend/message", "frontend/mailstore", "frontend/auth"},
	"frontend/lmtp":  {"metadata", "blobstore", "frontend/message", "frontend/mailstore", "frontend/auth"},
	"frontend/admin": {"metadata", "frontend/mailstore", "frontend/auth"},

	"cmd/starling": {"*"},
	"cmd/imapload": {"frontend/imapwire"},
	"chaos":        {"*"}, // made for tests: a cluster that is broken on purpose
	"bench":        {"*"}, // starts real parts, as tests do, to compare them with others
	"deploy":       {},    // examples, their tests, the dashboard's source
}

// withParent are the folders whose implementations, one folder deeper,
// import them; the launcher and the migrations of PostgreSQL included.
var withParent = []string{"metadata", "blobstore", "events"}

// libraries is where a library may be used, with all that is below that
// folder. What is not named here may be used anywhere.
var libraries = map[string][]string{
	"github.com/jackc/pgx":                      {"metadata"},
	"github.com/pressly/goose":                  {"metadata"},
	"database/sql":                              {"metadata"},
	"github.com/minio/minio-go":                 {"blobstore/s3"},
	"github.com/nats-io":                        {"events/nats"},
	"github.com/emersion/go-smtp":               {"frontend/lmtp", "cmd"},
	"github.com/go-crypt":                       {"frontend/auth"},
	"golang.org/x/crypto/argon2":                {"frontend/auth"},
	"golang.org/x/crypto/bcrypt":                {"frontend/auth"},
	"github.com/spf13/cobra":                    {"cmd"},
	"github.com/knadh/koanf":                    {"cmd"},
	"github.com/vbauerster/mpb":                 {"cmd"},
	"net/http/pprof":                            {"frontend/admin", "cmd"},
	"github.com/emersion/go-imap/v2/imapserver": {},
	"github.com/stretchr/testify":               {},
}

// forbidden are the names by which a protocol would reach past mailstore.
var forbidden = map[string][]string{
	"metadata":  {"DB", "Open", "Migrate"},
	"blobstore": {"Store"},
}

// testLibraries are used by tests alone.
var testLibraries = []string{"testing", "pgregory.net/rapid", "go.uber.org/goleak", "github.com/emersion/go-imap/v2/imapclient"}

func TestLayers(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, s := range sources(t) {
		row, allowed, ok := layerOf(s.dir)
		if !ok {
			if !seen[s.dir] {
				t.Errorf("%s: the folder has no row in the table of layers", s.dir)
			}
			seen[s.dir] = true
			continue
		}
		for _, spec := range s.file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if reason := refuse(s, row, allowed, imported); reason != "" {
				t.Errorf("%s:%d: %s", s.name, s.line(spec), reason)
			}
		}
	}
}

// layerOf finds the row for a folder: its own, or that of the nearest above.
func layerOf(dir string) (row string, allowed []string, ok bool) {
	for row = dir; row != ""; {
		if allowed, ok = layers[row]; ok {
			return row, allowed, true
		}
		i := strings.LastIndexByte(row, '/')
		row = row[:max(i, 0)]
	}
	return "", nil, false
}

// refuse says why a file may not import a package, or "".
func refuse(s *source, row string, allowed []string, imported string) string {
	ours, isOurs := strings.CutPrefix(imported, module)
	if !isOurs {
		return refuseLibrary(s, imported)
	}
	switch {
	case ours == s.dir: // its tests, from outside
		return ""
	case strings.HasPrefix(ours, "cmd/"):
		return "nothing imports a command: " + ours
	case s.test():
		return ""
	case testPackage(ours):
		return "only tests import a package made for tests: " + ours
	case slices.Contains(allowed, "*"), slices.Contains(allowed, ours):
		return ""
	case ours == row && s.dir != row && slices.Contains(withParent, row):
		return ""
	case within(s.dir, ours) && !slices.Contains(withParent, row):
		return "" // a package of several folders knows its own parts
	}
	return row + " may not import " + ours
}

func refuseLibrary(s *source, imported string) string {
	if !s.test() {
		for _, library := range testLibraries {
			if within(imported, library) && s.dir != "cmd/imapload" {
				return "only tests use " + imported
			}
		}
	}
	for library, folders := range libraries {
		if !within(imported, library) {
			continue
		}
		if !slices.ContainsFunc(folders, func(folder string) bool { return within(s.dir, folder) }) {
			return imported + " is used only in: " + strings.Join(folders, ", ")
		}
	}
	return ""
}

// within reports whether a path is another, or below it; a major version
// ending such as /v5 is below.
func within(name, above string) bool { return name == above || strings.HasPrefix(name, above+"/") }

// HTTP is served by the administration, and by commands; others are clients.
func TestServersOfHTTP(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test() || within(s.dir, "cmd") || within(s.dir, "frontend/admin") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := sel.X.(*ast.Ident)
			if ok && x.Name == "http" && (sel.Sel.Name == "Server" || strings.HasPrefix(sel.Sel.Name, "Serve") || strings.HasPrefix(sel.Sel.Name, "ListenAndServe")) {
				t.Errorf("%s:%d: HTTP is served only in frontend/admin and cmd", s.name, s.line(n))
			}
			return true
		})
	}
}

// What the protocols import of the stores is types and sentinels.
func TestProtocolsDoNotReachTheStores(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test() || !within(s.dir, "frontend") || within(s.dir, "frontend/mailstore") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && slices.Contains(forbidden[x.Name], sel.Sel.Name) {
				t.Errorf("%s:%d: %s.%s is reached through frontend/mailstore", s.name, s.line(n), x.Name, sel.Sel.Name)
			}
			return true
		})
	}
}

func TestNoInit(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s:%d: no init", s.name, s.line(f))
			}
		}
	}
}

// The rules above refuse what they should: a test of the table's reader.
func TestRefuse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		file, imported string
		refused        bool
	}{
		{"frontend/imap/session.go", "starling/frontend/mailstore", false},
		{"frontend/imap/session.go", "starling/blobstore/disk", true},
		{"frontend/imap/session.go", "starling/metadata/metadatatest", true},
		{"frontend/imap/session_test.go", "starling/metadata/metadatatest", false},
		{"frontend/imap/session_test.go", "starling/cmd/starling", true},
		{"frontend/mailstore/append.go", "starling/blobstore/disk", true},
		{"frontend/mailstore/append.go", "starling/frontend/imap", true},
		{"metadata/commit.go", "starling/events", true},
		{"metadata/commit.go", "github.com/jackc/pgx/v5", false},
		{"frontend/auth/auth.go", "github.com/jackc/pgx/v5/pgxpool", true},
		{"frontend/auth/auth_test.go", "github.com/jackc/pgx/v5", true},
		{"blobstore/s3/get.go", "starling/blobstore", false},
		{"blobstore/s3/get.go", "starling/blobstore/disk", true},
		{"blobstore/s3/get.go", "github.com/minio/minio-go/v7", false},
		{"blobstore/disk/disk.go", "github.com/minio/minio-go/v7", true},
		{"blobstore/blobtest/suite.go", "testing", false},
		{"blobstore/put.go", "testing", true},
		{"cmd/starling/node.go", "starling/events/nats", false},
		{"cmd/starling/node.go", "github.com/nats-io/nats.go", true},
		{"cmd/imapload/main.go", "starling/frontend/imap", true},
	} {
		dir := c.file[:strings.LastIndexByte(c.file, '/')]
		row, allowed, ok := layerOf(dir)
		if !ok {
			t.Fatalf("no row for %s", dir)
		}
		reason := refuse(&source{name: c.file, dir: dir}, row, allowed, c.imported)
		if (reason != "") != c.refused {
			t.Errorf("%s imports %s: %q", c.file, c.imported, reason)
		}
	}
}
