package blobstore

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Key names an object: "<account>/<name>", always of two parts, so that a file system can hold the keys as folders and
// files. The account is 16 lower-case hex digits. The name of a mail is its [Object], 32 lower-case hex digits; other
// objects of an account have names of 1 to 64 of the characters a-z, 0-9, '-', '_' and '.', not beginning with a '.'.
type Key string

// Object is the random part of a mail's key: 128 bits that are never used a second time.
type Object [16]byte

const (
	accountDigits = 16
	maxName       = 64
)

// NewObject draws a new Object.
func NewObject() Object {
	var o Object
	rand.Read(o[:]) // it never fails: it ends the process when the system has no randomness
	return o
}

// NewKey draws a new key for a mail of account.
func NewKey(account int64) Key { return NewObject().Key(account) }

// Key is the key of the object in account.
func (o Object) Key(account int64) Key {
	b := make([]byte, 0, accountDigits+1+2*len(o))
	b = appendAccount(b, account)
	return Key(hex.AppendEncode(b, o[:]))
}

// String is the object in hex digits, as it stands in its key.
func (o Object) String() string { return hex.EncodeToString(o[:]) }

// NameKey is the key of an account's object that has a name of its own, such as "mailboxes".
func NameKey(account int64, name string) (Key, error) {
	k := Key(AccountPrefix(account) + name)
	return k, k.Check()
}

// AccountPrefix is what the keys of all objects of account begin with, and of no other account.
func AccountPrefix(account int64) string { return string(appendAccount(nil, account)) }

func appendAccount(b []byte, account int64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[uint64(account)>>shift&15])
	}
	return append(b, '/')
}

// Check returns an error that is ErrKey if k is not a valid key.
func (k Key) Check() error {
	account, name, ok := strings.Cut(string(k), "/")
	if !ok || len(account) != accountDigits || !isHex(account) || !isName(name) {
		return fmt.Errorf("%w: %q", ErrKey, string(k))
	}
	return nil
}

// Account is the account that the key belongs to; false if the key is not valid.
func (k Key) Account() (int64, bool) {
	if k.Check() != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(string(k[:accountDigits]), 16, 64)
	return int64(n), err == nil
}

// Object is the object in a mail's key; false if the key is not a mail's.
func (k Key) Object() (Object, bool) {
	var o Object
	if k.Check() != nil {
		return o, false
	}
	name := string(k[accountDigits+1:])
	if len(name) != 2*len(o) || !isHex(name) {
		return o, false
	}
	_, err := hex.Decode(o[:], []byte(name))
	return o, err == nil
}

func isHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func isName(s string) bool {
	if s == "" || len(s) > maxName || s[0] == '.' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}
