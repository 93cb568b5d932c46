package nats

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"starling/events"
)

// Config says how the servers are reached. At most one of Credentials, Nkey, User and Token may be given.
type Config struct {
	// URLs of the cluster's servers: nats://host:4222 or tls://host:4222. Others of the cluster are learnt from them.
	URLs []string
	// Name is what the server's monitoring shows of this connection.
	Name string
	// Prefix is the first part of all subjects ("starling"). Clusters that share servers need one each.
	Prefix string

	// Credentials is a file with a JWT and its seed. It is read again at each connect.
	Credentials string
	// Nkey is a file with the seed of an nkey.
	Nkey string
	// User and Password are a plain login.
	User, Password string
	// Token is a plain token.
	Token string

	// CA is a PEM file of the authorities that vouch for the servers; without it, the system's. Given, the connection is always TLS.
	CA string
	// Cert and Key are PEM files of this client's certificate. Files are read again at each connect.
	Cert, Key string

	// Timeout is for one attempt to connect, for one write, and for the last words on Close (2 s).
	Timeout time.Duration
	// Pending is how many messages may wait to be read by this process before they are dropped (32,768).
	Pending int

	// Options are those of the node.
	Options events.Options
}

func (c Config) withDefaults() Config {
	if c.Prefix == "" {
		c.Prefix = "starling"
	}
	if c.Timeout <= 0 {
		c.Timeout = 2 * time.Second
	}
	if c.Pending <= 0 {
		c.Pending = 32768
	}
	return c
}

// Validate says what is wrong with the settings, without reading files or reaching a server.
func (c Config) Validate() error {
	c = c.withDefaults()
	if len(c.URLs) == 0 {
		return errors.New("nats: no URL of a server, such as nats://127.0.0.1:4222")
	}
	for _, url := range c.URLs {
		if strings.TrimSpace(url) == "" || strings.Contains(url, ",") {
			return fmt.Errorf("nats: %q is not the URL of one server, such as nats://127.0.0.1:4222", url)
		}
	}
	for token := range strings.SplitSeq(c.Prefix, ".") {
		if token == "" || strings.ContainsAny(token, "*> \t\r\n") {
			return fmt.Errorf("nats: the prefix %q is not one of subjects: words with dots between them, without * and >", c.Prefix)
		}
	}
	ways := 0
	for _, setting := range []string{c.Credentials, c.Nkey, c.User, c.Token} {
		if setting != "" {
			ways++
		}
	}
	switch {
	case ways > 1:
		return errors.New("nats: more than one of credentials, nkey, user and token is set")
	case c.Password != "" && c.User == "":
		return errors.New("nats: a password without a user")
	case (c.Cert == "") != (c.Key == ""):
		return errors.New("nats: a client's certificate needs both cert and key")
	}
	return nil
}

// options returns what the settings mean to the client library.
func (c Config) options() ([]nats.Option, error) {
	options := []nats.Option{
		nats.Name(c.Name), nats.NoEcho(), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(250 * time.Millisecond), nats.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond),
		nats.ReconnectBufSize(-1), // hints of before the outage are of no use after it
		nats.Timeout(c.Timeout), nats.FlusherTimeout(c.Timeout), nats.PingInterval(10 * time.Second), nats.MaxPingsOutstanding(2),
	}
	switch {
	case c.Credentials != "":
		options = append(options, nats.UserCredentials(c.Credentials))
	case c.Nkey != "":
		nkey, err := nats.NkeyOptionFromSeed(c.Nkey)
		if err != nil {
			return nil, fmt.Errorf("nats: read the nkey of %s: %w", c.Nkey, err)
		}
		options = append(options, nkey)
	case c.User != "":
		options = append(options, nats.UserInfo(c.User, c.Password))
	case c.Token != "":
		options = append(options, nats.Token(c.Token))
	}
	if c.CA != "" {
		options = append(options, nats.RootCAs(c.CA))
	}
	if c.Cert != "" {
		options = append(options, nats.ClientCert(c.Cert, c.Key))
	}
	return options, nil
}
