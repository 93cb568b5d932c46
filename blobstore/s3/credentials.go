package s3

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// keysAge is how long keys read from files are used before the files are read again.
const keysAge = time.Minute

func (c Config) credentials() (*credentials.Credentials, error) {
	switch {
	case c.AccessKey != "":
		return credentials.NewStaticV4(c.AccessKey, c.SecretKey, c.SessionToken), nil
	case c.AccessKeyFile != "":
		keys := &fileKeys{access: c.AccessKeyFile, secret: c.SecretKeyFile}
		if _, err := keys.Retrieve(); err != nil {
			return nil, err
		}
		return credentials.New(keys), nil
	}
	return credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{},
	}), nil
}

// fileKeys reads keys from two files. Its user, credentials.Credentials, calls it under a lock.
type fileKeys struct {
	access, secret string
	value          credentials.Value
	read           time.Time
}

// Retrieve implements credentials.Provider. While the files cannot be read, as in the moment in which they are
// replaced, it stays with the keys that it has.
func (f *fileKeys) Retrieve() (credentials.Value, error) {
	access, err1 := readKey(f.access)
	secret, err2 := readKey(f.secret)
	if err := errors.Join(err1, err2); err != nil {
		if f.value.AccessKeyID == "" {
			return credentials.Value{}, err
		}
		f.read = time.Now()
		return f.value, nil
	}
	f.value = credentials.Value{AccessKeyID: access, SecretAccessKey: secret, SignerType: credentials.SignatureV4}
	f.read = time.Now()
	return f.value, nil
}

// RetrieveWithCredContext implements credentials.Provider.
func (f *fileKeys) RetrieveWithCredContext(*credentials.CredContext) (credentials.Value, error) {
	return f.Retrieve()
}

// IsExpired implements credentials.Provider.
func (f *fileKeys) IsExpired() bool { return time.Since(f.read) > keysAge }

func readKey(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("S3 key: %w", err)
	}
	key := strings.TrimSpace(string(data))
	if key == "" {
		return "", fmt.Errorf("S3 key: %s is empty", path)
	}
	return key, nil
}
