package main

import (
	"strings"
	"testing"
)

// What is wrong with a setting is said without the passwords in it.
func TestConfigErrorsAreSecret(t *testing.T) {
	t.Parallel()
	c := defaults()
	c.Postgres.DSN = "postgres://u:s3cret@h/db"
	c.NATS.URLs = []string{"nats://u:s3cret@h:port", "u:s3cret@h", "nats://u:s3cret%e@h"}
	c.Blobs.S3.Endpoint, c.Blobs.S3.Bucket = "http://u:s3cret@h:port", "b"
	c.IMAP.Listen, c.IMAP.ListenTLS, c.LMTP.Listen = nil, nil, nil
	err := c.validate()
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	for _, want := range []string{"nats.urls: ", "blobs.s3: endpoint: ", "nobody could reach the node"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a password is in: %v", err)
	}
}
