package imapwire

// Classes of bytes, as bits of the classes table (RFC 9051 §9).
const (
	classAtom    uint8 = 1 << iota // ATOM-CHAR
	classAString                   // ASTRING-CHAR
	classTag                       // ASTRING-CHAR except "+"
	classList                      // list-char
	classDigit                     // DIGIT
	classQuoted                    // what stands for itself in a quoted string, 8-bit bytes included
	classItem                      // names of FETCH and STATUS items: letters, digits, ".", "-", "_"
	classBase64                    // base64-char and "="
)

var classes = makeClasses()

func makeClasses() (t [256]uint8) {
	for i := range t {
		c := byte(i)
		if c != 0 && c != '\r' && c != '\n' && c != '"' && c != '\\' {
			t[i] |= classQuoted
		}
		if c <= ' ' || c >= 0x7f {
			continue
		}
		switch c {
		case '(', ')', '{', '"', '\\':
		case '%', '*':
			t[i] |= classList
		case ']':
			t[i] |= classAString | classTag | classList
		case '+':
			t[i] |= classAtom | classAString | classList | classBase64
		default:
			t[i] |= classAtom | classAString | classTag | classList
		}
		digit := c >= '0' && c <= '9'
		letter := c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if digit {
			t[i] |= classDigit
		}
		if digit || letter || c == '.' || c == '-' || c == '_' {
			t[i] |= classItem
		}
		if digit || letter || c == '/' || c == '=' {
			t[i] |= classBase64
		}
	}
	return t
}

// upper is the capital of an ASCII letter, and any other byte as it is.
func upper(c byte) byte {
	if c >= 'a' && c <= 'z' {
		return c - 'a' + 'A'
	}
	return c
}

// upperBytes makes the ASCII letters of b capitals, in place.
func upperBytes(b []byte) {
	for i, c := range b {
		b[i] = upper(c)
	}
}

// equalFold reports whether s is the capital letters of want, whatever the case of its ASCII letters.
func equalFold(s, want string) bool {
	if len(s) != len(want) {
		return false
	}
	for i := range len(s) {
		if upper(s[i]) != want[i] {
			return false
		}
	}
	return true
}
