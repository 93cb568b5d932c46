package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
)

// checkKeys finds keys that are no settings.
func checkKeys(keys []string) error {
	var errs []error
	for _, key := range keys {
		if slices.ContainsFunc(settings(), func(s setting) bool { return s.key == key }) {
			continue
		}
		best, least := "", len(key)/2+1
		for _, s := range settings() {
			if d := editDistance(key, s.key); d < least {
				best, least = s.key, d
			}
		}
		if best != "" {
			best = fmt.Sprintf("; did you mean %s?", best)
		}
		errs = append(errs, fmt.Errorf("%s: there is no such setting%s", key, best))
	}
	if len(errs) == 0 {
		return nil
	}
	return errors.Join(append(errs, errors.New("starling config lists all settings"))...)
}

// editDistance is how many letters have to be put in, taken out or changed to
// make b of a.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(row[j+1]+1, row[j]+1, corner+cost)
			corner, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}

// decodeScalar is stricter than mapstructure is when it converts: a duration
// has a unit, or 30 would be nanoseconds, and one value is no list.
func decodeScalar(from, to reflect.Type, value any) (any, error) {
	switch {
	case to == reflect.TypeFor[time.Duration]():
		text, ok := value.(string)
		if from == to {
			return value, nil
		}
		if d, err := time.ParseDuration(text); ok && err == nil {
			return d, nil
		}
		return nil, fmt.Errorf("is %v; want a duration with its unit, such as 30s, 5m or 336h", value)
	case to.Kind() == reflect.Slice && from.Kind() != reflect.Slice:
		return nil, fmt.Errorf("is %v; want a list, such as [%q]", value, fmt.Sprint(value))
	case from.Kind() == reflect.Map || from.Kind() == reflect.Slice || to.Kind() == reflect.String || to.Kind() == reflect.Struct:
		return value, nil
	}
	if err := mapstructure.WeakDecode(value, reflect.New(to).Interface()); err != nil {
		return nil, fmt.Errorf("is %v; want %s", value, map[reflect.Kind]string{
			reflect.Bool: "true or false", reflect.Int: "a whole number", reflect.Int64: "a whole number", reflect.Float64: "a number",
		}[to.Kind()])
	}
	return value, nil
}

// decodeErrors says what mapstructure found as validate says it: the setting first.
func decodeErrors(err error) error {
	var several interface{ Unwrap() []error }
	if errors.As(err, &several) {
		var errs []error
		for _, e := range several.Unwrap() {
			errs = append(errs, decodeErrors(e))
		}
		return errors.Join(errs...)
	}
	var one *mapstructure.DecodeError
	if errors.As(err, &one) {
		return fmt.Errorf("%s: %w", one.Name(), one.Unwrap())
	}
	return err
}

// validate finds all that is wrong with the settings of a node that serves.
func (c *Config) validate() error {
	v := &problems{}
	c.checkStores(v)
	if len(c.NATS.URLs) == 0 {
		v.wrong("nats.urls", "is not set; give the servers of the NATS cluster, such as nats://nats:4222")
	}
	c.checkListeners(v)
	c.checkTLS(v)
	c.checkMail(v)
	c.checkTraces(v)
	v.networks("auth.trusted", c.Auth.Trusted)
	v.least("auth.hashers", int64(c.Auth.Hashers), 0)
	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.format", c.Log.Format, "json", "console")
	v.atLeast("shutdown_delay", c.ShutdownDelay, 0, "")
	v.atLeast("shutdown_grace", c.ShutdownGrace, 0, "")
	if len(v.errs) > 0 {
		return usageError{errors.Join(v.errs...)}
	}
	return nil
}

// validateStores is validate for a command that serves nobody, and goes without NATS.
func (c *Config) validateStores() error {
	v := &problems{}
	c.checkStores(v)
	c.checkMail(v)
	if len(v.errs) > 0 {
		return usageError{errors.Join(v.errs...)}
	}
	return nil
}

// problems are what is wrong with a configuration.
type problems struct{ errs []error }

func (p *problems) wrong(key, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
}

func (p *problems) oneOf(key, value string, want ...string) {
	if !slices.Contains(want, value) {
		last := len(want) - 1
		p.wrong(key, "is %q; want %s or %s", value, strings.Join(want[:last], ", "), want[last])
	}
}

func (p *problems) atLeast(key string, value, least time.Duration, why string) {
	if value < least {
		p.wrong(key, "is %v; want at least %v%s", value, least, why)
	}
}

