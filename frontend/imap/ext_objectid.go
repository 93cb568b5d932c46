package imap

import (
	"strconv"

	"starling/metadata"
)

// Object identifiers (RFC 8474): a letter that says of what kind, so that none is
// equal to one of another kind, and the number in base 36. An account's number is
// unique in the cluster, and a mailbox's in its account.

func mailboxID(account metadata.AccountID, id metadata.MailboxID) string {
	return "F" + strconv.FormatInt(int64(account), 36) + "-" + strconv.FormatInt(int64(id), 36)
}

func emailID(id int64) string { return "M" + strconv.FormatInt(id, 36) }

func threadID(id int64) string { return "T" + strconv.FormatInt(id, 36) }

// parseObjectID is the number in what write makes of it. Anything else, which no
// message can have, is not ok.
func parseObjectID(text string, write func(int64) string) (id int64, ok bool) {
	if text == "" {
		return 0, false
	}
	id, err := strconv.ParseInt(text[1:], 36, 64)
	return id, err == nil && id != 0 && write(id) == text
}
