// Package s3 is a blobstore.Store in a bucket of any S3-compatible server.
//
// A Put is one PUT, a Get one GET, a Delete one DELETE, a List one request for each 1,000 objects; nothing asks first
// whether something is there. The client library signs and parses; what it must not decide is decided here:
//
//   - s3.go       the four methods; tries that failed for the server's or the network's reasons are repeated
//   - put.go      a body that is rewound for each try, and that a dead request can no longer read
//   - get.go      a reader that goes on where a connection broke, and never ends early without an error
//   - hedge.go    a GET whose answer is late is sent once more
//   - transport.go   connections, and the watch that ends a request on which no byte moves
//   - metrics.go  what is counted and traced of each request
//   - errors.go   which answer is which of blobstore's errors, and which is worth another try
//   - config.go   settings; credentials.go: where keys come from
//
// Package s3test starts a real server for tests.
package s3
