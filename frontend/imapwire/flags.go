package imapwire

// System flags, as they are spelled in responses (RFC 9051 §2.3.2).
const (
	FlagSeen     = `\Seen`
	FlagAnswered = `\Answered`
	FlagFlagged  = `\Flagged`
	FlagDeleted  = `\Deleted`
	FlagDraft    = `\Draft`
	FlagRecent   = `\Recent` // RFC 3501 §2.3.2; no command may set it
	FlagWildcard = `\*`      // in PERMANENTFLAGS only (RFC 9051 §7.1)
)

// systemFlags maps capitals to the spelling of RFC 9051 §2.3.2.
var systemFlags = map[string]string{
	`\SEEN`:     FlagSeen,
	`\ANSWERED`: FlagAnswered,
	`\FLAGGED`:  FlagFlagged,
	`\DELETED`:  FlagDeleted,
	`\DRAFT`:    FlagDraft,
	`\RECENT`:   FlagRecent,
}

// Flag reads a flag: a keyword, or "\" and an atom. System flags are returned in the spelling of the constants, others
// as sent. Which flags may be set is the caller's to say, \Recent included.
func (d *Decoder) Flag() string {
	if !d.TryByte('\\') {
		return string(d.word(classAtom, "a flag"))
	}
	b := d.word(classAtom, "the name of a flag")
	if d.err != nil {
		return ""
	}
	var key [12]byte
	if len(b)+1 <= len(key) {
		key[0] = '\\'
		k := key[:1+copy(key[1:], b)]
		upperBytes(k)
		if flag, ok := systemFlags[string(k)]; ok {
			return flag
		}
	}
	return `\` + string(b)
}

// FlagList reads flags in parentheses, possibly none.
func (d *Decoder) FlagList() []string {
	flags := []string{}
	d.List(func() { flags = append(flags, d.Flag()) })
	if d.err != nil {
		return nil
	}
	return flags
}
