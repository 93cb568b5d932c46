package auth

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/secure/precis"
)

// The errors of Verify and Hash. None of them carries a part of the password
// or of what is stored.
var (
	// ErrScheme says that the stored password is in a scheme that is not known here.
	ErrScheme = errors.New("password scheme is not supported")
	// ErrMalformed says that the stored password is not what its scheme says it is.
	ErrMalformed = errors.New("stored password is malformed")
	// ErrCost says that to check the stored password would take more memory or time than is allowed.
	ErrCost = errors.New("stored password is too costly to check")
	// ErrPassword says that a password cannot be used: it is empty, over MaxPassword
	// octets, not UTF-8, or holds a control character.
	ErrPassword = errors.New("password cannot be used")
)

// MaxPassword is the longest password in octets. It bounds what one attempt
// costs: the crypt schemes read the password several times in each round.
const MaxPassword = 512

// What Hash makes: RFC 9106's argon2id with 19 MiB, two passes and one lane,
// about 25 ms of one core. One lane, because a node checks many logins at
// once and a hashing slot is to mean one core; so little memory, because each
// slot holds it for as long as it works.
const (
	hashMemory = 19 * 1024 // KiB
	hashTime   = 2
	hashLanes  = 1
	hashSalt   = 16 // octets
	hashKey    = 32 // octets
)

// What a stored password may ask for at most. Stored passwords come from
// other servers and from administrators; one that asks for 64 GiB must not
// take the node down.
const (
	maxArgonMemory  = 256 * 1024  // KiB
	maxArgonWork    = 1024 * 1024 // KiB times passes
	maxArgonLanes   = 16
	maxBcryptCost   = 14
	maxCryptRounds  = 1_000_000
	maxPBKDF2Rounds = 2_000_000
	maxYescryptMem  = 256 << 20 // octets
	maxStored       = 1024      // octets of the stored form
	maxSaltOrKey    = 128       // octets, decoded
)

// Hash returns the form in which a new password is stored: {ARGON2ID} and a
// PHC string with a random salt. The password is prepared as Prepare says.
// ErrPassword if it cannot be used.
func Hash(password string) (string, error) {
	if err := check(password); err != nil {
		return "", err
	}
	var salt [hashSalt]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return "", fmt.Errorf("make a salt: %w", err)
	}
	key := argon2.IDKey([]byte(Prepare(password)), salt[:], hashTime, hashMemory, hashLanes, hashKey)
	return phc(salt[:], key), nil
}

// phc writes an argon2id hash of Hash's parameters as it is stored.
func phc(salt, key []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("{ARGON2ID}$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		hashMemory, hashTime, hashLanes, b64.EncodeToString(salt), b64.EncodeToString(key))
}

// unmatchable returns a stored form like Hash's that no password is known to
// match: what an attempt for an unknown account is compared with.
func unmatchable() (string, error) {
	var b [hashSalt + hashKey]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("make a salt: %w", err)
	}
	return phc(b[:hashSalt], b[hashSalt:]), nil
}

func check(password string) error {
	switch {
	case password == "":
		return fmt.Errorf("%w: it is empty", ErrPassword)
	case len(password) > MaxPassword:
		return fmt.Errorf("%w: it is longer than %d octets", ErrPassword, MaxPassword)
	case !utf8.ValidString(password):
		return fmt.Errorf("%w: it is not UTF-8", ErrPassword)
	case strings.ContainsFunc(password, unicode.IsControl):
		return fmt.Errorf("%w: it holds a control character", ErrPassword)
	}
	return nil
}

// Prepare returns the password as it is hashed, so that the same characters
// typed on two systems are the same octets: the OpaqueString profile of RFC
// 8265 §4.2, which took the place of the SASLprep that RFC 4616 §2 asks for.
// A password that the profile does not allow is returned as it is, since a
// character newer than our tables must not lock anybody out.
func Prepare(password string) string {
	prepared, err := precis.OpaqueString.String(password)
	if err != nil {
		return password
	}
	return prepared
}

// Verify reports whether the password is the one that is stored. The stored
// form is a scheme in braces and what the scheme makes of a password, as
// Dovecot writes it ({SSHA512}…, {SHA256.hex}…, {CRYPT}$6$…), or a crypt(5)
// string alone. The password is taken octet for octet: see Prepare. Errors
// are ErrScheme, ErrMalformed, ErrCost and, for a password over MaxPassword,
// ErrPassword.
func Verify(stored, password string) (bool, error) {
	if len(password) > MaxPassword {
		return false, fmt.Errorf("%w: it is longer than %d octets", ErrPassword, MaxPassword)
	}
	if len(stored) > maxStored {
		return false, fmt.Errorf("%w: it is longer than %d octets", ErrMalformed, maxStored)
	}
	if strings.HasPrefix(stored, "$") {
		return verifyCrypt(stored, password)
	}
	name, rest, ok := strings.Cut(strings.TrimPrefix(stored, "{"), "}")
	if !ok || !strings.HasPrefix(stored, "{") {
		return false, fmt.Errorf("%w: it names no scheme", ErrScheme)
	}
	name, suffix, _ := strings.Cut(strings.ToUpper(name), ".")
	s, ok := schemes[name]
	if !ok {
		return false, fmt.Errorf("%w: {%s}", ErrScheme, printable(name))
	}
	hashed, err := s.decode(rest, suffix)
	if err != nil {
		return false, fmt.Errorf("{%s}: %w", name, err)
	}
	if hashed == "" {
		return false, fmt.Errorf("{%s}: %w: it is empty", name, ErrMalformed)
	}
	matched, err := s.verify(hashed, password)
	if err != nil {
		return false, fmt.Errorf("{%s}: %w", name, err)
	}
	return matched, nil
}

// printable makes a scheme's name safe for a log: what stands between braces
// may be anything, a password with braces included.
func printable(name string) string {
	for i := range len(name) {
		c := name[i]
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return "?"
		}
	}
	return name[:min(len(name), 20)]
}
