package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/cobra"
)

// Config is every setting of a node. A setting's key is its path in the YAML
// file, "imap.listen"; in the environment it is STARLING_IMAP_LISTEN. The tag doc
// is what starling config says of it.
type Config struct {
	Hostname string `koanf:"hostname" doc:"name by which the node calls itself; empty: that of the machine"`

	IMAP     IMAPConfig     `koanf:"imap"`
	LMTP     LMTPConfig     `koanf:"lmtp"`
	TLS      TLSConfig      `koanf:"tls"`
	Postgres PostgresConfig `koanf:"postgres"`
	Blobs    BlobsConfig    `koanf:"blobs"`
	NATS     NATSConfig     `koanf:"nats"`
	Mail     MailConfig     `koanf:"mail"`
	Auth     AuthConfig     `koanf:"auth"`
	Admin    AdminConfig    `koanf:"admin"`
	Traces   TracesConfig   `koanf:"traces"`
	Log      LogConfig      `koanf:"log"`

	ShutdownDelay time.Duration `koanf:"shutdown_delay" doc:"how long a node that is stopped says that it is not ready before it takes no more connections"`
	ShutdownGrace time.Duration `koanf:"shutdown_grace" doc:"how long after that idle connections are ended, spread over it, and running commands may finish"`
}

// IMAPConfig is where and how IMAP is served.
type IMAPConfig struct {
	Listen         []string      `koanf:"listen" doc:"addresses for IMAP with STARTTLS, host:port"`
	ListenTLS      []string      `koanf:"listen_tls" doc:"addresses for IMAP under TLS from the first byte"`
	PlaintextLogin bool          `koanf:"plaintext_login" doc:"take passwords without TLS too; only where nobody can listen"`
	MaxConnections int           `koanf:"max_connections" doc:"connections at the same time"`
	MaxPerAddress  int           `koanf:"max_per_address" doc:"of them from one address, an IPv6 network of 64 bits being one; auth.trusted excepted; 0: any number"`
	MaxPerAccount  int           `koanf:"max_per_account" doc:"of them of one account; 0: any number"`
	MaxPerTenant   int           `koanf:"max_per_tenant" doc:"of them of one tenant's accounts; 0: any number"`
	ProxyNetworks  []string      `koanf:"proxy_networks" doc:"networks of load balancers; who connects from there must begin with a PROXY protocol header, version 1 or 2"`
	IdleTimeout    time.Duration `koanf:"idle_timeout" doc:"for a client that sends nothing; at least 30m (RFC 9051)"`
	KeepAlive      time.Duration `koanf:"keep_alive" doc:"between signs of life to a client in IDLE"`
}

// LMTPConfig is where and how mail is taken in.
type LMTPConfig struct {
	Listen         []string `koanf:"listen" doc:"addresses for LMTP, host:port; only mail transfer agents may reach them"`
	MaxConnections int      `koanf:"max_connections" doc:"connections at the same time"`
	MaxRecipients  int      `koanf:"max_recipients" doc:"of one message"`
	ProxyNetworks  []string `koanf:"proxy_networks" doc:"as imap.proxy_networks"`
}

// TLSConfig is the node's certificates. They are read again when they change.
type TLSConfig struct {
	Cert    string   `koanf:"cert" doc:"PEM file with the certificate and its chain, for clients that ask for no name or one that no other certificate has"`
	Key     string   `koanf:"key" doc:"PEM file with its key"`
	Folders []string `koanf:"folders" doc:"folders with more certificates, chosen by the name a client asks for: tls.crt and tls.key, as Kubernetes mounts secrets, or NAME.crt and NAME.key"`
}

// PostgresConfig is how PostgreSQL is reached.
type PostgresConfig struct {
	DSN       string `koanf:"dsn" secret:"yes" doc:"connection string of PostgreSQL, postgres://user:password@host/database"`
	DSNFile   string `koanf:"dsn_file" doc:"file that holds it, in place of dsn"`
	MaxConns  int    `koanf:"max_conns" doc:"connections of this node, beside one that asks whether PostgreSQL is there"`
	QueryMode string `koanf:"query_mode" doc:"cache_statement; or, behind a pooler that cannot do prepared statements, cache_describe or exec"`
}

