package imapwire

import "time"

// Names of search keys that are not names in the grammar, as SearchKey.Name has them. All others are named as in RFC
// 9051 §6.4.4: "ALL", "FROM", "UID", …
const (
	KeyAnd = "()"  // all of Keys: a list in parentheses, and the whole of what SEARCH is given
	KeySet = "SEQ" // messages with the sequence numbers of Set, "$" among them
)

// A SearchKey is a node of the tree of search keys. Which fields are set is told by the name's row in the table.
type SearchKey struct {
	Name string
	Keys []SearchKey // of KeyAnd any number, of OR two, of NOT one
	Set  NumSet      // of KeySet and UID
	// Text is the string to find, as sent, in the charset of the command; or the keyword of KEYWORD and UNKEYWORD, or
	// the identifier of EMAILID and THREADID (RFC 8474 §6).
	Text  string
	Field string    // of HEADER: the name of the field, as sent
	Date  time.Time // of BEFORE, SENTON and their like: midnight UTC of the day
	// Number is the bytes of LARGER and SMALLER, the seconds of OLDER and YOUNGER (RFC 5032 §2), the mod-sequence of
	// MODSEQ (RFC 7162 §3.1.5).
	Number int64
	// Entry and EntryType are what MODSEQ may name before its number: "/flags/\Seen" and "priv", "shared" or "all".
	Entry, EntryType string
}

// SearchReturn is what RETURN asks for (RFC 9051 §6.4.4, RFC 4731 §3.1, RFC 5182 §2). RETURN () means ALL.
type SearchReturn struct {
	Min, Max, All, Count, Save bool
}

// SearchArgs is what follows SEARCH and UID SEARCH.
type SearchArgs struct {
	Extended bool // RETURN was given: the response is ESEARCH
	Return   SearchReturn
	Charset  string // as sent; empty when none is named
	Key      SearchKey
}

// A searchReader reads what follows the name of a search key, the space before it included.
type searchReader func(*Decoder, *SearchKey)

// searchKeys has a row for each name, nil where nothing follows it. NOT and OR, which hold keys, are in searchKey:
// a table cannot name what reads the table.
var searchKeys = map[string]searchReader{
	"ALL":               nil,
	"ANSWERED":          nil,
	"BCC":               searchText,
	"BEFORE":            searchDate,
	"BODY":              searchText,
	"CC":                searchText,
	"DELETED":           nil,
	"DRAFT":             nil,
	"EMAILID":           searchObjectID, // RFC 8474 §6
	"FLAGGED":           nil,
	"FROM":              searchText,
	"HEADER":            searchHeader,
	"KEYWORD":           searchKeyword,
	"LARGER":            searchNumber,
	"MODSEQ":            searchModSeq, // RFC 7162 §3.1.5
	"NEW":               nil,          // RFC 3501 §6.4.4, as are OLD and RECENT
	"OLD":               nil,
	"OLDER":             searchInterval, // RFC 5032 §2, as is YOUNGER
	"ON":                searchDate,
	"RECENT":            nil,
	"SAVEDATESUPPORTED": nil,        // RFC 8514 §4
	"SAVEDBEFORE":       searchDate, // RFC 8514 §4, as are the next two
	"SAVEDON":           searchDate,
	"SAVEDSINCE":        searchDate,
	"SEEN":              nil,
	"SENTBEFORE":        searchDate,
	"SENTON":            searchDate,
	"SENTSINCE":         searchDate,
	"SINCE":             searchDate,
	"SMALLER":           searchNumber,
	"SUBJECT":           searchText,
	"TEXT":              searchText,
	"THREADID":          searchObjectID, // RFC 8474 §6
	"TO":                searchText,
	"UID":               searchUID,
	"UNANSWERED":        nil,
	"UNDELETED":         nil,
	"UNDRAFT":           nil,
	"UNFLAGGED":         nil,
	"UNKEYWORD":         searchKeyword,
	"UNSEEN":            nil,
	"YOUNGER":           searchInterval,
}

// searchReturns has a row for each option of RETURN.
var searchReturns = map[string]func(*Decoder, *SearchReturn){
	"MIN":   func(_ *Decoder, r *SearchReturn) { r.Min = true },
	"MAX":   func(_ *Decoder, r *SearchReturn) { r.Max = true },
	"ALL":   func(_ *Decoder, r *SearchReturn) { r.All = true },
	"COUNT": func(_ *Decoder, r *SearchReturn) { r.Count = true },
	"SAVE":  func(_ *Decoder, r *SearchReturn) { r.Save = true },
}

