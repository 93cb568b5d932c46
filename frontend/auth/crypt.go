package auth

import (
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // the hash of Dovecot's {PBKDF2}
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"github.com/go-crypt/x/crypt"
	"github.com/go-crypt/x/yescrypt"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// crypts are the forms of crypt(5) strings, by how they begin.
var crypts = []struct {
	prefix string
	verify func(hashed, password string) (bool, error)
}{
	{"$argon2id$", verifyArgon2(argon2.IDKey)},
	{"$argon2i$", verifyArgon2(argon2.Key)},
	{"$2a$", verifyBcrypt},
	{"$2b$", verifyBcrypt},
	{"$2y$", verifyBcrypt},
	{"$6$", verifySHACrypt(sha512.New)},
	{"$5$", verifySHACrypt(sha256.New)},
	{"$1$", verifyMD5Crypt},
	{"$y$", verifyYescrypt},
}

func verifyCrypt(hashed, password string) (bool, error) {
	for _, c := range crypts {
		if strings.HasPrefix(hashed, c.prefix) {
			return c.verify(hashed, password)
		}
	}
	return false, fmt.Errorf("%w: unknown crypt method", ErrScheme)
}

// verifyArgon2 reads $argon2id$v=19$m=19456,t=2,p=1$salt$key, in which only
// the version that RFC 9106 describes is known.
func verifyArgon2(derive func(password, salt []byte, time, memory uint32, lanes uint8, size uint32) []byte) func(string, string) (bool, error) {
	return func(hashed, password string) (bool, error) {
		parts := strings.Split(hashed, "$")
		if len(parts) != 6 || parts[2] != "v=19" {
			return false, fmt.Errorf("%w: not an argon2 string of version 19", ErrMalformed)
		}
		params := strings.Split(parts[3], ",")
		if len(params) != 3 {
			return false, fmt.Errorf("%w: argon2 parameters", ErrMalformed)
		}
		var value [3]uint32
		for i, name := range [...]string{"m=", "t=", "p="} {
			digits, ok := strings.CutPrefix(params[i], name)
			n, err := strconv.ParseUint(digits, 10, 32)
			if !ok || err != nil || n == 0 {
				return false, fmt.Errorf("%w: argon2 parameter %s", ErrMalformed, name)
			}
			value[i] = uint32(n)
		}
		memory, time, lanes := value[0], value[1], value[2]
		if memory > maxArgonMemory || lanes > maxArgonLanes || uint64(memory)*uint64(time) > maxArgonWork {
			return false, fmt.Errorf("%w: argon2 with %d KiB, %d passes, %d lanes", ErrCost, memory, time, lanes)
		}
		salt, errSalt := base64.RawStdEncoding.DecodeString(strings.TrimRight(parts[4], "="))
		key, errKey := base64.RawStdEncoding.DecodeString(strings.TrimRight(parts[5], "="))
		if errSalt != nil || errKey != nil || len(key) < 4 || len(key) > maxSaltOrKey || len(salt) > maxSaltOrKey {
			return false, fmt.Errorf("%w: argon2 salt or key", ErrMalformed)
		}
		got := derive([]byte(password), salt, time, memory, uint8(lanes), uint32(len(key))) //nolint:gosec // both bounded above
		return subtle.ConstantTimeCompare(got, key) == 1, nil
	}
}

func verifyBcrypt(hashed, password string) (bool, error) {
	cost, err := bcrypt.Cost([]byte(hashed))
	if err != nil || len(hashed) != 60 {
		return false, fmt.Errorf("%w: not a bcrypt string", ErrMalformed)
	}
	if cost > maxBcryptCost {
		return false, fmt.Errorf("%w: bcrypt with cost %d", ErrCost, cost)
	}
	err = bcrypt.CompareHashAndPassword([]byte(hashed), []byte(password))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, bcrypt.ErrMismatchedHashAndPassword):
		return false, nil
	}
	return false, fmt.Errorf("%w: not a bcrypt string", ErrMalformed)
}