// BlobsConfig is where message bytes are kept: one of disk and s3.
type BlobsConfig struct {
	Disk  string      `koanf:"disk" doc:"folder to keep messages in, instead of S3; all nodes must see the same one"`
	S3    S3Config    `koanf:"s3"`
	Cache CacheConfig `koanf:"cache"`
}

// CacheConfig is what of the messages a node keeps at hand.
type CacheConfig struct {
	Memory int64  `koanf:"memory" doc:"octets kept in memory; 0: none"`
	Dir    string `koanf:"dir" doc:"folder for more of them, on a local disk; each node needs its own, and may find it empty; empty: none"`
	Disk   int64  `koanf:"disk" doc:"octets kept in that folder"`
}

// S3Config is how the bucket is reached.
type S3Config struct {
	Endpoint      string `koanf:"endpoint" doc:"URL of the S3 server, https://host"`
	Region        string `koanf:"region" doc:"region, if the server has some"`
	Bucket        string `koanf:"bucket" doc:"name of the bucket, which must exist"`
	Prefix        string `koanf:"prefix" doc:"put before every key, so that several clusters can share a bucket"`
	Addressing    string `koanf:"addressing" doc:"where the bucket's name stands in requests: path, host; empty: by the provider"`
	CAFile        string `koanf:"ca_file" doc:"PEM file with certificates to trust besides the system's"`
	AccessKey     string `koanf:"access_key" secret:"yes" doc:"access key; without any, the environment or the platform (IAM) gives them"`
	SecretKey     string `koanf:"secret_key" secret:"yes" doc:"secret key"`
	AccessKeyFile string `koanf:"access_key_file" doc:"file that holds the access key; read again every minute"`
	SecretKeyFile string `koanf:"secret_key_file" doc:"file that holds the secret key; read again every minute"`
}

// NATSConfig is how NATS is reached.
type NATSConfig struct {
	URLs        []string `koanf:"urls" doc:"servers of the NATS cluster, nats://host:4222 or tls://host:4222"`
	Prefix      string   `koanf:"prefix" doc:"first part of all subjects; clusters that share servers need one each"`
	Credentials string   `koanf:"credentials" doc:"file with a JWT and its seed"`
	Nkey        string   `koanf:"nkey" doc:"file with the seed of an nkey"`
	User        string   `koanf:"user" doc:"user name"`
	Password    string   `koanf:"password" secret:"yes" doc:"password of the user"`
	Token       string   `koanf:"token" secret:"yes" doc:"token"`
	CA          string   `koanf:"ca_file" doc:"PEM file of the authorities that vouch for the servers"`
	Cert        string   `koanf:"cert" doc:"PEM file of the node's certificate for NATS"`
	Key         string   `koanf:"key" doc:"PEM file of its key"`
}

// MailConfig is how mail is kept.
type MailConfig struct {
	MaxMessage   int64         `koanf:"max_message" doc:"octets of the largest message"`
	Retention    time.Duration `koanf:"retention" doc:"how long expunged mail is kept, to be brought back"`
	OrphanGrace  time.Duration `koanf:"orphan_grace" doc:"age from which an object that no message names is taken for an orphan"`
	BackupWindow time.Duration `koanf:"backup_window" doc:"how long an object outlives its message, for restored databases"`
	Collect      time.Duration `koanf:"collect" doc:"how often the collector looks for work; negative: never on this node"`
	Sweep        time.Duration `koanf:"sweep" doc:"how often open mailboxes are compared with PostgreSQL while NATS works"`
	TempDir      string        `koanf:"temp_dir" doc:"folder for large messages on their way; empty: the system's"`

	Memory MemoryConfig `koanf:"memory"`
}

