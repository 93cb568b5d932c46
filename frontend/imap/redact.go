package imap

import (
	"bytes"
	"strconv"
	"strings"
)

// What of the protocol may be logged is decided by what is known to be harmless, and
// nothing else is kept: words of the protocol, and numbers where they can be nothing but
// numbers. Of all else its length is told.

// protocolWords are the words that may be logged, beside the names in the tables of
// commands, capabilities, items and keys.
var protocolWords = strings.Fields(`
	OK NO BAD BYE PREAUTH NIL DONE UID RETURN ALL FAST FULL
	EXISTS EXPUNGE RECENT FETCH SEARCH ESEARCH LIST LSUB STATUS FLAGS VANISHED EARLIER CAPABILITY ENABLED ID NAMESPACE
	ALERT ALREADYEXISTS APPENDUID AUTHENTICATIONFAILED AUTHORIZATIONFAILED BADCHARSET BADCOMPARATOR BADURL CANNOT CLIENTBUG CLOSED
	CONTACTADMIN COPYUID CORRUPTION EXPIRED EXPUNGEISSUED HASCHILDREN HIGHESTMODSEQ INUSE LIMIT MAILBOXID MODIFIED NOMODSEQ
	NONEXISTENT NOPERM NOTSAVED OVERQUOTA PARSE PERMANENTFLAGS PRIVACYREQUIRED READ-ONLY READ-WRITE SERVERBUG TOOBIG TRYCREATE
	UIDNEXT UIDNOTSTICKY UIDVALIDITY UNAVAILABLE UNKNOWN-CTE UNSEEN USEATTR
	BODY BODY.PEEK BINARY BINARY.PEEK BINARY.SIZE RFC822 HEADER HEADER.FIELDS HEADER.FIELDS.NOT FIELDS TEXT MIME PEEK SIZE
	BCC CC CONTENT-TYPE DATE DISPOSITION-NOTIFICATION-TO FROM IMPORTANCE IN-REPLY-TO LIST-ID LIST-POST LIST-UNSUBSCRIBE MESSAGE-ID
	PRIORITY RECEIVED REFERENCES REPLY-TO RETURN-PATH SENDER SUBJECT TO X-PRIORITY X-MAILER
	+FLAGS -FLAGS FLAGS.SILENT +FLAGS.SILENT -FLAGS.SILENT CHANGEDSINCE UNCHANGEDSINCE MODSEQ QRESYNC CONDSTORE
	\Seen \Answered \Flagged \Deleted \Draft \Recent \*
	$Forwarded $MDNSent $Junk $NotJunk $Phishing $Submitted $SubmitPending $Important $MailFlagBit0 $MailFlagBit1 $MailFlagBit2
	\HasChildren \HasNoChildren \Noinferiors \Noselect \NonExistent \Marked \Unmarked \Subscribed \Remote
	\All \Archive \Drafts \Flagged \Important \Junk \Sent \Trash
	NOT OR CHARSET UTF-8 US-ASCII MIN MAX COUNT SAVE TAG
	SUBSCRIBED REMOTE RECURSIVEMATCH SPECIAL-USE CHILDREN CHILDINFO OLDNAME USE
	MESSAGES DELETED DELETED-STORAGE APPENDLIMIT UTF8 ACCEPT AUTH PLAIN LOGIN
`)

// harmless is the set of words that may be logged, in capitals.
var harmless = func() map[string]bool {
	words := make(map[string]bool)
	add := func(word string) { words[strings.ToUpper(word)] = true }
	for _, word := range protocolWords {
		add(word)
	}
	for name := range fetchItems {
		add(name)
	}
	for name := range searchKeys {
		add(name)
	}
	for _, row := range capabilities {
		add(row.name)
	}
	return words
}()

// redaction is what the first words of a line say of its arguments.
type redaction struct {
	numbers   uint8 // in which arguments numbers are numbers, a bit for each; the last bit stands for all further ones
	nested    bool  // in lists they are
	names     uint8 // which arguments are names of mailboxes, likewise
	afterKeys bool  // SEARCH: what follows a key is by the key
	all       bool  // nothing of the arguments is told
}

const (
	first, second uint8 = 1, 2
	every         uint8 = 0xff
)

