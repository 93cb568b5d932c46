package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"starling/metadata"
)

// The errors of an exchange, besides those of Authenticator.Login.
var (
	// ErrMechanism says that there is no such mechanism. NO, without a code.
	ErrMechanism = errors.New("SASL mechanism is not supported")
	// ErrSyntax says that a response is not what the mechanism allows. BAD.
	ErrSyntax = errors.New("malformed SASL response")
)

// A Mechanism is a way to prove who one is, RFC 4422.
type Mechanism struct {
	// Name is in capitals, as in AUTH=PLAIN.
	Name string
	// Plaintext says that the password itself is sent: to be offered under TLS only.
	Plaintext bool

	start func(a *Authenticator, remote netip.Addr) Exchange
}

// mechanisms are all that there are, the preferred first.
var mechanisms = []Mechanism{
	{Name: "PLAIN", Plaintext: true, start: startPlain},
	{Name: "LOGIN", Plaintext: true, start: startLogin},
}

// Mechanisms returns what Start knows, the preferred first.
func Mechanisms() []Mechanism {
	return append([]Mechanism(nil), mechanisms...)
}

// MechanismByName finds a mechanism by its name in any case.
func MechanismByName(name string) (Mechanism, bool) {
	for _, m := range mechanisms {
		if strings.EqualFold(m.Name, name) {
			return m, true
		}
	}
	return Mechanism{}, false
}

// An Exchange is one run of a mechanism. It is used by one goroutine, and
// dropped when it is done, after an error, or when the client cancels.
type Exchange interface {
	// Next takes what the client sent, without its base64: first the initial response,
	// nil if there was none and empty if an empty one was sent ("=" in RFC 4959 §3), then
	// one response to each challenge. It returns the challenge to send next, which may be
	// empty, or done and whose account it is. Errors are ErrSyntax, ErrAuthorization and
	// those of Authenticator.Login; after one of them the exchange is over.
	Next(ctx context.Context, response []byte) (challenge []byte, done bool, account metadata.Account, err error)
}

// Start begins an exchange with a client. ErrMechanism if the name, which may
// be in any case, is not known.
func (a *Authenticator) Start(mechanism string, remote netip.Addr) (Exchange, error) {
	m, ok := MechanismByName(mechanism)
	if !ok {
		return nil, ErrMechanism
	}
	return m.start(a, remote), nil
}

// over is what an exchange answers that goes on after its end.
func over() ([]byte, bool, metadata.Account, error) {
	return nil, false, metadata.Account{}, fmt.Errorf("%w: the exchange is over", ErrSyntax)
}
