package imap

import (
	"starling/frontend/imapwire"
	"starling/metadata"
)

// searchKey is a row of the table of SEARCH keys.
type searchKey struct {
	// needs is what of a message's row the key looks at: nothing, if its slot is enough;
	// ColBlob, if the message itself may have to be read.
	needs metadata.Columns
	// match makes the key's matcher. Its errors are the client's.
	match func(*searchPlan, *imapwire.SearchKey) (matcher, error)
}

// matcher says whether a key fits a message, or that not enough was read to know.
type matcher func(*candidate) verdict

const (
	needsHeader = metadata.ColSummary | metadata.ColBlob
	needsText   = metadata.ColSummary | metadata.ColBlob
)

// searchKeys is the table of all keys of SEARCH that hold no others, by name
// (RFC 9051 §6.4.4).
var searchKeys = map[string]searchKey{
	"ALL":               {0, always},
	imapwire.KeySet:     {0, inSet(bySeq)},
	"UID":               {0, inSet(byUID)},
	"ANSWERED":          {0, hasFlag(metadata.Answered)},
	"DELETED":           {0, hasFlag(metadata.Deleted)},
	"DRAFT":             {0, hasFlag(metadata.Draft)},
	"FLAGGED":           {0, hasFlag(metadata.Flagged)},
	"SEEN":              {0, hasFlag(metadata.Seen)},
	"UNANSWERED":        {0, lacksFlag(metadata.Answered)},
	"UNDELETED":         {0, lacksFlag(metadata.Deleted)},
	"UNDRAFT":           {0, lacksFlag(metadata.Draft)},
	"UNFLAGGED":         {0, lacksFlag(metadata.Flagged)},
	"UNSEEN":            {0, lacksFlag(metadata.Seen)},
	"KEYWORD":           {0, hasKeyword},
	"UNKEYWORD":         {0, lacksKeyword},
	"MODSEQ":            {0, sinceModSeq}, // RFC 7162 §3.1.5
	"RECENT":            {0, isRecent},    // RFC 3501 §6.4.4, as are the next two
	"NEW":               {0, isNew},
	"OLD":               {0, isOld},
	"SAVEDATESUPPORTED": {0, always}, // RFC 8514 §4.3

	"BEFORE":      {metadata.ColDates, byDay(internalDay, before)},
	"ON":          {metadata.ColDates, byDay(internalDay, on)},
	"SINCE":       {metadata.ColDates, byDay(internalDay, since)},
	"SAVEDBEFORE": {metadata.ColDates, byDay(savedDay, before)}, // RFC 8514 §4.3
	"SAVEDON":     {metadata.ColDates, byDay(savedDay, on)},
	"SAVEDSINCE":  {metadata.ColDates, byDay(savedDay, since)},
	"OLDER":       {metadata.ColDates, olderThan}, // RFC 5032 §3
	"YOUNGER":     {metadata.ColDates, youngerThan},
	"LARGER":      {metadata.ColSize, largerThan},
	"SMALLER":     {metadata.ColSize, smallerThan},
	"EMAILID":     {metadata.ColIDs, hasEmailID}, // RFC 8474 §6
	"THREADID":    {metadata.ColIDs, hasThreadID},

	"SENTBEFORE": {metadata.ColSummary, bySentDay(before)},
	"SENTON":     {metadata.ColSummary, bySentDay(on)},
	"SENTSINCE":  {metadata.ColSummary, bySentDay(since)},
	"BCC":        {needsHeader, inField("Bcc")},
	"CC":         {needsHeader, inField("Cc")},
	"FROM":       {needsHeader, inField("From")},
	"SUBJECT":    {needsHeader, inField("Subject")},
	"TO":         {needsHeader, inField("To")},
	"HEADER":     {needsHeader, inHeader},
	"BODY":       {needsText, inBody},
	"TEXT":       {needsText, inText},
}

func always(*searchPlan, *imapwire.SearchKey) (matcher, error) {
	return func(*candidate) verdict { return yes }, nil
}