// redactions is what the arguments of commands are. Those of others are told without numbers.
var redactions = map[string]redaction{
	"LOGIN": {all: true}, "AUTHENTICATE": {all: true}, "ID": {all: true},
	"SELECT": {names: first, nested: true}, "EXAMINE": {names: first, nested: true},
	"CREATE": {names: first}, "DELETE": {names: first}, "SUBSCRIBE": {names: first}, "UNSUBSCRIBE": {names: first},
	"RENAME": {names: first | second}, "STATUS": {names: first}, "APPEND": {names: first},
	"LIST": {names: every}, "LSUB": {names: every},
	"FETCH": {numbers: every, nested: true}, "UID FETCH": {numbers: every, nested: true},
	"STORE": {numbers: first, afterKeys: true}, "UID STORE": {numbers: first, afterKeys: true},
	"COPY": {numbers: first, names: second}, "UID COPY": {numbers: first, names: second},
	"MOVE": {numbers: first, names: second}, "UID MOVE": {numbers: first, names: second},
	"UID EXPUNGE": {numbers: first},
	"SEARCH":      {numbers: first, afterKeys: true}, "UID SEARCH": {numbers: first, afterKeys: true},
}

// responses is the same for untagged responses.
var responses = map[string]redaction{
	"LIST": {names: every}, "LSUB": {names: every}, "STATUS": {names: first, nested: true},
	"SEARCH": {numbers: every, nested: true}, "ESEARCH": {numbers: every, nested: true}, "VANISHED": {numbers: every},
	"FETCH":      {nested: true},
	"CAPABILITY": {numbers: every}, "ENABLED": {}, "FLAGS": {}, "ID": {all: true}, "NAMESPACE": {all: true},
}

// textKeys are the keys of SEARCH whose arguments are the client's, and how many those
// are; numberKeys those whose argument is a number.
var (
	textKeys = map[string]int{
		"BCC": 1, "BODY": 1, "CC": 1, "FROM": 1, "HEADER": 2, "KEYWORD": 1, "SUBJECT": 1, "TEXT": 1, "TO": 1,
		"UNKEYWORD": 1, "EMAILID": 1, "THREADID": 1,
	}
	numberKeys = map[string]bool{
		"UID": true, "LARGER": true, "SMALLER": true, "OLDER": true, "YOUNGER": true, "MODSEQ": true, "UNCHANGEDSINCE": true,
	}
)

// redactor writes one line without what is its client's own affair.
type redactor struct {
	out   []byte
	rest  []byte
	rule  redaction
	arg   int // which argument comes next
	depth int // of parentheses
	texts int // arguments of a search key that are still to come
	last  string
}

// redactCommand is what may be logged of a command, or of a line that goes on with one; tag is
// the command's, if it is one.
func redactCommand(line []byte) (text, tag string) {
	line = bytes.TrimRight(line, "\r\n")
	if string(bytes.ToUpper(line)) == "DONE" {
		return "DONE", ""
	}
	tagPart, rest, _ := bytes.Cut(line, []byte{' '})
	name := string(bytes.ToUpper(firstWord(rest)))
	length := len(name)
	if name == "UID" && length < len(rest) {
		word := firstWord(rest[length+1:])
		name += " " + string(bytes.ToUpper(word))
		length += 1 + len(word)
	}
	r := redactor{rest: line}
	if _, known := commands[name]; known {
		tag = string(tagPart)
		r.out = append(append(append(r.out, tag...), ' '), name...)
		r.rest, r.rule = rest[length:], redactions[name]
	} else {
		r.rule.all = true
	}
	r.arguments()
	return string(r.out), tag
}

// redactResponse is what may be logged of a response; tag is that of the last command.
func redactResponse(line []byte, tag string) string {
	line = bytes.TrimRight(line, "\r\n")
	begin, rest, _ := bytes.Cut(line, []byte{' '})
	var r redactor
	if string(begin) == "*" || string(begin) == "+" || tag != "" && string(begin) == tag {
		r.out = append(r.out, begin...)
	} else {
		r.mask(len(begin))
	}
	r.out = append(r.out, ' ')
	word := firstWord(rest)
	if number := len(word) > 0 && isNumber(word); number && len(word) < len(rest) { // "* 5 EXISTS"
		r.out = append(append(r.out, word...), ' ')
		rest = rest[len(word)+1:]
		word = firstWord(rest)
	}
	name := string(bytes.ToUpper(word))
	rule, known := responses[name]
	switch {
	case string(begin) == "+":
		r.rule.all = true
	case name == "OK" || name == "NO" || name == "BAD" || name == "BYE" || name == "PREAUTH":
		r.out = append(r.out, name...)
		r.status(rest[len(word):])
		return string(r.out)
	case known || harmless[name]:
		r.out = append(r.out, name...)
		rest, r.rule = rest[len(word):], rule
	default:
		r.rule.all = true
	}
	r.rest = rest
	r.arguments()
	return string(r.out)
}

// status writes a response code; the text behind it may be anything.
func (r *redactor) status(rest []byte) {
	if code, text, found := bytes.Cut(rest, []byte{']'}); found && bytes.HasPrefix(rest, []byte(" [")) {
		r.rest, r.rule = code, redaction{numbers: every, nested: true}
		r.arguments()
		r.out = append(r.out, ']')
		rest = text
	}
	if len(rest) > 1 {
		r.out = append(r.out, ' ')
		r.mask(len(rest) - 1)
	}
}

