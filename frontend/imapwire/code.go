package imapwire

import "strconv"

// A Code is a response code with its arguments, without the brackets (RFC 9051 §7.1). The empty Code is none.
type Code string

// Response codes without arguments.
const (
	CodeAlert                Code = "ALERT"
	CodeAlreadyExists        Code = "ALREADYEXISTS"
	CodeAuthenticationFailed Code = "AUTHENTICATIONFAILED"
	CodeAuthorizationFailed  Code = "AUTHORIZATIONFAILED"
	CodeCannot               Code = "CANNOT"
	CodeClientBug            Code = "CLIENTBUG"
	CodeClosed               Code = "CLOSED"
	CodeContactAdmin         Code = "CONTACTADMIN"
	CodeCorruption           Code = "CORRUPTION"
	CodeExpired              Code = "EXPIRED"
	CodeExpungeIssued        Code = "EXPUNGEISSUED"
	CodeHasChildren          Code = "HASCHILDREN"
	CodeInUse                Code = "INUSE"
	CodeLimit                Code = "LIMIT"
	CodeNoModSeq             Code = "NOMODSEQ" // RFC 7162 §3.1.2.2
	CodeNonExistent          Code = "NONEXISTENT"
	CodeNoPerm               Code = "NOPERM"
	CodeNotSaved             Code = "NOTSAVED" // RFC 5182 §2.1
	CodeOverQuota            Code = "OVERQUOTA"
	CodeParse                Code = "PARSE"
	CodePrivacyRequired      Code = "PRIVACYREQUIRED"
	CodeReadOnly             Code = "READ-ONLY"
	CodeReadWrite            Code = "READ-WRITE"
	CodeServerBug            Code = "SERVERBUG"
	CodeTooBig               Code = "TOOBIG" // RFC 7889
	CodeTryCreate            Code = "TRYCREATE"
	CodeUIDNotSticky         Code = "UIDNOTSTICKY"
	CodeUnavailable          Code = "UNAVAILABLE"
	CodeUnknownCTE           Code = "UNKNOWN-CTE" // RFC 3516 §4.3
	CodeUseAttr              Code = "USEATTR"     // RFC 6154 §3
)

// CodeAppendUID is APPENDUID: the UIDs of what APPEND added (RFC 4315 §3).
func CodeAppendUID(uidValidity uint32, uids NumSet) Code {
	return Code(uids.AppendTo(appendCode("APPENDUID ", uint64(uidValidity), " ")))
}

// CodeCopyUID is COPYUID. The sets pair in ascending order (RFC 4315 §3).
func CodeCopyUID(uidValidity uint32, from, to NumSet) Code {
	b := from.AppendTo(appendCode("COPYUID ", uint64(uidValidity), " "))
	return Code(to.AppendTo(append(b, ' ')))
}

// CodeModified is MODIFIED: what STORE left alone for UNCHANGEDSINCE (RFC 7162 §3.1.3).
func CodeModified(nums NumSet) Code { return Code(nums.AppendTo([]byte("MODIFIED "))) }

// CodeHighestModSeq is HIGHESTMODSEQ (RFC 7162 §3.1.2.1).
func CodeHighestModSeq(modSeq uint64) Code { return Code(appendCode("HIGHESTMODSEQ ", modSeq, "")) }

// CodeUIDNext is UIDNEXT.
func CodeUIDNext(uid uint32) Code { return Code(appendCode("UIDNEXT ", uint64(uid), "")) }

// CodeUIDValidity is UIDVALIDITY.
func CodeUIDValidity(uidValidity uint32) Code {
	return Code(appendCode("UIDVALIDITY ", uint64(uidValidity), ""))
}

// CodeUnseen is UNSEEN: the number of the first message without \Seen (RFC 3501 §7.1).
func CodeUnseen(seq uint32) Code { return Code(appendCode("UNSEEN ", uint64(seq), "")) }

// CodePermanentFlags is PERMANENTFLAGS.
func CodePermanentFlags(flags []string) Code {
	return Code(appendAtoms([]byte("PERMANENTFLAGS ("), flags)) + ")"
}

// CodeCapability is CAPABILITY.
func CodeCapability(names []string) Code { return Code(appendAtoms([]byte("CAPABILITY "), names)) }

// CodeMailboxID is MAILBOXID (RFC 8474 §4).
func CodeMailboxID(id string) Code { return Code("MAILBOXID (" + id + ")") }

// CodeBadCharset is BADCHARSET, with the charsets that can be used.
func CodeBadCharset(charsets ...string) Code {
	if len(charsets) == 0 {
		return "BADCHARSET"
	}
	return Code(appendAtoms([]byte("BADCHARSET ("), charsets)) + ")"
}

func appendCode(name string, n uint64, after string) []byte {
	b := strconv.AppendUint([]byte(name), n, 10)
	return append(b, after...)
}

func appendAtoms(b []byte, atoms []string) []byte {
	for i, atom := range atoms {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(b, atom...)
	}
	return b
}
