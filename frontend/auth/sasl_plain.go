package auth

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"starling/metadata"
)

// maxPlain bounds each of the three parts of PLAIN's message. RFC 4616 §2
// asks that 255 octets be accepted for each.
const maxPlain = MaxPassword

// plainExchange is the server side of PLAIN, RFC 4616: one message of
// authorization identity, authentication identity and password, with a NUL
// between them.
type plainExchange struct {
	a      *Authenticator
	remote netip.Addr
	asked  bool
	over   bool
}

func startPlain(a *Authenticator, remote netip.Addr) Exchange {
	return &plainExchange{a: a, remote: remote}
}

// Next implements Exchange.
func (x *plainExchange) Next(ctx context.Context, response []byte) ([]byte, bool, metadata.Account, error) {
	if x.over {
		return over()
	}
	if response == nil && !x.asked {
		x.asked = true
		return []byte{}, false, metadata.Account{}, nil
	}
	x.over = true
	authzid, authcid, password, err := parsePlain(response)
	if err != nil {
		return nil, false, metadata.Account{}, err
	}
	account, err := x.a.Login(ctx, Attempt{Address: authcid, Password: password, Remote: x.remote})
	if err != nil {
		return nil, false, metadata.Account{}, err
	}
	// Told only to those who are who they say, RFC 4616 §2.
	if authzid != "" && !strings.EqualFold(authzid, authcid) {
		return nil, false, metadata.Account{}, ErrAuthorization
	}
	return nil, true, account, nil
}

// parsePlain takes a message of RFC 4616 §2 apart:
//
//	message = [authzid] UTF8NUL authcid UTF8NUL passwd
//
// in which the last two are not empty and no part holds a NUL.
func parsePlain(message []byte) (authzid, authcid, password string, err error) {
	parts := bytes.Split(message, []byte{0})
	if len(parts) != 3 {
		return "", "", "", fmt.Errorf("%w: PLAIN has three parts with a NUL between them", ErrSyntax)
	}
	if !utf8.Valid(message) {
		return "", "", "", fmt.Errorf("%w: PLAIN is in UTF-8", ErrSyntax)
	}
	for _, p := range parts {
		if len(p) > maxPlain {
			return "", "", "", fmt.Errorf("%w: a part of PLAIN is longer than %d octets", ErrSyntax, maxPlain)
		}
	}
	if len(parts[1]) == 0 || len(parts[2]) == 0 {
		return "", "", "", fmt.Errorf("%w: PLAIN without a name or a password", ErrSyntax)
	}
	return string(parts[0]), string(parts[1]), string(parts[2]), nil
}
