package imapwire

// ListArgs is what follows LIST (RFC 9051 §6.3.9, RFC 5258 §3).
type ListArgs struct {
	// Extended says that the command has the extended form: selection options, patterns in parentheses or RETURN.
	Extended  bool
	Select    ListSelect
	Reference string
	Patterns  []string // at least one; INBOX is not folded
	Return    ListReturn
}

// ListSelect is which mailboxes LIST is about (RFC 5258 §3.1, RFC 6154 §2).
type ListSelect struct {
	Subscribed, Remote, RecursiveMatch, SpecialUse bool
}

// ListReturn is what LIST tells of each mailbox (RFC 5258 §3.2, RFC 6154 §2, RFC 5819 §2).
type ListReturn struct {
	Subscribed, Children, SpecialUse bool
	Status                           []string // items of STATUS, nil without it
}

// listSelects has a row for each selection option.
var listSelects = map[string]func(*Decoder, *ListSelect){
	"SUBSCRIBED":     func(_ *Decoder, s *ListSelect) { s.Subscribed = true },
	"REMOTE":         func(_ *Decoder, s *ListSelect) { s.Remote = true },
	"RECURSIVEMATCH": func(_ *Decoder, s *ListSelect) { s.RecursiveMatch = true },
	"SPECIAL-USE":    func(_ *Decoder, s *ListSelect) { s.SpecialUse = true },
}

// listReturns has a row for each return option.
var listReturns = map[string]func(*Decoder, *ListReturn){
	"SUBSCRIBED":  func(_ *Decoder, r *ListReturn) { r.Subscribed = true },
	"CHILDREN":    func(_ *Decoder, r *ListReturn) { r.Children = true },
	"SPECIAL-USE": func(_ *Decoder, r *ListReturn) { r.SpecialUse = true },
	"STATUS": func(d *Decoder, r *ListReturn) {
		d.SP()
		r.Status = d.StatusItems()
	},
}

// ListArgs reads what follows LIST, from before its first space.
func (d *Decoder) ListArgs() ListArgs {
	var a ListArgs
	d.SP()
	if d.Peek() == '(' {
		a.Extended = true
		a.Select = d.listSelect()
		d.SP()
	}
	a.Reference = d.mailboxName(d.astring(classAString, "a reference name"))
	d.SP()
	if d.Peek() == '(' {
		a.Extended = true
		d.NonEmptyList(func() { a.Patterns = append(a.Patterns, d.ListMailbox()) })
	} else {
		a.Patterns = []string{d.ListMailbox()}
	}
	if d.TrySP() {
		a.Extended = true
		a.Return = d.listReturn()
	}
	return a
}

// listSelect reads the selection options. RECURSIVEMATCH needs another that it can be about (RFC 5258 §3.1).
func (d *Decoder) listSelect() ListSelect {
	var s ListSelect
	d.List(func() {
		if set, ok := listSelects[d.Keyword()]; ok {
			set(d, &s)
		} else {
			d.Fail("unknown selection option of LIST")
		}
	})
	if s.RecursiveMatch && !s.Subscribed && !s.SpecialUse {
		d.Fail("RECURSIVEMATCH alone")
	}
	return s
}

func (d *Decoder) listReturn() ListReturn {
	var r ListReturn
	if b := d.word(classAtom, "RETURN"); d.err == nil && !equalFold(string(b), "RETURN") {
		d.Fail("expected RETURN")
	}
	d.SP()
	d.List(func() {
		if set, ok := listReturns[d.Keyword()]; ok {
			set(d, &r)
		} else {
			d.Fail("unknown return option of LIST")
		}
	})
	return r
}

// LSubArgs reads what follows LSUB: SP reference SP pattern (RFC 3501 §6.3.9).
func (d *Decoder) LSubArgs() (reference, pattern string) {
	d.SP()
	reference = d.mailboxName(d.astring(classAString, "a reference name"))
	d.SP()
	return reference, d.ListMailbox()
}
