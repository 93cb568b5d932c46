package metadata

import (
	"strings"
	"testing"
)

// What is wrong with a connection string is said without its password.
func TestDSNErrorsAreSecret(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{
		"postgres://u:s3cret@h:99999999/db",
		"postgres://u:s3cret%e@h/db",
		"postgres://h:x/db?user=u&password=s3cret",
		"host=h password=s3cret port=x",
		"host=h password = s3cret port=x",
		"host=h password='s3cret s3cret' port=x",
	} {
		_, err := Open(t.Context(), Config{DSN: dsn})
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}