// SearchArgs reads what follows SEARCH, from before its first space.
func (d *Decoder) SearchArgs() SearchArgs {
	var a SearchArgs
	d.SP()
	word := d.searchWord()
	if word == "RETURN" {
		d.SP()
		a.Extended = true
		a.Return = d.searchReturn()
		d.SP()
		word = d.searchWord()
	}
	if word == "CHARSET" {
		d.SP()
		a.Charset = d.AString()
		d.SP()
		word = d.searchWord()
	}
	a.Key = d.searchKeys(word)
	return a
}

// SearchKeys reads one key or more with spaces between them, and returns them as one, for other commands' criteria.
func (d *Decoder) SearchKeys() SearchKey { return d.searchKeys(d.searchWord()) }

// searchKeys reads the keys, of the first of which the name was read.
func (d *Decoder) searchKeys(name string) SearchKey {
	key := SearchKey{Name: KeyAnd, Keys: []SearchKey{d.searchKey(name)}}
	for d.TrySP() {
		key.Keys = append(key.Keys, d.searchKey(d.searchWord()))
	}
	return key
}

func (d *Decoder) searchReturn() SearchReturn {
	var r SearchReturn
	d.List(func() {
		if set, ok := searchReturns[d.Keyword()]; ok {
			set(d, &r)
		} else {
			d.Fail("unknown option of RETURN")
		}
	})
	if r == (SearchReturn{}) {
		r.All = true
	}
	return r
}

// searchWord reads the name that a key begins with; it is empty where a set or a list follows.
func (d *Decoder) searchWord() string {
	c := d.Peek()
	if c == '(' || c == '*' || c == '$' || c >= '0' && c <= '9' {
		return ""
	}
	b := d.word(classAtom, "a search key")
	upperBytes(b)
	return string(b)
}

// maxSearchKeys is how many keys one command may have, those that hold others included: each takes a hundred times the
// octets of the shortest, and is asked of every message.
const maxSearchKeys = 1000

// searchKey reads the rest of the key whose name, if it has one, was read.
func (d *Decoder) searchKey(name string) SearchKey {
	if !d.enter() {
		return SearchKey{}
	}
	defer d.leave()
	if d.keys++; d.keys > maxSearchKeys {
		d.fail(&SyntaxError{Message: "too many search keys", TooBig: true})
		return SearchKey{}
	}
	key := SearchKey{Name: name}
	switch name {
	case "":
		if d.Peek() == '(' {
			key.Name = KeyAnd
			d.NonEmptyList(func() { key.Keys = append(key.Keys, d.searchKey(d.searchWord())) })
		} else {
			key.Name = KeySet
			key.Set = d.NumSet()
		}
	case "NOT":
		key.Keys = []SearchKey{d.nextSearchKey()}
	case "OR":
		key.Keys = []SearchKey{d.nextSearchKey(), d.nextSearchKey()}
	default:
		read, ok := searchKeys[name]
		if !ok {
			d.Fail("unknown search key")
		}
		if read != nil {
			read(d, &key)
		}
	}
	return key
}

func (d *Decoder) nextSearchKey() SearchKey {
	d.SP()
	return d.searchKey(d.searchWord())
}

func searchText(d *Decoder, key *SearchKey) {
	d.SP()
	key.Text = d.AString()
}

func searchHeader(d *Decoder, key *SearchKey) {
	d.SP()
	key.Field = d.AString()
	d.SP()
	key.Text = d.AString()
}

func searchKeyword(d *Decoder, key *SearchKey) {
	d.SP()
	key.Text = d.Atom()
}

// searchObjectID reads an objectid, and other atoms too: an identifier that nothing can have is found nowhere.
func searchObjectID(d *Decoder, key *SearchKey) {
	d.SP()
	key.Text = d.AString()
}

func searchDate(d *Decoder, key *SearchKey) {
	d.SP()
	key.Date = d.Date()
}

func searchNumber(d *Decoder, key *SearchKey) {
	d.SP()
	key.Number = d.Number64()
}

func searchInterval(d *Decoder, key *SearchKey) {
	d.SP()
	key.Number = int64(d.NZNumber())
}

func searchUID(d *Decoder, key *SearchKey) {
	d.SP()
	key.Set = d.NumSet()
}

// searchModSeq reads [entry-name SP entry-type-req SP] mod-sequence-valzer (RFC 7162 §7).
func searchModSeq(d *Decoder, key *SearchKey) {
	d.SP()
	if d.Peek() == '"' {
		key.Entry = d.Quoted()
		d.SP()
		key.EntryType = string(d.word(classAtom, "priv, shared or all"))
		switch {
		case equalFold(key.EntryType, "PRIV"), equalFold(key.EntryType, "SHARED"), equalFold(key.EntryType, "ALL"):
		default:
			d.Fail("expected priv, shared or all")
		}
		d.SP()
	}
	key.Number = int64(d.ModSeq())
}
