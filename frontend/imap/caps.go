package imap

import (
	"strconv"

	"starling/frontend/auth"
	"starling/frontend/imapwire"
)

// extensions is the set of what a client enabled (RFC 5161), or by its commands showed that it knows.
type extensions uint8

const (
	condStore  extensions = 1 << iota // RFC 7162 §3.1
	qResync                           // RFC 7162 §3.2; implies condStore
	utf8Accept                        // RFC 6855 §3
	rev2                              // RFC 9051 §6.3.1; implies utf8Accept's strings
)

// has says whether any of which is enabled.
func (s *session) has(which extensions) bool { return s.enabled&which != 0 }

// enable enables which, and what it implies. A client that begins to heed modseqs
// with a mailbox selected is told of which it knows all changes (RFC 7162 §3.1).
func (s *session) enable(which extensions) {
	if which&qResync != 0 {
		which |= condStore
	}
	if which&condStore != 0 && !s.has(condStore) && s.view != nil {
		s.enc.Status("", imapwire.OK, s.view.highestTold(), "Changes up to here were told")
	}
	s.enabled |= which
	if s.has(rev2) && s.view != nil {
		s.view.recent = recent{} // there is no \Recent any more (RFC 9051 §2.3.2)
	}
	if s.has(utf8Accept | rev2) {
		s.enc.UTF8, s.dec.UTF8 = true, true
	}
}

// capability is a row of the table of capabilities.
type capability struct {
	name    string
	offered func(s *session) bool // nil: always
	enables extensions            // what ENABLE makes of it; 0: it needs no ENABLE
}

func beforeLogin(s *session) bool { return s.state == notAuthenticated }
func afterLogin(s *session) bool  { return s.state != notAuthenticated }

// canLogin says whether a password may be sent now.
func (s *session) canLogin() bool { return s.secure || s.server.cfg.PlaintextLogin }

// capabilities is the table of what the server announces (RFC 9051 §7.2.2),
// in this order. AUTH= and APPENDLIMIT=, which have values, are added to it.
var capabilities = []capability{
	{name: "IMAP4rev1"},
	{name: "IMAP4rev2", enables: rev2},
	{name: "STARTTLS", offered: func(s *session) bool {
		return beforeLogin(s) && !s.secure && s.server.cfg.TLS != nil
	}},
	{name: "LOGINDISABLED", offered: func(s *session) bool { return beforeLogin(s) && !s.canLogin() }},
	{name: "SASL-IR", offered: beforeLogin}, // RFC 4959
	{name: "LITERAL+"},                      // RFC 7888
	{name: "ENABLE"},                        // RFC 5161
	{name: "ID"},                            // RFC 2971
	{name: "IDLE"},                          // RFC 2177
	{name: "NAMESPACE", offered: afterLogin},
	{name: "CHILDREN", offered: afterLogin},
	{name: "UNSELECT", offered: afterLogin},
	{name: "UIDPLUS", offered: afterLogin},
	{name: "MOVE", offered: afterLogin},
	{name: "CONDSTORE", offered: afterLogin, enables: condStore},
	{name: "QRESYNC", offered: afterLogin, enables: qResync},
	{name: "LIST-EXTENDED", offered: afterLogin},
	{name: "LIST-STATUS", offered: afterLogin},
	{name: "STATUS=SIZE", offered: afterLogin},
	{name: "SPECIAL-USE", offered: afterLogin},
	{name: "CREATE-SPECIAL-USE", offered: afterLogin},
	{name: "ESEARCH", offered: afterLogin},
	{name: "SEARCHRES", offered: afterLogin},
	{name: "WITHIN", offered: afterLogin},
	{name: "BINARY", offered: afterLogin},
	{name: "OBJECTID", offered: afterLogin},
	{name: "SAVEDATE", offered: afterLogin},
	{name: "UTF8=ACCEPT", offered: afterLogin, enables: utf8Accept},
}

// capabilities are the names that are announced now.
func (s *session) capabilities() []string {
	names := make([]string, 0, len(capabilities)+3)
	for _, c := range capabilities {
		if c.offered == nil || c.offered(s) {
			names = append(names, c.name)
		}
	}
	if s.state == notAuthenticated {
		if s.canLogin() {
			for _, m := range auth.Mechanisms() {
				names = append(names, "AUTH="+m.Name)
			}
		}
		return names
	}
	limit := strconv.FormatInt(s.server.cfg.Store.MaxMessage(), 10)
	return append(names, "APPENDLIMIT="+limit) // RFC 7889 §3
}
