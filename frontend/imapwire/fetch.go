package imapwire

// Names of FETCH items as FetchItem.Name has them (fetch-att, RFC 9051 §6.4.5, §9).
const (
	ItemFlags         = "FLAGS"
	ItemUID           = "UID"
	ItemInternalDate  = "INTERNALDATE"
	ItemEnvelope      = "ENVELOPE"
	ItemBodyStructure = "BODYSTRUCTURE"
	ItemBody          = "BODY"          // the structure without extension data
	ItemSection       = "BODY[]"        // BODY[…] and BODY.PEEK[…], with Section
	ItemBinary        = "BINARY[]"      // BINARY[…] and BINARY.PEEK[…] (RFC 3516 §4.2)
	ItemBinarySize    = "BINARY.SIZE[]" // BINARY.SIZE[…] (RFC 3516 §4.2)
	ItemRFC822        = "RFC822"        // RFC 3501 §6.4.5, as are the next two
	ItemRFC822Header  = "RFC822.HEADER"
	ItemRFC822Text    = "RFC822.TEXT"
	ItemRFC822Size    = "RFC822.SIZE"
	ItemModSeq        = "MODSEQ"   // RFC 7162 §3.1.4.2
	ItemEmailID       = "EMAILID"  // RFC 8474 §5.1
	ItemThreadID      = "THREADID" // RFC 8474 §5.2
	ItemSaveDate      = "SAVEDATE" // RFC 8514 §4
)

// A FetchItem is one thing that FETCH asks for.
type FetchItem struct {
	Name       string // one of the Item constants
	Peek       bool   // BODY.PEEK and BINARY.PEEK: \Seen stays as it is
	Section    Section
	Partial    Partial
	HasPartial bool
}

// A Section is what stands between the brackets of BODY[…] (section-spec, RFC 9051 §6.4.5).
type Section struct {
	Part []uint32 // numbers of the part, from the outermost; empty for the whole message
	Text string   // "", "HEADER", "HEADER.FIELDS", "HEADER.FIELDS.NOT", "TEXT" or "MIME"
	// Fields are the names of HEADER.FIELDS and HEADER.FIELDS.NOT, as sent.
	Fields []string
}

// A Partial is a range of bytes, <Offset.Count>; Count is at least 1. The response repeats the offset.
type Partial struct{ Offset, Count int64 }

// FetchArgs is what follows the set of FETCH and UID FETCH: the items and the modifiers (RFC 9051 §6.4.5, RFC 4466 §2.4).
type FetchArgs struct {
	Items           []FetchItem // macros are replaced by their items
	HasChangedSince bool
	ChangedSince    uint64 // RFC 7162 §3.1.4.1
	Vanished        bool   // RFC 7162 §3.2.6; allowed with UID FETCH and CHANGEDSINCE only, which the caller checks
}

// fetchItems has a row for each name: what reads the rest of the item, nil where nothing follows.
var fetchItems = map[string]func(*Decoder, *FetchItem){
	ItemFlags:         nil,
	ItemUID:           nil,
	ItemInternalDate:  nil,
	ItemEnvelope:      nil,
	ItemBodyStructure: nil,
	ItemBody:          fetchBody,
	"BODY.PEEK":       fetchBodyPeek,
	"BINARY":          fetchBinary,
	"BINARY.PEEK":     fetchBinaryPeek,
	"BINARY.SIZE":     fetchBinarySize,
	ItemRFC822:        nil,
	ItemRFC822Header:  nil,
	ItemRFC822Text:    nil,
	ItemRFC822Size:    nil,
	ItemModSeq:        nil,
	ItemEmailID:       nil,
	ItemThreadID:      nil,
	ItemSaveDate:      nil,
}

// fetchMacros stand alone, outside of parentheses (RFC 9051 §6.4.5).
var fetchMacros = map[string][]string{
	"ALL":  {ItemFlags, ItemInternalDate, ItemRFC822Size, ItemEnvelope},
	"FAST": {ItemFlags, ItemInternalDate, ItemRFC822Size},
	"FULL": {ItemFlags, ItemInternalDate, ItemRFC822Size, ItemEnvelope, ItemBody},
}

// fetchModifiers has a row for each modifier (RFC 4466 §2.4).
var fetchModifiers = map[string]func(*Decoder, *FetchArgs){
	"CHANGEDSINCE": func(d *Decoder, a *FetchArgs) {
		d.SP()
		a.ChangedSince, a.HasChangedSince = d.ModSeq(), true
	},
	"VANISHED": func(_ *Decoder, a *FetchArgs) { a.Vanished = true },
}

