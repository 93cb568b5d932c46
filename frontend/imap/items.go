package imap

import (
	"context"

	"starling/frontend/imapwire"
	mail "starling/frontend/message"
	"starling/metadata"
)

// fetchItem is a row of the table of FETCH items. An item is written either from
// the view and the message's row (write), or from its bytes too (locate, answer).
type fetchItem struct {
	needs   metadata.Columns // what of the message's row the item looks at
	enables extensions       // what asking for it shows that the client knows
	seen    bool             // sets \Seen, unless PEEK was asked for

	// write appends the item to the FETCH that has begun.
	write func(f *fetch, m *fetched)

	// locate finds out, without reading the message, where the answer is.
	locate func(a *asked, m *fetched) piece
	// answer writes the item once it can be sure of its first bytes. It calls
	// fetch.upTo before it writes; if it never did, its error left nothing behind.
	answer func(ctx context.Context, f *fetch, i int) error
}

const (
	needsRow   = metadata.ColSize | metadata.ColBlob // to find the message's bytes
	needsParts = needsRow | metadata.ColSummary      // and its parts among them
)

// fetchItems is the table of all items of FETCH (RFC 9051 §6.4.5), by name.
var fetchItems = map[string]fetchItem{
	imapwire.ItemUID:   {write: writeUID},
	imapwire.ItemFlags: {write: writeFlagsItem},

	imapwire.ItemInternalDate:  {needs: metadata.ColDates, write: writeInternalDate},
	imapwire.ItemRFC822Size:    {needs: metadata.ColSize, write: writeSize},
	imapwire.ItemEnvelope:      {needs: metadata.ColSummary, write: writeEnvelopeItem},
	imapwire.ItemBody:          {needs: metadata.ColSummary, write: writeBodyItem},
	imapwire.ItemBodyStructure: {needs: metadata.ColSummary, write: writeBodyStructureItem},

	imapwire.ItemSection:      {needs: needsParts, seen: true, locate: locateSection, answer: answerSection},
	imapwire.ItemRFC822:       {needs: needsRow, seen: true, locate: locateSection, answer: answerSection}, // RFC 3501 §6.4.5
	imapwire.ItemRFC822Header: {needs: needsParts, locate: locateSection, answer: answerSection},
	imapwire.ItemRFC822Text:   {needs: needsParts, seen: true, locate: locateSection, answer: answerSection},
	imapwire.ItemBinary:       {needs: needsParts, seen: true, locate: locateBinary, answer: answerBinary},
	imapwire.ItemBinarySize:   {needs: needsParts, locate: locateBinary, answer: answerBinarySize},

	imapwire.ItemModSeq:   {enables: condStore, write: writeModSeqItem},
	imapwire.ItemEmailID:  {needs: metadata.ColIDs, write: writeEmailID},
	imapwire.ItemThreadID: {needs: metadata.ColIDs, write: writeThreadID},
	imapwire.ItemSaveDate: {needs: metadata.ColDates, write: writeSaveDate},
}

// asked is an item that a command asks for, made ready to be answered for many messages.
type asked struct {
	imapwire.FetchItem
	fetchItem
	section mail.Section
	fields  *mail.FieldNames // of HEADER.FIELDS and HEADER.FIELDS.NOT
}

// specifiers is what the texts of a section mean.
var specifiers = map[string]mail.Specifier{
	"":                  mail.Whole,
	"HEADER":            mail.Header,
	"HEADER.FIELDS":     mail.HeaderFields,
	"HEADER.FIELDS.NOT": mail.HeaderFieldsNot,
	"TEXT":              mail.Text,
	"MIME":              mail.MIME,
}

// ask makes an item ready.
func ask(item imapwire.FetchItem) asked {
	a := asked{FetchItem: item, fetchItem: fetchItems[item.Name]}
	switch item.Name {
	case imapwire.ItemRFC822Header:
		a.section.Specifier = mail.Header
	case imapwire.ItemRFC822Text:
		a.section.Specifier = mail.Text
	default:
		a.section.Specifier = specifiers[item.Section.Text]
	}
	for _, n := range item.Section.Part {
		a.section.Path = append(a.section.Path, int(min(n, 1<<30))) // no message has so many parts
	}
	if len(item.Section.Fields) > 0 {
		names := make([][]byte, len(item.Section.Fields))
		for i, name := range item.Section.Fields {
			names[i] = []byte(name)
		}
		a.fields = mail.NewFieldNames(names)
	}
	if item.Name == imapwire.ItemSection && a.whole() {
		a.needs = needsRow
	}
	return a
}

// whole says that the item is the whole message.
func (a *asked) whole() bool { return len(a.section.Path) == 0 && a.section.Specifier == mail.Whole }

// marks says that answering the item sets \Seen.
func (a *asked) marks() bool { return a.seen && !a.Peek }

// writeName appends the name with which the answer begins, and a space.
func (a *asked) writeName(e *imapwire.Encoder) *imapwire.Encoder {
	switch a.Name {
	case imapwire.ItemSection, imapwire.ItemBinary, imapwire.ItemBinarySize:
		e.FetchSection(&a.FetchItem)
	default:
		e.Item(a.Name)
	}
	return e.SP()
}
