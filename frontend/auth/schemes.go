package auth

import (
	"crypto/md5"  //nolint:gosec // old schemes of migrated passwords
	"crypto/sha1" //nolint:gosec // old schemes of migrated passwords
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// A scheme is a stored form of passwords, named in braces before it.
type scheme struct {
	encoding string // of what is stored, where no suffix says it: "", "B64" or "HEX"
	size     int    // of the decoded digest in octets, where it has no salt; else 0
	verify   func(hashed, password string) (bool, error)
}

// schemes are the names that may stand in braces, in capitals. The names, the
// default encodings and the suffixes .b64, .base64 and .hex are Dovecot's.
var schemes = map[string]scheme{
	"ARGON2ID":     {verify: only("$argon2id$")},
	"ARGON2I":      {verify: only("$argon2i$")},
	"BLF-CRYPT":    {verify: only("$2")},
	"SHA512-CRYPT": {verify: only("$6$")},
	"SHA256-CRYPT": {verify: only("$5$")},
	"MD5-CRYPT":    {verify: only("$1$")},
	"MD5":          {verify: only("$1$")},
	"CRYPT":        {verify: verifyCrypt},
	"PBKDF2":       {verify: verifyPBKDF2},

	"SSHA":    {encoding: "B64", verify: digest(sha1.New)},
	"SSHA256": {encoding: "B64", verify: digest(sha256.New)},
	"SSHA512": {encoding: "B64", verify: digest(sha512.New)},
	"SMD5":    {encoding: "B64", verify: digest(md5.New)},

	"SHA":       {encoding: "B64", size: sha1.Size, verify: digest(sha1.New)},
	"SHA1":      {encoding: "B64", size: sha1.Size, verify: digest(sha1.New)},
	"SHA256":    {encoding: "B64", size: sha256.Size, verify: digest(sha256.New)},
	"SHA512":    {encoding: "B64", size: sha512.Size, verify: digest(sha512.New)},
	"LDAP-MD5":  {encoding: "B64", size: md5.Size, verify: digest(md5.New)},
	"PLAIN-MD5": {encoding: "HEX", size: md5.Size, verify: digest(md5.New)},

	"PLAIN":     {verify: plain},
	"CLEAR":     {verify: plain},
	"CLEARTEXT": {verify: plain},
}

// decode takes the encoding off. A digest without salt is hexadecimal, too,
// where its length says so.
func (s scheme) decode(stored, suffix string) (string, error) {
	encoding := s.encoding
	switch suffix {
	case "":
		if s.size > 0 && len(stored) == 2*s.size {
			encoding = "HEX"
		}
	case "HEX", "B64":
		encoding = suffix
	case "BASE64":
		encoding = "B64"
	default:
		return "", fmt.Errorf("%w: encoding .%s", ErrScheme, printable(suffix))
	}
	raw := []byte(stored)
	var err error
	switch encoding {
	case "HEX":
		raw, err = hex.DecodeString(stored)
	case "B64":
		raw, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(stored, "="))
	}
	if err != nil {
		// The decoders' errors quote what is stored, which must not reach a log.
		return "", fmt.Errorf("%w: it cannot be decoded", ErrMalformed)
	}
	if s.size > 0 && len(raw) != s.size {
		return "", fmt.Errorf("%w: it has %d octets instead of %d", ErrMalformed, len(raw), s.size)
	}
	return string(raw), nil
}

// digest checks a plain hash of the password followed by a salt, which stands
// behind the hash and may be empty.
func digest(newHash func() hash.Hash) func(string, string) (bool, error) {
	return func(hashed, password string) (bool, error) {
		h := newHash()
		if len(hashed) < h.Size() {
			return false, fmt.Errorf("%w: it is shorter than its hash", ErrMalformed)
		}
		sum, salt := hashed[:h.Size()], hashed[h.Size():]
		_, _ = h.Write([]byte(password)) // a hash never fails
		_, _ = h.Write([]byte(salt))
		return subtle.ConstantTimeCompare(h.Sum(nil), []byte(sum)) == 1, nil
	}
}

// plain compares hashes, so that not even the length shows in the time.
func plain(stored, password string) (bool, error) {
	a, b := sha256.Sum256([]byte(stored)), sha256.Sum256([]byte(password))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1, nil
}

// only checks a crypt(5) string that must begin in a certain way.
func only(prefix string) func(string, string) (bool, error) {
	return func(hashed, password string) (bool, error) {
		if !strings.HasPrefix(hashed, prefix) {
			return false, fmt.Errorf("%w: it does not begin with %s", ErrMalformed, prefix)
		}
		return verifyCrypt(hashed, password)
	}
}