// verifySHACrypt reads $6$salt$key and $6$rounds=10000$salt$key.
func verifySHACrypt(newHash func() hash.Hash) func(string, string) (bool, error) {
	const defaultRounds, minRounds, maxSalt = 5000, 1000, 16
	return func(hashed, password string) (bool, error) {
		parts := strings.Split(hashed, "$")[2:]
		rounds := uint64(defaultRounds)
		if digits, ok := strings.CutPrefix(parts[0], "rounds="); ok {
			var err error
			if rounds, err = strconv.ParseUint(digits, 10, 32); err != nil {
				return false, fmt.Errorf("%w: rounds", ErrMalformed)
			}
			parts = parts[1:]
		}
		if len(parts) != 2 || parts[1] == "" {
			return false, fmt.Errorf("%w: not a SHA-crypt string", ErrMalformed)
		}
		rounds = max(rounds, minRounds)
		if rounds > maxCryptRounds {
			return false, fmt.Errorf("%w: SHA-crypt with %d rounds", ErrCost, rounds)
		}
		salt := parts[0][:min(len(parts[0]), maxSalt)]
		key := crypt.KeySHACrypt(newHash, []byte(password), []byte(salt), int(rounds)) //nolint:gosec // bounded above
		return subtle.ConstantTimeCompare(key, []byte(parts[1])) == 1, nil
	}
}

func verifyMD5Crypt(hashed, password string) (bool, error) {
	const maxSalt = 8
	parts := strings.Split(hashed, "$")[2:]
	if len(parts) != 2 || parts[1] == "" {
		return false, fmt.Errorf("%w: not an MD5-crypt string", ErrMalformed)
	}
	salt := parts[0][:min(len(parts[0]), maxSalt)]
	key := crypt.KeyMD5Crypt([]byte(password), []byte(salt))
	return subtle.ConstantTimeCompare(key, []byte(parts[1])) == 1, nil
}

// verifyYescrypt reads $y$j9T$salt$key, what crypt(3) of many systems makes
// of a new password today. The two characters after j are the memory: N as a
// power of two, and r, a block of 128 octets times r.
func verifyYescrypt(hashed, password string) (bool, error) {
	const itoa64 = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	parts := strings.Split(hashed, "$")
	if len(parts) != 5 || len(parts[2]) != 3 || parts[2][0] != 'j' || parts[4] == "" {
		return false, fmt.Errorf("%w: not a yescrypt string", ErrMalformed)
	}
	n, r := strings.IndexByte(itoa64, parts[2][1])+1, strings.IndexByte(itoa64, parts[2][2])+1
	if n < 10 || r < 1 {
		return false, fmt.Errorf("%w: yescrypt parameters", ErrMalformed)
	}
	if n > 20 || 128*r<<n > maxYescryptMem {
		return false, fmt.Errorf("%w: yescrypt with N of 2^%d and r of %d", ErrCost, n, r)
	}
	got, err := yescrypt.Hash([]byte(password), []byte(hashed))
	if err != nil {
		return false, fmt.Errorf("%w: not a yescrypt string", ErrMalformed)
	}
	return subtle.ConstantTimeCompare(got, []byte(hashed)) == 1, nil
}

// verifyPBKDF2 reads $1$salt$rounds$key: PBKDF2 of RFC 8018 §5.2 with
// HMAC-SHA-1, the salt as written, the key hexadecimal.
func verifyPBKDF2(hashed, password string) (bool, error) {
	parts := strings.Split(hashed, "$")
	if len(parts) != 5 || parts[0] != "" || parts[1] != "1" {
		return false, fmt.Errorf("%w: not a PBKDF2 string", ErrMalformed)
	}
	rounds, errRounds := strconv.ParseUint(parts[3], 10, 32)
	key, errKey := hex.DecodeString(parts[4])
	if errRounds != nil || rounds == 0 || errKey != nil || len(key) != sha1.Size {
		return false, fmt.Errorf("%w: PBKDF2 rounds or key", ErrMalformed)
	}
	if rounds > maxPBKDF2Rounds {
		return false, fmt.Errorf("%w: PBKDF2 with %d rounds", ErrCost, rounds)
	}
	got, err := pbkdf2.Key(sha1.New, password, []byte(parts[2]), int(rounds), len(key)) //nolint:gosec // bounded above
	if err != nil {
		return false, fmt.Errorf("derive the key: %w", err)
	}
	return subtle.ConstantTimeCompare(got, key) == 1, nil
}
