// Package natsserver runs a NATS server inside the process, for development and for tests. It stores nothing.
package natsserver

import (
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Config is what a server is to be.
type Config struct {
	// Addr is where clients connect. Port 0 takes a free one.
	Addr string
	// User and Password are asked of clients if set.
	User, Password string
	// TLS is asked of clients if set.
	TLS *tls.Config

	// MaxPending is how many octets may wait for a client before it is cut off as too slow, and the most that one message
	// may have; 0: as the server has it.
	MaxPending int32

	// Cluster is where other servers connect, if they shall; port 0 takes a free one.
	Cluster string
	// Routes are the addresses of the Cluster of other servers.
	Routes []string
	// Advertise is where others are told to reach Cluster, if not there; clients are then told of no other server.
	Advertise string
}

// readiness is how long a server may take until clients can connect.
const readiness = 10 * time.Second

// Server is a running server.
type Server struct {
	server        *server.Server
	url           string
	addr, cluster string // as it listens, also after Shutdown
}

// Start starts a server and waits until clients can connect.
func Start(c Config) (*Server, error) {
	o := &server.Options{
		NoLog: true, NoSigs: true, Username: c.User, Password: c.Password,
		TLSConfig: c.TLS, TLS: c.TLS != nil, TLSTimeout: readiness.Seconds(), NoSystemAccount: true,
	}
	var err error
	if o.Host, o.Port, err = split(c.Addr); err != nil {
		return nil, err
	}
	if c.MaxPending > 0 {
		o.MaxPending, o.MaxPayload = int64(c.MaxPending), c.MaxPending
	}
	if c.Cluster != "" {
		o.Cluster.Name = "starling"
		if o.Cluster.Host, o.Cluster.Port, err = split(c.Cluster); err != nil {
			return nil, err
		}
		o.Cluster.Advertise, o.Cluster.NoAdvertise = c.Advertise, c.Advertise != ""
		for _, route := range c.Routes {
			o.Routes = append(o.Routes, server.RoutesFromStr("nats://"+route)...)
		}
	}
	if err := listenable(c.Addr); err != nil {
		return nil, fmt.Errorf("start a NATS server: %w", err)
	}
	s, err := server.NewServer(o)
	if err != nil {
		return nil, fmt.Errorf("make a NATS server: %w", err)
	}
	s.Start()
	if !s.ReadyForConnections(readiness) {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, fmt.Errorf("start a NATS server on %s: it does not listen after %v", c.Addr, readiness)
	}
	running := &Server{server: s, url: s.ClientURL(), addr: s.Addr().String()}
	if a := s.ClusterAddr(); a != nil {
		running.cluster = a.String()
	}
	return running, nil
}

// split takes an address apart. The server takes port -1 for a free one.
func split(addr string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("address of a NATS server: %w", err)
	}
	if port, err = strconv.Atoi(p); err != nil {
		return "", 0, fmt.Errorf("address of a NATS server: %w", err)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// listenable returns why nobody can listen on an address: the server itself does not say.
func listenable(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// URL is where clients connect.
func (s *Server) URL() string { return s.url }

// Addr is the same without a scheme, as Config.Addr has it.
func (s *Server) Addr() string { return s.addr }

// ClusterAddr is where other servers connect, as Config.Routes has it, or empty.
func (s *Server) ClusterAddr() string { return s.cluster }

// Routes is how many connections there are with other servers.
func (s *Server) Routes() int { return s.server.NumRoutes() }

// SlowConsumers is how many clients were cut off because they were too slow.
func (s *Server) SlowConsumers() int { return int(s.server.NumSlowConsumers()) }

// Shutdown cuts off all clients and waits until nothing of the server runs.
func (s *Server) Shutdown() {
	s.server.Shutdown()
	s.server.WaitForShutdown()
}
