package s3

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

// Config says where the bucket is and how to talk to it. Endpoint and Bucket are required; the zero value of all else is a
// sound default.
type Config struct {
	// Endpoint is the server's URL without a path: "https://s3.eu-central-1.amazonaws.com", "http://127.0.0.1:9000".
	Endpoint string
	// Region goes into signatures. Default "us-east-1", which most servers other than Amazon's accept.
	Region string
	// Bucket must exist.
	Bucket string
	// Prefix is put before every key, so that several clusters can share a bucket. A "/" is added if it does not end in one.
	Prefix string
	// Addressing says where the bucket's name stands in requests: "path", "host", or "" for host with providers that are
	// known to want it, else path.
	Addressing string
	// CAFile holds PEM certificates that are trusted besides the system's.
	CAFile string

	// AccessKey, SecretKey and SessionToken are the keys themselves.
	AccessKey, SecretKey, SessionToken string
	// AccessKeyFile and SecretKeyFile are files that hold the keys. They are read again every minute, so that keys can be
	// changed while the node runs.
	AccessKeyFile, SecretKeyFile string
	// If neither keys nor files are given, they come from the environment (AWS_ACCESS_KEY_ID …), the shared credentials
	// file, or the platform (web identity, container or instance role), in this order.

	// StallTimeout ends a request on which no byte has moved for so long, while it is sent, while the answer is awaited or
	// while that is read. Default 15 s.
	StallTimeout time.Duration
	// Deadline ends a Put, a Delete or a page of a listing with all its tries. Default 5 min. A Get has none beyond its
	// context's: its reader may be slow, and how long the server may be is StallTimeout times Attempts.
	Deadline time.Duration
	// Attempts is how often a request is tried; for a Get, how often in a row without a byte. Default 4.
	Attempts int
	// RetryDelay is the pause before the second try; it doubles for each further one and is varied at random. Default
	// 100 ms. It comes on top of up to 200 ms that the client library waits after each failed request.
	RetryDelay time.Duration
	// MaxConns limits the connections to the server. Requests beyond it wait, at most for StallTimeout. Default 256.
	MaxConns int

	// ProbeDelay is how long requests fail at once when the server is away, until one is sent to see whether it is back.
	// Default 2 s.
	ProbeDelay time.Duration

	// Log hears when the server is away, and when it is back. Default: nobody does.
	Log *zap.Logger
	// Metrics is where the figures are registered; nil: nowhere.
	Metrics prometheus.Registerer
	// Traces makes a span of each request; nil: no traces.
	Traces trace.TracerProvider
}

// Validate says which setting is wrong, and what would be right.
func (c Config) Validate() error {
	_, err := c.endpoint()
	errs := []error{err}
	if c.Bucket == "" {
		errs = append(errs, errors.New("bucket: it is empty; give the name of an existing bucket"))
	}
	switch c.Addressing {
	case "", "path", "host":
	default:
		errs = append(errs, fmt.Errorf(`addressing: %q is none of "path", "host" and ""`, c.Addressing))
	}
	if (c.AccessKey == "") != (c.SecretKey == "") {
		errs = append(errs, errors.New("access key and secret key: one is given without the other"))
	}
	if (c.AccessKeyFile == "") != (c.SecretKeyFile == "") {
		errs = append(errs, errors.New("access key file and secret key file: one is given without the other"))
	}
	if c.AccessKey != "" && c.AccessKeyFile != "" {
		errs = append(errs, errors.New("access key and access key file: give one of them"))
	}
	if c.StallTimeout < 0 || c.Deadline < 0 || c.Attempts < 0 || c.RetryDelay < 0 || c.MaxConns < 0 || c.ProbeDelay < 0 {
		errs = append(errs, errors.New("timeouts, attempts, delays and connections: none may be negative"))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	c.Region = cmp.Or(c.Region, "us-east-1")
	c.StallTimeout = cmp.Or(c.StallTimeout, 15*time.Second)
	c.Deadline = cmp.Or(c.Deadline, 5*time.Minute)
	c.Attempts = cmp.Or(c.Attempts, 4)
	c.RetryDelay = cmp.Or(c.RetryDelay, 100*time.Millisecond)
	c.MaxConns = cmp.Or(c.MaxConns, 256)
	c.ProbeDelay = cmp.Or(c.ProbeDelay, 2*time.Second)
	c.Log = cmp.Or(c.Log, zap.NewNop())
	if c.Prefix != "" && !strings.HasSuffix(c.Prefix, "/") {
		c.Prefix += "/"
	}
	return c
}

func (c Config) endpoint() (*url.URL, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		var wrong *url.Error
		if errors.As(err, &wrong) {
			err = wrong.Err // without the URL, which may hold what should not be in it
		}
		return nil, fmt.Errorf("endpoint: is not http://host:port or https://host:port: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("endpoint: %q is not http://host:port or https://host:port", u.Redacted())
	}
	return u, nil
}

func (c Config) lookup() minio.BucketLookupType {
	switch c.Addressing {
	case "path":
		return minio.BucketLookupPath
	case "host":
		return minio.BucketLookupDNS
	}
	return minio.BucketLookupAuto
}

func (c Config) tls() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile == "" {
		return conf, nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("CA file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a system without certificates of its own
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA file: %s holds no PEM certificate", c.CAFile)
	}
	conf.RootCAs = pool
	return conf, nil
}
