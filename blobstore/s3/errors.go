package s3

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"

	"github.com/minio/minio-go/v7"

	"starling/blobstore"
)

// failure is why a request failed: one of blobstore's errors, what the server or the network said, and whether the
// same request may succeed in a moment.
type failure struct {
	sentinel  error
	cause     error
	temporary bool
}

func (f *failure) Error() string   { return fmt.Sprintf("%v: %v", f.sentinel, f.cause) }
func (f *failure) Unwrap() []error { return []error{f.sentinel, f.cause} }

// temporary says whether another try is worth it.
func temporary(err error) bool {
	var f *failure
	return errors.As(err, &f) && f.temporary
}

// throttled says whether the server wants fewer requests.
func throttled(err error) bool {
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.Code {
	case "SlowDown", "SlowDownRead", "SlowDownWrite", "RequestLimitExceeded", "Throttling", "ThrottlingException":
		return true
	}
	return answer.StatusCode == http.StatusTooManyRequests
}

// classify makes a *failure of what the client library returned; nil stays nil. Errors of the body and of the context
// are their callers' business, and looked at before.
func classify(err error) error {
	if err == nil {
		return nil
	}
	var f *failure
	if errors.As(err, &f) {
		return err
	}
	var answer minio.ErrorResponse
	if errors.As(err, &answer) {
		return classifyAnswer(answer)
	}
	// A certificate that is not trusted now will not be in a second.
	var cert *tls.CertificateVerificationError
	return &failure{blobstore.ErrUnavailable, err, !errors.As(err, &cert)}
}

func classifyAnswer(answer minio.ErrorResponse) error {
	cause := fmt.Errorf("S3 answered %d %s: %w", answer.StatusCode, answer.Code, answer)
	switch answer.Code {
	case minio.NoSuchKey, minio.NoSuchUpload, minio.NoSuchVersion:
		return &failure{blobstore.ErrNotFound, cause, false}
	case minio.InvalidRange:
		return &failure{blobstore.ErrRange, cause, false}
	case "RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "SlowDown",
		"InternalError", "ServiceUnavailable":
		// The first come with a status of 400, and mean that the request did not arrive as it was sent; the last two may
		// come with one of 200, at the end of a multipart upload.
		return &failure{blobstore.ErrUnavailable, cause, true}
	}
	switch answer.StatusCode {
	case http.StatusRequestedRangeNotSatisfiable:
		return &failure{blobstore.ErrRange, cause, false}
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return &failure{blobstore.ErrUnavailable, cause, true}
	}
	return &failure{blobstore.ErrUnavailable, cause, answer.StatusCode >= 500 && answer.StatusCode != http.StatusNotImplemented}
}
