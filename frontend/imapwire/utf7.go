package imapwire

import (
	"errors"
	"unicode/utf16"
	"unicode/utf8"
)

var errUTF7 = errors.New("invalid modified UTF-7")

const base64Digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,"

var base64Values = makeBase64Values()

// makeBase64Values maps the digits of modified base64 to their values, and other bytes to 255.
func makeBase64Values() (t [256]uint8) {
	for i := range t {
		t[i] = 255
	}
	for i := range len(base64Digits) {
		t[base64Digits[i]] = uint8(i)
	}
	return t
}

// AppendUTF7 appends s, which is UTF-8, in the modified UTF-7 of mailbox names (RFC 3501 §5.1.3). Bytes that are not
// UTF-8 become U+FFFD.
func AppendUTF7(b []byte, s string) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '&':
			b = append(b, "&-"...)
			i++
		case c >= 0x20 && c <= 0x7e:
			b = append(b, c)
			i++
		default:
			n := shiftedLen(s[i:])
			b = appendShifted(b, s[i:i+n])
			i += n
		}
	}
	return b
}

// shiftedLen is how many bytes of s, from its start, cannot stand for themselves.
func shiftedLen(s string) int {
	for i := range len(s) {
		if s[i] >= 0x20 && s[i] <= 0x7e {
			return i
		}
	}
	return len(s)
}

// appendShifted appends "&", s as base64 of UTF-16, and "-".
func appendShifted(b []byte, s string) []byte {
	b = append(b, '&')
	var bits uint32
	n := 0
	put := func(u uint16) {
		bits = bits<<16 | uint32(u)
		for n += 16; n >= 6; {
			n -= 6
			b = append(b, base64Digits[bits>>n&0x3f])
		}
	}
	for _, r := range s {
		if r1, r2 := utf16.EncodeRune(r); r1 != utf8.RuneError {
			put(uint16(r1))
			put(uint16(r2))
		} else {
			put(uint16(r))
		}
	}
	if n > 0 {
		b = append(b, base64Digits[bits<<(6-n)&0x3f])
	}
	return append(b, '-')
}

// DecodeUTF7 decodes a mailbox name from modified UTF-7 (RFC 3501 §5.1.3). Each name has one encoding, and any other
// is an error: 8-bit and control characters, printable ASCII in base64, two shifts in a row, surrogates without their half,
// bits left over.
func DecodeUTF7(s string) (string, error) {
	if isPlainUTF7(s) {
		return s, nil
	}
	out := make([]byte, 0, len(s))
	shifted := -1 // where the last shift sequence ended
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c < 0x20 || c > 0x7e:
			return "", errUTF7
		case c != '&':
			out = append(out, c)
			i++
		case i+1 < len(s) && s[i+1] == '-':
			out = append(out, '&')
			i += 2
		case shifted == i:
			return "", errUTF7
		default:
			var n int
			var err error
			if out, n, err = unshift(out, s[i+1:]); err != nil {
				return "", err
			}
			i += 1 + n
			shifted = i
		}
	}
	return string(out), nil
}

func isPlainUTF7(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e || s[i] == '&' {
			return false
		}
	}
	return true
}

// unshift appends to out what the base64 up to "-" at the start of s says, and returns how long it is, "-" included.
func unshift(out []byte, s string) ([]byte, int, error) {
	var bits uint32
	n := 0
	high := rune(0) // a first surrogate that waits for its second
	for i := range len(s) {
		if s[i] == '-' {
			// At most five bits may be left over, all of them 0.
			if n >= 6 || bits&(1<<n-1) != 0 || high != 0 {
				return nil, 0, errUTF7
			}
			return out, i + 1, nil
		}
		v := base64Values[s[i]]
		if v == 255 {
			return nil, 0, errUTF7
		}
		bits = bits<<6 | uint32(v)
		if n += 6; n < 16 {
			continue
		}
		n -= 16
		r := rune(bits >> n & 0xffff)
		switch {
		case high != 0:
			if r = utf16.DecodeRune(high, r); r == utf8.RuneError {
				return nil, 0, errUTF7
			}
			high = 0
		case r >= 0xd800 && r <= 0xdbff:
			high = r
			continue
		case r >= 0xdc00 && r <= 0xdfff || r == 0 || r >= 0x20 && r <= 0x7e:
			return nil, 0, errUTF7
		}
		out = utf8.AppendRune(out, r)
	}
	return nil, 0, errUTF7
}
