package auth

import (
	"context"
	"fmt"
	"net/netip"

	"starling/metadata"
)

// loginExchange is the server side of LOGIN, which no RFC describes
// (draft-murchison-sasl-login-00) and which old clients want: the server asks
// for the name, then for the password. Some clients send the name at once.
type loginExchange struct {
	a      *Authenticator
	remote netip.Addr
	step   int
	name   string
}

func startLogin(a *Authenticator, remote netip.Addr) Exchange {
	return &loginExchange{a: a, remote: remote}
}

// The steps of a loginExchange.
const (
	loginBegin = iota
	loginName
	loginPassword
	loginOver
)

// Next implements Exchange.
func (x *loginExchange) Next(ctx context.Context, response []byte) ([]byte, bool, metadata.Account, error) {
	step := x.step
	x.step = loginOver
	switch step {
	case loginBegin:
		if len(response) == 0 {
			x.step = loginName
			return []byte("Username:"), false, metadata.Account{}, nil
		}
		fallthrough // the name came with the command
	case loginName:
		if len(response) == 0 || len(response) > MaxAddress {
			return nil, false, metadata.Account{}, fmt.Errorf("%w: LOGIN wants a name of 1 to %d octets", ErrSyntax, MaxAddress)
		}
		x.step, x.name = loginPassword, string(response)
		return []byte("Password:"), false, metadata.Account{}, nil
	case loginPassword:
		account, err := x.a.Login(ctx, Attempt{Address: x.name, Password: string(response), Remote: x.remote})
		return nil, err == nil, account, err
	}
	return over()
}