// MemoryConfig is how much memory a node takes for what; who finds none left waits a
// little and is then refused for now.
type MemoryConfig struct {
	Mailboxes int64 `koanf:"mailboxes" doc:"octets of memory for mailboxes that are open; 0: 40 % of what the process may use (GOMEMLIMIT, or 90 % of its cgroup), 2 GiB without a limit"`
	Incoming  int64 `koanf:"incoming" doc:"octets of memory for messages on their way in; 0: 12 % of that, or 512 MiB"`
	Answers   int64 `koanf:"answers" doc:"octets of memory for what is read to answer with; 0: 12 % of that, or 512 MiB"`
	Rows      int64 `koanf:"rows" doc:"octets of memory for what was read of messages to list them, to read it no more; 0: 8 % of that, or 256 MiB"`
	Searches  int64 `koanf:"searches" doc:"octets of memory for what searches asked of messages, to ask no more; 0: 5 % of that, or 128 MiB"`
	Changes   int64 `koanf:"changes" doc:"octets of memory for COPY, MOVE, STORE and EXPUNGE of more than 1,000 messages; 0: 8 % of that, or 256 MiB"`
}

// AuthConfig is how logins are checked.
type AuthConfig struct {
	Hashers int      `koanf:"hashers" doc:"passwords that are hashed at the same time; 0: one for each core"`
	Trusted []string `koanf:"trusted" doc:"networks of webmail servers, whose failed logins are not counted by address"`
}

// AdminConfig is where operators and their systems look at the node.
type AdminConfig struct {
	Listen []string `koanf:"listen" doc:"addresses for HTTP with health, metrics and the node's state, host:port; never where strangers reach them"`
	PProf  bool     `koanf:"pprof" doc:"serve Go's profiles there too, below /debug/pprof"`
}

// TracesConfig is where traces are sent.
type TracesConfig struct {
	Endpoint string  `koanf:"endpoint" doc:"URL of a collector for OpenTelemetry (OTLP over HTTP), http://host:4318; empty: no traces; OTEL_EXPORTER_OTLP_HEADERS is heeded"`
	Sample   float64 `koanf:"sample" doc:"share of the commands and deliveries that are traced, 0 to 1"`
}

// LogConfig is what is logged.
type LogConfig struct {
	Level  string `koanf:"level" doc:"debug, info, warn or error"`
	Format string `koanf:"format" doc:"json or console"`
}

// defaults is the configuration before anything is read.
func defaults() Config {
	return Config{
		IMAP: IMAPConfig{
			Listen: []string{":143"}, ListenTLS: []string{":993"},
			MaxConnections: 50_000, MaxPerAddress: 1000, MaxPerAccount: 100,
			IdleTimeout: 30 * time.Minute, KeepAlive: 2 * time.Minute,
		},
		LMTP:     LMTPConfig{Listen: []string{":24"}, MaxConnections: 1000, MaxRecipients: 100},
		Blobs:    BlobsConfig{Cache: CacheConfig{Memory: 64 << 20, Disk: 10 << 30}},
		Postgres: PostgresConfig{MaxConns: 8, QueryMode: "cache_statement"},
		NATS:     NATSConfig{Prefix: "starling"},
		Mail: MailConfig{
			MaxMessage: 64 << 20, Retention: 14 * 24 * time.Hour, OrphanGrace: 72 * time.Hour,
			BackupWindow: 7 * 24 * time.Hour, Collect: 10 * time.Minute, Sweep: 30 * time.Second,
		},
		Admin:         AdminConfig{Listen: []string{"127.0.0.1:8080"}},
		Traces:        TracesConfig{Sample: 0.01},
		Log:           LogConfig{Level: "info", Format: "json"},
		ShutdownGrace: 30 * time.Second,
	}
}

const envPrefix = "STARLING_"