func (p *problems) addresses(key string, addresses []string) {
	for _, address := range addresses {
		if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
			p.wrong(key, "%q is no address; want host:port, such as 127.0.0.1:1143, or :1143 for all", address)
		}
	}
}

// least says that a number may not be less.
func (p *problems) least(key string, value, least int64) {
	switch {
	case value >= least:
	case least == 0:
		p.wrong(key, "is %d; want 0 or more", value)
	default:
		p.wrong(key, "is %d; want at least %d", value, least)
	}
}

func (p *problems) networks(key string, networks []string) {
	for _, network := range networks {
		if _, err := netip.ParsePrefix(network); err != nil {
			p.wrong(key, "%q is no network; want one such as 10.1.0.0/16", network)
		}
	}
}

// file says that what is named there must be a file.
func (p *problems) file(key, path string) {
	if path == "" {
		return
	}
	if info, err := os.Stat(path); err != nil {
		p.wrong(key, "%v", err)
	} else if info.IsDir() {
		p.wrong(key, "%q is a folder; want a file", path)
	}
}

// folder says that there must be a folder.
func (p *problems) folder(key, path string) {
	if info, err := os.Stat(path); err != nil {
		p.wrong(key, "%v", err)
	} else if !info.IsDir() {
		p.wrong(key, "%q is no folder", path)
	}
}

func (c *Config) checkStores(v *problems) {
	if _, err := c.Postgres.dsn(); err != nil {
		v.errs = append(v.errs, err)
	}
	if n := c.Postgres.MaxConns; n < 3 || n > 10_000 {
		v.wrong("postgres.max_conns", "is %d; want 3 to 10000", n)
	}
	v.oneOf("postgres.query_mode", c.Postgres.QueryMode, "cache_statement", "cache_describe", "exec")
	switch s3 := c.Blobs.S3 != (S3Config{}); {
	case c.Blobs.Disk == "" && !s3:
		v.wrong("blobs.s3", "is not set; give blobs.s3.endpoint and blobs.s3.bucket, or blobs.disk for a folder")
	case c.Blobs.Disk != "" && s3:
		v.wrong("blobs.disk", "is set beside blobs.s3; give one of them")
	case s3:
		if err := c.Blobs.S3.config().Validate(); err != nil {
			v.wrong("blobs.s3", "%v", err)
		}
	}
	c.checkCache(v)
	c.checkNATS(v)
}

func (c *Config) checkNATS(v *problems) {
	for _, server := range c.NATS.URLs {
		if u, err := url.Parse(server); err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			if at := strings.LastIndexByte(server, '@'); at >= 0 {
				server = "…" + server[at:] // a password may stand before it
			}
			v.wrong("nats.urls", "%q is no URL of a server; want one such as nats://nats:4222", server)
		}
	}
	v.file("nats.credentials", c.NATS.Credentials)
	v.file("nats.nkey", c.NATS.Nkey)
	v.file("nats.ca_file", c.NATS.CA)
	v.file("nats.cert", c.NATS.Cert)
	v.file("nats.key", c.NATS.Key)
}

func (c *Config) checkCache(v *problems) {
	cache := c.Blobs.Cache
	v.least("blobs.cache.memory", cache.Memory, 0)
	v.least("blobs.cache.disk", cache.Disk, 0)
	switch {
	case cache.Dir == "":
	case cache.Disk == 0:
		v.wrong("blobs.cache.disk", "is 0, but blobs.cache.dir is set; give octets to keep there, or no folder")
	case c.Blobs.Disk != "" && filepath.Clean(cache.Dir) == filepath.Clean(c.Blobs.Disk):
		v.wrong("blobs.cache.dir", "is the folder of blobs.disk; the cache needs one of its own, since it deletes what it finds")
	}
}

