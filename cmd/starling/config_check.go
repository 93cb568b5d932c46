package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"reflect"
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
			reflect.Bool: "true or false", reflect.Int: "a whole number", reflect.Int64: "a whole number",
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
	c.checkListeners(v)
	c.checkMail(v)
	for _, network := range c.Auth.Trusted {
		if _, err := netip.ParsePrefix(network); err != nil {
			v.wrong("auth.trusted", "%q is no network; want one such as 10.1.0.0/16", network)
		}
	}
	if c.Auth.Hashers < 0 {
		v.wrong("auth.hashers", "is %d; want 0 or more", c.Auth.Hashers)
	}
	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.format", c.Log.Format, "json", "console")
	if c.ShutdownGrace < 0 {
		v.wrong("shutdown_grace", "is %v; want 0s or more", c.ShutdownGrace)
	}
	if len(v.errs) > 0 {
		return usageError{errors.Join(v.errs...)}
	}
	return nil
}

// validateStores is validate for a command that serves nobody.
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

func (c *Config) checkStores(v *problems) {
	if _, err := c.Postgres.dsn(); err != nil {
		v.errs = append(v.errs, err)
	}
	if c.Postgres.MaxConns < 3 {
		v.wrong("postgres.max_conns", "is %d; want at least 3", c.Postgres.MaxConns)
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
	if len(c.NATS.URLs) == 0 {
		v.wrong("nats.urls", "is not set; give the servers of the NATS cluster, such as nats://nats:4222")
	}
	for _, server := range c.NATS.URLs {
		if u, err := url.Parse(server); err != nil || u.Host == "" || u.Scheme == "" {
			if at := strings.LastIndexByte(server, '@'); at >= 0 {
				server = "…" + server[at:] // a password may stand before it
			}
			v.wrong("nats.urls", "%q is no URL of a server; want one such as nats://nats:4222", server)
		}
	}
}

func (c *Config) checkListeners(v *problems) {
	v.addresses("imap.listen", c.IMAP.Listen)
	v.addresses("imap.listen_tls", c.IMAP.ListenTLS)
	v.addresses("lmtp.listen", c.LMTP.Listen)
	if len(c.IMAP.Listen)+len(c.IMAP.ListenTLS)+len(c.LMTP.Listen) == 0 {
		v.wrong("imap.listen", "is empty, as are imap.listen_tls and lmtp.listen: nobody could reach the node")
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		v.wrong("tls", "cert and key must be given together")
	}
	if c.TLS.Cert == "" && len(c.IMAP.ListenTLS) > 0 {
		v.wrong("imap.listen_tls", "needs tls.cert and tls.key; or set it to []")
	}
	if c.IMAP.MaxConnections < 1 {
		v.wrong("imap.max_connections", "is %d; want at least 1", c.IMAP.MaxConnections)
	}
	if c.LMTP.MaxRecipients < 1 {
		v.wrong("lmtp.max_recipients", "is %d; want at least 1", c.LMTP.MaxRecipients)
	}
	v.atLeast("imap.idle_timeout", c.IMAP.IdleTimeout, 30*time.Minute, ", as RFC 9051 asks for")
	v.atLeast("imap.keep_alive", c.IMAP.KeepAlive, time.Second, "")
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
}