// envName is what the setting of a key is called in the environment.
func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// loadConfig reads the file, if path is not empty, and the environment, which
// has the last word. Its error names the setting that is wrong.
func loadConfig(path string, environ []string) (Config, error) {
	k := koanf.New(".")
	if path != "" {
		if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
			return Config{}, usageError{fmt.Errorf("configuration file %s: %w", path, err)}
		}
	}
	if err := checkKeys(k.Keys()); err != nil {
		return Config{}, usageError{fmt.Errorf("configuration file %s: %w", path, err)}
	}
	keys := map[string]setting{}
	for _, s := range settings() {
		keys[envName(s.key)] = s
	}
	var unknown []string
	provider := env.Provider(".", env.Opt{
		Prefix:      envPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			s, ok := keys[name]
			switch {
			case ok && s.list():
				return s.key, strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
			case ok:
				return s.key, value
			case !strings.HasPrefix(name, envPrefix+"TEST_"):
				unknown = append(unknown, name)
			}
			return "", nil
		},
	})
	if err := k.Load(provider, nil); err != nil {
		return Config{}, usageError{fmt.Errorf("environment: %w", err)}
	}
	if len(unknown) > 0 {
		return Config{}, usageError{fmt.Errorf("environment: no setting is called %s; starling config lists them", strings.Join(unknown, ", "))}
	}
	c := defaults()
	decoder := &mapstructure.DecoderConfig{
		TagName: "koanf", WeaklyTypedInput: true, ErrorUnused: true, ZeroFields: true,
		DecodeHook: mapstructure.DecodeHookFuncType(decodeScalar),
	}
	if err := k.UnmarshalWithConf("", &c, koanf.UnmarshalConf{DecoderConfig: decoder}); err != nil {
		return Config{}, usageError{decodeErrors(err)}
	}
	return c, nil
}

// dsn is the connection string, from wherever it was given.
func (p *PostgresConfig) dsn() (string, error) {
	switch {
	case p.DSN != "" && p.DSNFile != "":
		return "", errors.New("postgres.dsn: is set beside postgres.dsn_file; give one of them")
	case p.DSN != "":
		return p.DSN, nil
	case p.DSNFile == "":
		return "", errors.New("postgres.dsn: is not set; give a connection string such as postgres://starling@localhost/starling")
	}
	content, err := os.ReadFile(p.DSNFile)
	if err != nil {
		return "", fmt.Errorf("postgres.dsn_file: %w", err)
	}
	return strings.TrimSpace(string(content)), nil
}

// setting is one setting, as starling config describes it.
type setting struct {
	key, doc string
	value    any // the default
}

func (s setting) list() bool { return reflect.TypeOf(s.value).Kind() == reflect.Slice }

// settings are all settings, in the order of Config.
func settings() []setting {
	return settingsOf(reflect.ValueOf(defaults()), "")
}

func settingsOf(v reflect.Value, prefix string) []setting {
	var all []setting
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key := prefix + f.Tag.Get("koanf")
		if f.Type.Kind() == reflect.Struct {
			all = append(all, settingsOf(v.Field(i), key+".")...)
			continue
		}
		all = append(all, setting{key: key, doc: f.Tag.Get("doc"), value: v.Field(i).Interface()})
	}
	return all
}

func newConfigCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "Print every setting, its default and what it is for",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.Print(describeConfig())
			return nil
		},
	}
}

// describeConfig is a configuration file that has every setting at its default.
func describeConfig() string {
	var b strings.Builder
	b.WriteString("# Every setting of a node, at its default. In the environment imap.listen is\n# STARLING_IMAP_LISTEN, and so on; lists are separated by commas there.\n")
	var open []string
	for _, s := range settings() {
		path := strings.Split(s.key, ".")
		depth := len(path) - 1
		for i, part := range path[:depth] {
			if i < len(open) && open[i] == part {
				continue
			}
			fmt.Fprintf(&b, "%s%s:\n", strings.Repeat("  ", i), part)
			open = open[:i]
			open = append(open, part)
		}
		if depth < len(open) {
			open = open[:depth]
		}
		indent := strings.Repeat("  ", depth)
		fmt.Fprintf(&b, "%s# %s\n%s%s: %s\n", indent, s.doc, indent, path[depth], yamlValue(s.value))
	}
	return b.String()
}

func yamlValue(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case []string:
		quoted := make([]string, len(v))
		for i, s := range v {
			quoted[i] = fmt.Sprintf("%q", s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	default:
		return fmt.Sprint(v)
	}
}
