package main

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "starling.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfigDefaults(t *testing.T) {
	t.Parallel()
	got, err := loadConfig("", []string{"HOME=/", "STARLING_TEST_DSN=x"})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, defaults()) {
		t.Errorf("configuration of nothing is %+v", got)
	}
}

// What starling config prints is a file that says what the defaults say.
func TestConfigDescribed(t *testing.T) {
	t.Parallel()
	text := describeConfig()
	got, err := loadConfig(writeConfig(t, text), nil)
	if err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	want := defaults()
	for _, s := range settings() {
		if s.doc == "" {
			t.Errorf("%s has no description", s.key)
		}
		if !strings.Contains(text, s.doc) {
			t.Errorf("%s is not described", s.key)
		}
	}
	// An empty list of the file is an empty list, where the default has none.
	got.NATS.URLs, got.Auth.Trusted, got.TLS.Folders = want.NATS.URLs, want.Auth.Trusted, want.TLS.Folders
	got.IMAP.ProxyNetworks, got.LMTP.ProxyNetworks = want.IMAP.ProxyNetworks, want.LMTP.ProxyNetworks
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestConfigFileAndEnvironment(t *testing.T) {
	t.Parallel()
	path := writeConfig(t, `
hostname: one.example
imap:
  listen: []
  listen_tls: ["127.0.0.1:993"]
  max_connections: 7
  plaintext_login: true
mail:
  retention: 48h
  max_message: 2097152
nats:
  urls: [nats://a:4222]
`)
	got, err := loadConfig(path, []string{
		"STARLING_HOSTNAME=two.example", "STARLING_NATS_URLS=nats://b:4222, nats://c:4222",
		"STARLING_IMAP_MAX_CONNECTIONS=8", "STARLING_MAIL_SWEEP=5s", "STARLING_IMAP_PLAINTEXT_LOGIN=false",
		"STARLING_BLOBS_S3_SECRET_KEY=0123",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Hostname = "two.example"
	want.IMAP.Listen, want.IMAP.ListenTLS, want.IMAP.MaxConnections = []string{}, []string{"127.0.0.1:993"}, 8
	want.Mail.Retention, want.Mail.MaxMessage, want.Mail.Sweep = 48*time.Hour, 2<<20, 5*time.Second
	want.NATS.URLs = []string{"nats://b:4222", "nats://c:4222"}
	want.Blobs.S3.SecretKey = "0123"
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// What cannot be loaded says which setting, what is wrong, what would be right.
func TestConfigNotLoaded(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		file    string
		environ []string
		want    []string
	}{
		"misspelt":           {"imap:\n  lsten: [':143']\n", nil, []string{"imap.lsten: there is no such setting", "did you mean imap.listen?", "starling config"}},
		"section":            {"database:\n  x: 1\n", nil, []string{"database.x: there is no such setting"}},
		"several":            {"a: 1\nb: 2\n", nil, []string{"a: there is no", "b: there is no"}},
		"environment":        {"", []string{"STARLING_IMAP_LSTEN=:143"}, []string{"STARLING_IMAP_LSTEN", "starling config"}},
		"no unit":            {"mail:\n  retention: 14\n", nil, []string{"mail.retention: is 14; want a duration", "336h"}},
		"no duration":        {"mail:\n  retention: 14d\n", nil, []string{"mail.retention: is 14d; want a duration"}},
		"no number":          {"imap:\n  max_connections: many\n", nil, []string{"imap.max_connections: is many; want a whole number"}},
		"size with a letter": {"", []string{"STARLING_MAIL_MAX_MESSAGE=64M"}, []string{"mail.max_message: is 64M; want a whole number"}},
		"no fraction":        {"traces:\n  sample: some\n", nil, []string{"traces.sample: is some; want a number"}},
		"no truth":           {"imap:\n  plaintext_login: perhaps\n", nil, []string{"imap.plaintext_login: is perhaps; want true or false"}},
		"no list":            {"imap:\n  listen: ':143'\n", nil, []string{"imap.listen: is :143; want a list", `[":143"]`}},
		"two":                {"imap:\n  max_connections: x\nmail:\n  sweep: y\n", nil, []string{"imap.max_connections: is x", "mail.sweep: is y"}},
		"no YAML":            {"imap: [\n", nil, []string{"configuration file"}},
		"no section":         {"imap: yes\n", nil, []string{"imap"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := loadConfig(writeConfig(t, test.file), test.environ)
			var usage usageError
			if !errors.As(err, &usage) {
				t.Fatalf("error is %v", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error is %q, without %q", err, want)
				}
			}
		})
	}
	if _, err := loadConfig(filepath.Join(t.TempDir(), "none.yaml"), nil); err == nil {
		t.Error("a file that is not there was read")
	}
}

func validConfig() Config {
	c := defaults()
	c.TLS = TLSConfig{Cert: "cert.pem", Key: "key.pem"}
	c.Postgres.DSN = "postgres://localhost/starling"
	c.Blobs.Disk = "/var/mail"
	c.NATS.URLs = []string{"nats://localhost:4222"}
	return c
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	if c := validConfig(); c.validate() != nil {
		t.Fatalf("a good configuration is refused: %v", c.validate())
	}
	missing := filepath.Join(t.TempDir(), "dsn")
	for _, test := range []struct {
		change func(*Config)
		want   []string
	}{
		{func(c *Config) { c.Postgres.DSN = "" }, []string{"postgres.dsn: is not set", "postgres://"}},
		{func(c *Config) { c.Postgres.DSNFile = "x" }, []string{"postgres.dsn: is set beside postgres.dsn_file"}},
		{func(c *Config) { c.Postgres.DSN, c.Postgres.DSNFile = "", missing }, []string{"postgres.dsn_file: ", missing}},
		{func(c *Config) { c.Postgres.MaxConns = 1 }, []string{"postgres.max_conns: is 1; want 3 to 10000"}},
		{func(c *Config) { c.Postgres.MaxConns = 10_001 }, []string{"postgres.max_conns: is 10001; want 3 to 10000"}},
		{func(c *Config) { c.Postgres.QueryMode = "fast" }, []string{`postgres.query_mode: is "fast"; want cache_statement, cache_describe or exec`}},
		{func(c *Config) { c.Blobs.Disk = "" }, []string{"blobs.s3: is not set", "blobs.s3.endpoint", "blobs.disk"}},
		{func(c *Config) { c.Blobs.S3.Bucket = "mail" }, []string{"blobs.disk: is set beside blobs.s3"}},
		{func(c *Config) { c.Blobs = BlobsConfig{S3: S3Config{Endpoint: "s3.example", Bucket: "b"}} }, []string{"blobs.s3: endpoint", "https://host:port"}},
		{func(c *Config) { c.Blobs = BlobsConfig{S3: S3Config{Endpoint: "https://s3.example"}} }, []string{"blobs.s3: bucket"}},
		{func(c *Config) { c.NATS.URLs = nil }, []string{"nats.urls: is not set", "nats://"}},
		{func(c *Config) { c.NATS.URLs = []string{"localhost"} }, []string{`nats.urls: "localhost" is no URL`}},
		{func(c *Config) { c.NATS.URLs = []string{"http://nats:8222"} }, []string{`nats.urls: "http://nats:8222" is no URL`}},
		{func(c *Config) { c.NATS.Credentials = missing }, []string{"nats.credentials: ", missing}},
		{func(c *Config) { c.NATS.Nkey = missing }, []string{"nats.nkey: ", missing}},
		{func(c *Config) { c.NATS.CA = "testdata" }, []string{`nats.ca_file: "testdata" is a folder`}},
		{func(c *Config) { c.NATS.Cert, c.NATS.Key = missing, missing }, []string{"nats.cert: ", "nats.key: "}},
		{func(c *Config) { c.Mail.TempDir = missing }, []string{"mail.temp_dir: ", missing}},
		{func(c *Config) { c.Mail.TempDir = "config_test.go" }, []string{`mail.temp_dir: "config_test.go" is no folder`}},
		{func(c *Config) { c.TLS.Key = "" }, []string{"tls: cert and key must be given together"}},
		{func(c *Config) { c.TLS = TLSConfig{} }, []string{"imap.listen_tls: needs tls.cert and tls.key, or tls.folders; or set it to []"}},
		{func(c *Config) { c.TLS.Folders = []string{missing} }, []string{"tls.folders: ", missing}},
		{func(c *Config) { c.TLS.Folders = []string{"config_test.go"} }, []string{`tls.folders: "config_test.go" is no folder`}},
		{func(c *Config) { c.IMAP.ProxyNetworks = []string{"10.0.0.1"} }, []string{`imap.proxy_networks: "10.0.0.1" is no network`}},
		{func(c *Config) { c.LMTP.ProxyNetworks = []string{"lan"} }, []string{`lmtp.proxy_networks: "lan" is no network`}},
		{func(c *Config) { c.IMAP.MaxPerAddress = -1 }, []string{"imap.max_per_address: is -1; want 0 or more"}},
		{func(c *Config) { c.IMAP.MaxPerAccount = -1 }, []string{"imap.max_per_account: is -1; want 0 or more"}},
		{func(c *Config) { c.IMAP.MaxPerTenant = -1 }, []string{"imap.max_per_tenant: is -1; want 0 or more"}},
		{func(c *Config) { c.LMTP.MaxConnections = 0 }, []string{"lmtp.max_connections: is 0; want at least 1"}},
		{func(c *Config) { c.Admin.Listen = []string{"8080"} }, []string{`admin.listen: "8080" is no address`}},
		{func(c *Config) { c.Admin.Listen = []string{":143"} }, []string{`admin.listen: ":143" is an address of imap.listen already`}},
		{func(c *Config) { c.Blobs.Cache.Memory = -1 }, []string{"blobs.cache.memory: is -1; want 0 or more"}},
		{func(c *Config) { c.Blobs.Cache.Disk = -1 }, []string{"blobs.cache.disk: is -1; want 0 or more"}},
		{func(c *Config) { c.Blobs.Cache.Dir, c.Blobs.Cache.Disk = "/cache", 0 }, []string{"blobs.cache.disk: is 0, but blobs.cache.dir is set"}},
		{func(c *Config) { c.Blobs.Cache.Dir = "/var/mail/" }, []string{"blobs.cache.dir: is the folder of blobs.disk"}},
		{func(c *Config) { c.Traces.Endpoint = "otel:4318" }, []string{"traces.endpoint: is no URL", "http://otel:4318"}},
		{func(c *Config) { c.Traces.Endpoint = "http://u:hidden@otel" }, []string{"traces.endpoint: is no URL", "without a password"}},
		{func(c *Config) { c.Traces.Sample = 1.1 }, []string{"traces.sample: is 1.1; want 0 to 1"}},
		{func(c *Config) { c.Traces.Sample = math.NaN() }, []string{"traces.sample: is NaN; want 0 to 1"}},
		{func(c *Config) { c.ShutdownDelay = -1 }, []string{"shutdown_delay: is -1ns; want at least 0s"}},
		{func(c *Config) { c.IMAP.Listen = []string{"143"} }, []string{`imap.listen: "143" is no address; want host:port`}},
		{func(c *Config) { c.IMAP.ListenTLS = []string{"a:"} }, []string{`imap.listen_tls: "a:" is no address`}},
		{func(c *Config) { c.LMTP.Listen = []string{""} }, []string{`lmtp.listen: "" is no address`}},
		{func(c *Config) { c.IMAP.MaxConnections = 0 }, []string{"imap.max_connections: is 0; want at least 1"}},
		{func(c *Config) { c.IMAP.IdleTimeout = time.Minute }, []string{"imap.idle_timeout: is 1m0s; want at least 30m0s", "RFC 9051"}},
		{func(c *Config) { c.IMAP.KeepAlive = 0 }, []string{"imap.keep_alive: is 0s; want at least 1s"}},
		{func(c *Config) { c.LMTP.MaxRecipients = -1 }, []string{"lmtp.max_recipients: is -1; want at least 1"}},
		{func(c *Config) { c.Mail.MaxMessage = 1 }, []string{"mail.max_message: is 1; want 1048576"}},
		{func(c *Config) { c.Mail.MaxMessage = 1 << 32 }, []string{"mail.max_message: is 4294967296; want"}},
		{func(c *Config) { c.Mail.Retention = -time.Hour }, []string{"mail.retention: is -1h0m0s"}},
		{func(c *Config) { c.Mail.OrphanGrace = time.Minute }, []string{"mail.orphan_grace: is 1m0s; want at least 1h0m0s"}},
		{func(c *Config) { c.Mail.BackupWindow = 0 }, []string{"mail.backup_window: is 0s"}},
		{func(c *Config) { c.Mail.Sweep = time.Millisecond }, []string{"mail.sweep: is 1ms; want at least 1s"}},
		{func(c *Config) { c.Mail.Collect = 1 }, []string{"mail.collect: is 1ns", "negative for never"}},
		{func(c *Config) { c.Mail.Memory.Mailboxes = -1 }, []string{"mail.memory.mailboxes: is -1; want at least 1048576 (1 MiB), or 0"}},
		{func(c *Config) { c.Mail.Memory.Incoming = 512 }, []string{"mail.memory.incoming: is 512; want"}},
		{func(c *Config) { c.Mail.Memory.Answers = 1<<20 - 1 }, []string{"mail.memory.answers: is 1048575; want"}},
		{func(c *Config) { c.Mail.Memory.Rows = 1 }, []string{"mail.memory.rows: is 1; want"}},
		{func(c *Config) { c.Mail.Memory.Searches = 1 }, []string{"mail.memory.searches: is 1; want"}},
		{func(c *Config) { c.Mail.Memory.Changes = 1 }, []string{"mail.memory.changes: is 1; want"}},
		{func(c *Config) { c.Auth.Hashers = -1 }, []string{"auth.hashers: is -1; want 0 or more"}},
		{func(c *Config) { c.Auth.Trusted = []string{"10.0.0.1"} }, []string{`auth.trusted: "10.0.0.1" is no network`, "10.1.0.0/16"}},
		{func(c *Config) { c.Log.Level = "loud" }, []string{`log.level: is "loud"; want debug, info, warn or error`}},
		{func(c *Config) { c.Log.Format = "xml" }, []string{`log.format: is "xml"; want json or console`}},
		{func(c *Config) { c.ShutdownGrace = -1 }, []string{"shutdown_grace: is -1ns; want at least 0s"}},
		{func(c *Config) { c.Log.Format, c.Log.Level = "", "" }, []string{"log.level", "log.format"}},
	} {
		t.Run(test.want[0], func(t *testing.T) {
			t.Parallel()
			c := validConfig()
			test.change(&c)
			err := c.validate()
			var usage usageError
			if !errors.As(err, &usage) {
				t.Fatalf("error is %v", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error is %q, without %q", err, want)
				}
			}
		})
	}
	named := validConfig()
	named.TLS = TLSConfig{Folders: []string{t.TempDir()}}
	named.Admin.Listen, named.IMAP.Listen = []string{"127.0.0.1:0"}, []string{"127.0.0.1:0"}
	if err := named.validate(); err != nil {
		t.Errorf("a node with a folder of certificates and free ports is refused: %v", err)
	}
	collector := validConfig()
	collector.Mail.Collect = -1
	if err := collector.validate(); err != nil {
		t.Errorf("a node that never collects is refused: %v", err)
	}
}

// What is given for memory fits into what the process may use.
func TestConfigMemory(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		given MemoryConfig
		limit int64
		want  string
	}{
		{MemoryConfig{}, 10 << 20, ""}, // parts of the limit
		{MemoryConfig{Mailboxes: 100 << 20, Incoming: 100 << 20}, math.MaxInt64, ""},
		{MemoryConfig{Mailboxes: 100 << 20, Searches: 100 << 20}, 264 << 20, ""},
		{MemoryConfig{Mailboxes: 100 << 20, Changes: 100 << 20}, 263 << 20, "mail.memory: is 276824064 octets with blobs.cache.memory, and the process may use 275775488;"},
	} {
		c := validConfig()
		c.Mail.Memory = test.given
		v := &problems{}
		c.checkMemory(v, test.limit)
		if err := errors.Join(v.errs...); (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v of %d: %v, want %q", test.given, test.limit, err, test.want)
		}
	}
}
