package imapwire

// SASLMechanism reads what follows AUTHENTICATE: SP, the mechanism in capitals, and the initial response if the client
// sends one, which is nil if not and empty, not nil, for "=" (RFC 9051 §6.2.2, RFC 4959 §3).
func (d *Decoder) SASLMechanism() (mechanism string, initial []byte) {
	d.SP()
	mechanism = d.Keyword()
	if !d.TrySP() {
		return mechanism, nil
	}
	if d.TryByte('=') {
		return mechanism, []byte{}
	}
	if d.AtEnd() {
		d.expected("an initial response")
	}
	return mechanism, d.Base64()
}

// SASLResponse reads the line with which the client answers a challenge. With "*" the client gives up the
// authentication (RFC 9051 §6.2.2). The command must have ended; its tag is kept.
func (d *Decoder) SASLResponse() (response []byte, cancelled bool, err error) {
	tag := d.tag
	if err := d.begin(); err != nil {
		return nil, false, err
	}
	d.tag = tag
	if d.TryByte('*') {
		return nil, true, d.End()
	}
	response = d.Base64()
	return response, false, d.End()
}

// Done reads the line DONE, which ends IDLE (RFC 2177 §3, RFC 9051 §6.3.13). The command must have ended; its tag is
// kept.
func (d *Decoder) Done() error {
	tag := d.tag
	if err := d.begin(); err != nil {
		return err
	}
	d.tag = tag
	if b := d.word(classAtom, "DONE"); d.err == nil && !equalFold(string(b), "DONE") {
		d.Fail("expected DONE")
	}
	return d.End()
}

// A Login is what follows LOGIN: RFC 9051 §6.2.3.
type Login struct{ Username, Password string }

// Login reads SP userid SP password.
func (d *Decoder) Login() Login {
	d.SP()
	username := d.AString()
	d.SP()
	return Login{username, d.AString()}
}

// Enable reads what follows ENABLE: names of capabilities, in capitals, each after a space (RFC 5161 §4).
func (d *Decoder) Enable() []string {
	d.SP()
	names := []string{d.Keyword()}
	for d.TrySP() {
		names = append(names, d.Keyword())
	}
	return names
}

// An IDField is a field of ID; Value is empty for NIL too (RFC 2971 §3.3).
type IDField struct{ Name, Value string }

// ID reads what follows ID: SP and NIL or a list of at most 30 names with values (RFC 2971 §3.3).
func (d *Decoder) ID() []IDField {
	d.SP()
	if d.Peek() != '(' {
		if b := d.word(classAtom, "a list or NIL"); d.err == nil && !equalFold(string(b), "NIL") {
			d.Fail("expected a list or NIL")
		}
		return nil
	}
	var fields []IDField
	d.List(func() {
		if len(fields) == maxIDFields {
			d.Fail("more than 30 fields")
			return
		}
		name := d.String()
		d.SP()
		value, _ := d.NString()
		fields = append(fields, IDField{name, value})
	})
	return fields
}

const maxIDFields = 30