func (c *Config) checkListeners(v *problems) {
	taken := make(map[string]string)
	for _, l := range []struct {
		key       string
		addresses []string
	}{
		{"imap.listen", c.IMAP.Listen},
		{"imap.listen_tls", c.IMAP.ListenTLS},
		{"lmtp.listen", c.LMTP.Listen},
		{"admin.listen", c.Admin.Listen},
	} {
		v.addresses(l.key, l.addresses)
		for _, address := range l.addresses {
			if before := taken[address]; before != "" && !strings.HasSuffix(address, ":0") {
				v.wrong(l.key, "%q is an address of %s already", address, before)
			}
			taken[address] = l.key
		}
	}
	if len(c.IMAP.Listen)+len(c.IMAP.ListenTLS)+len(c.LMTP.Listen) == 0 {
		v.wrong("imap.listen", "is empty, as are imap.listen_tls and lmtp.listen: nobody could reach the node")
	}
	v.networks("imap.proxy_networks", c.IMAP.ProxyNetworks)
	v.networks("lmtp.proxy_networks", c.LMTP.ProxyNetworks)
	v.least("imap.max_connections", int64(c.IMAP.MaxConnections), 1)
	v.least("imap.max_per_address", int64(c.IMAP.MaxPerAddress), 0)
	v.least("imap.max_per_account", int64(c.IMAP.MaxPerAccount), 0)
	v.least("imap.max_per_tenant", int64(c.IMAP.MaxPerTenant), 0)
	v.least("lmtp.max_connections", int64(c.LMTP.MaxConnections), 1)
	v.least("lmtp.max_recipients", int64(c.LMTP.MaxRecipients), 1)
	v.atLeast("imap.idle_timeout", c.IMAP.IdleTimeout, 30*time.Minute, ", as RFC 9051 asks for")
	v.atLeast("imap.keep_alive", c.IMAP.KeepAlive, time.Second, "")
}

func (c *Config) checkTLS(v *problems) {
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		v.wrong("tls", "cert and key must be given together")
	}
	if c.TLS.Cert == "" && len(c.TLS.Folders) == 0 && len(c.IMAP.ListenTLS) > 0 {
		v.wrong("imap.listen_tls", "needs tls.cert and tls.key, or tls.folders; or set it to []")
	}
	for _, folder := range c.TLS.Folders {
		v.folder("tls.folders", folder)
	}
}

func (c *Config) checkTraces(v *problems) {
	if c.Traces.Endpoint != "" {
		if u, err := url.Parse(c.Traces.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
			v.wrong("traces.endpoint", "is no URL of a collector; want one such as http://otel:4318, without a password")
		}
	}
	if sample := c.Traces.Sample; !(sample >= 0 && sample <= 1) { //nolint:staticcheck // it may be no number at all
		v.wrong("traces.sample", "is %v; want 0 to 1", sample)
	}
}

func (c *Config) checkMail(v *problems) {
	if c.Mail.MaxMessage < 1<<20 || c.Mail.MaxMessage > 1<<31 {
		v.wrong("mail.max_message", "is %d; want 1048576 (1 MiB) to 2147483648 (2 GiB)", c.Mail.MaxMessage)
	}
	v.atLeast("mail.retention", c.Mail.Retention, time.Second, "")
	v.atLeast("mail.orphan_grace", c.Mail.OrphanGrace, time.Hour, ", or mail on its way is taken for an orphan")
	v.atLeast("mail.backup_window", c.Mail.BackupWindow, time.Second, "")
	v.atLeast("mail.sweep", c.Mail.Sweep, time.Second, "")
	if c.Mail.Collect >= 0 {
		v.atLeast("mail.collect", c.Mail.Collect, time.Second, "; or negative for never")
	}
	if c.Mail.TempDir != "" { // large messages would be refused, and no others
		v.folder("mail.temp_dir", c.Mail.TempDir)
	}
	c.checkMemory(v, debug.SetMemoryLimit(-1))
}

// checkMemory looks whether what is given for memory can be kept to, where the process
// may use so much.
func (c *Config) checkMemory(v *problems, limit int64) {
	m := c.Mail.Memory
	sum := c.Blobs.Cache.Memory
	for _, part := range []struct {
		key    string
		octets int64
	}{
		{"mail.memory.mailboxes", m.Mailboxes},
		{"mail.memory.incoming", m.Incoming},
		{"mail.memory.answers", m.Answers},
		{"mail.memory.rows", m.Rows},
		{"mail.memory.searches", m.Searches},
		{"mail.memory.changes", m.Changes},
	} {
		if part.octets != 0 && part.octets < 1<<20 {
			v.wrong(part.key, "is %d; want at least 1048576 (1 MiB), or 0 for a part of what the process may use", part.octets)
		}
		sum += part.octets
	}
	if m != (MemoryConfig{}) && sum > limit {
		v.wrong("mail.memory", "is %d octets with blobs.cache.memory, and the process may use %d; give less, or 0 for a part of that", sum, limit)
	}
}