// maxFetchItems is how many items one command may have: enough for the header, the body and the size of each part of the
// largest message.
const maxFetchItems = 2000

// FetchArgs reads the items and the modifiers, from after the space that follows the set.
func (d *Decoder) FetchArgs() FetchArgs {
	var a FetchArgs
	if d.Peek() == '(' {
		d.NonEmptyList(func() {
			if len(a.Items) == maxFetchItems {
				d.fail(&SyntaxError{Message: "too many FETCH items", TooBig: true})
				return
			}
			a.Items = append(a.Items, d.fetchItem(d.itemName("a FETCH item")))
		})
	} else {
		name := d.itemName("a FETCH item")
		if macro, ok := fetchMacros[name]; ok {
			for _, item := range macro {
				a.Items = append(a.Items, FetchItem{Name: item})
			}
		} else {
			a.Items = append(a.Items, d.fetchItem(name))
		}
	}
	if d.TrySP() {
		d.NonEmptyList(func() {
			name := d.Keyword()
			if read, ok := fetchModifiers[name]; ok {
				read(d, &a)
			} else {
				d.Fail("unknown FETCH modifier")
			}
		})
	}
	return a
}

func (d *Decoder) fetchItem(name string) FetchItem {
	item := FetchItem{Name: name}
	read, ok := fetchItems[name]
	if !ok {
		d.Fail("unknown FETCH item")
	}
	if read != nil {
		read(d, &item)
	}
	return item
}

func fetchBody(d *Decoder, item *FetchItem) {
	if d.Peek() != '[' {
		return
	}
	item.Name = ItemSection
	item.Section = d.Section()
	d.partial(item)
}

func fetchBodyPeek(d *Decoder, item *FetchItem) {
	item.Name, item.Peek = ItemSection, true
	item.Section = d.Section()
	d.partial(item)
}

func fetchBinary(d *Decoder, item *FetchItem) {
	item.Name = ItemBinary
	item.Section = d.sectionBinary()
	d.partial(item)
}

func fetchBinaryPeek(d *Decoder, item *FetchItem) {
	fetchBinary(d, item)
	item.Peek = true
}

func fetchBinarySize(d *Decoder, item *FetchItem) {
	item.Name = ItemBinarySize
	item.Section = d.sectionBinary()
}

// partial reads "<" number64 "." nz-number64 ">" if it comes next.
func (d *Decoder) partial(item *FetchItem) {
	if !d.TryByte('<') {
		return
	}
	item.Partial.Offset = d.Number64()
	d.Byte('.')
	item.Partial.Count = d.Number64()
	if item.Partial.Count == 0 {
		d.Fail("expected a count that is not 0")
	}
	d.Byte('>')
	item.HasPartial = true
}

// Section reads what BODY is followed by, brackets included (section, RFC 9051 §9).
func (d *Decoder) Section() Section {
	d.Byte('[')
	s := Section{Part: d.sectionPart()}
	if c := d.Peek(); c != ']' {
		s.Text = d.itemName("the name of a section")
	}
	switch s.Text {
	case "", "HEADER", "TEXT":
	case "HEADER.FIELDS", "HEADER.FIELDS.NOT":
		d.SP()
		d.NonEmptyList(func() { s.Fields = append(s.Fields, d.AString()) })
	case "MIME":
		if len(s.Part) == 0 {
			d.Fail("MIME is a section of a part only")
		}
	default:
		d.Fail("unknown section")
	}
	d.Byte(']')
	return s
}

// sectionPart reads the numbers of a part and the "." before a name that follows them.
func (d *Decoder) sectionPart() []uint32 {
	var part []uint32
	for d.err == nil {
		if c := d.Peek(); c < '0' || c > '9' {
			if len(part) > 0 && c == ']' {
				d.expected("a number or the name of a section")
			}
			return part
		}
		part = append(part, d.NZNumber())
		if !d.TryByte('.') {
			if d.Peek() != ']' {
				d.expected("']'")
			}
			return part
		}
	}
	return nil
}

// sectionBinary reads "[" [section-part] "]".
func (d *Decoder) sectionBinary() Section {
	d.Byte('[')
	s := Section{Part: d.sectionPart()}
	d.Byte(']')
	return s
}
