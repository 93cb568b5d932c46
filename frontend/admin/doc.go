// Package admin is the HTTP listener for those who run a node, and for their
// systems. It is never where strangers can reach it.
//
//	GET /livez                    the process runs; it depends on nothing
//	GET /readyz                   whether the node should get new connections, and if not, why
//	GET /metrics                  figures for Prometheus
//	GET /node                     the node as it is now, in JSON
//	PUT /accounts/{name}/trace    log the protocol of an account's sessions, on all nodes, ?for=10m
//	DELETE /accounts/{name}/trace stop that
//	GET /debug/pprof/             Go's profiles, if the settings allow them
//
// What goes wrong is answered with application/problem+json (RFC 9457).
//
// The listener is the first thing that a node opens and the last that it closes, so
// it can be asked while the node waits for PostgreSQL, and while it drains. Health is
// what it knows of the servers that the node needs. It asks them at intervals: no
// probe of a pod waits for any of them.
package admin