// mask writes that n bytes stood here.
func (r *redactor) mask(n int) {
	r.out = append(r.out, "…"...)
	r.out = strconv.AppendInt(r.out, int64(n), 10)
}

// arguments writes the rest.
func (r *redactor) arguments() {
	if r.rule.all {
		if n := len(bytes.TrimLeft(r.rest, " ")); n > 0 {
			if len(r.out) > 0 && r.out[len(r.out)-1] != ' ' {
				r.out = append(r.out, ' ')
			}
			r.mask(n)
		}
		return
	}
	r.arg = -1
	for len(r.rest) > 0 {
		switch c := r.rest[0]; c {
		case '"':
			r.quoted()
		case '{':
			r.literal()
		case ' ', '(', ')', '[', ']', '<', '>', '~':
			r.punctuation(c)
		case '\r', '\n':
			r.rest = r.rest[1:] // behind the header of a literal
		default:
			r.word()
		}
	}
}

func (r *redactor) punctuation(c byte) {
	switch c {
	case ' ':
		if r.depth == 0 {
			r.arg++
		}
	case '(':
		r.depth++
		if r.texts > 0 {
			r.texts = 0 // that is no search key's text
		}
	case ')':
		r.depth--
	}
	r.out = append(r.out, c)
	r.rest = r.rest[1:]
}

// quoted writes the length of a quoted string; without an end it is all of the rest.
func (r *redactor) quoted() {
	n := 1
	for n < len(r.rest) && r.rest[n] != '"' {
		if r.rest[n] == '\\' {
			n++
		}
		n++
	}
	r.out = append(r.out, '"')
	r.mask(min(n, len(r.rest)) - 1)
	r.out = append(r.out, '"')
	r.rest = r.rest[min(n+1, len(r.rest)):]
	r.told("")
}

// literal writes the header of a literal.
func (r *redactor) literal() {
	header, rest, found := bytes.Cut(r.rest, []byte{'}'})
	if digits := bytes.TrimSuffix(header[1:], []byte{'+'}); found && len(digits) > 0 && isNumber(digits) {
		r.out = append(append(r.out, header...), '}')
		r.rest = rest
	} else {
		r.mask(len(r.rest))
		r.rest = nil
	}
	r.told("")
}

// told notes what the argument of a search key may follow.
func (r *redactor) told(word string) {
	if r.texts > 0 {
		r.texts--
	} else if r.rule.afterKeys {
		r.texts = textKeys[word]
	}
	r.last = word
}

// word writes a word if it is one of the protocol's and stands where those stand.
func (r *redactor) word() {
	n := bytes.IndexAny(r.rest, " ()[]<>\"{}~\r\n")
	if n < 0 {
		n = len(r.rest)
	}
	n = max(n, 1)
	word := r.rest[:n]
	r.rest = r.rest[n:]
	upper := string(bytes.ToUpper(word))
	if r.isName(upper) || r.texts > 0 || !r.isHarmless(upper) {
		r.mask(len(word))
		upper = ""
	} else {
		r.out = append(r.out, word...)
	}
	r.told(upper)
}

// isName says whether a word stands where the name of a mailbox does.
func (r *redactor) isName(upper string) bool {
	return r.depth == 0 && r.has(r.rule.names) && (r.rule.names != every || upper != "RETURN" && upper != "NIL")
}

// has says whether a set of arguments has the one that comes next.
func (r *redactor) has(set uint8) bool { return set&(1<<min(max(r.arg, 0), 7)) != 0 }

// isHarmless says whether a word and all its parts are the protocol's, or numbers where
// those are nothing else.
func (r *redactor) isHarmless(upper string) bool {
	if harmless[upper] {
		return true
	}
	numbers := r.depth == 0 && r.has(r.rule.numbers) || r.depth > 0 && r.rule.nested || r.rule.afterKeys && numberKeys[r.last]
	for part := range strings.FieldsFuncSeq(upper, func(c rune) bool { return c == '.' || c == '=' }) {
		if !harmless[part] && (!numbers || !isNumber([]byte(part))) {
			return false
		}
	}
	return true
}

// isNumber says whether a word is a number or a set of numbers.
func isNumber(word []byte) bool {
	for _, c := range word {
		if (c < '0' || c > '9') && c != ',' && c != ':' && c != '*' && c != '$' {
			return false
		}
	}
	return true
}

// firstWord is what stands before the first space.
func firstWord(line []byte) []byte {
	word, _, _ := bytes.Cut(line, []byte{' '})
	return word
}
