// Package s3test starts a real S3 server, so that what stands on blobstore/s3 is tested against one.
//
// The server is versitygw, over a folder, in the version that deploy/tools/go.mod pins. The first test that needs it builds
// it (about a minute and a half) into the user's cache folder; after that a start takes some 50 ms. With STARLING_TEST_S3
// set to the URL of another server, tests use that one, with the keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and
// in buckets of their own, which they leave behind empty or not.
//
// [New] is for tests; [Build] and [Start] are its parts, for programs that start a server for other programs.
package s3test
