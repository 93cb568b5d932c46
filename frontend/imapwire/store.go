package imapwire

// A StoreOp says what STORE does with its flags.
type StoreOp uint8

// What STORE does (RFC 9051 §6.4.6).
const (
	StoreReplace StoreOp = iota // FLAGS
	StoreAdd                    // +FLAGS
	StoreRemove                 // -FLAGS
)

// StoreArgs is what follows the set of STORE and UID STORE (RFC 9051 §6.4.6).
type StoreArgs struct {
	Op                StoreOp
	Silent            bool // .SILENT
	Flags             []string
	HasUnchangedSince bool
	UnchangedSince    uint64 // RFC 7162 §3.1.3; may be 0
}

// storeModifiers has a row for each modifier (RFC 4466 §2.5).
var storeModifiers = map[string]func(*Decoder, *StoreArgs){
	"UNCHANGEDSINCE": func(d *Decoder, a *StoreArgs) {
		d.SP()
		a.UnchangedSince, a.HasUnchangedSince = d.ModSeq(), true
	},
}

// storeItems maps the names to what they do.
var storeItems = map[string]StoreArgs{
	"FLAGS":         {Op: StoreReplace},
	"FLAGS.SILENT":  {Op: StoreReplace, Silent: true},
	"+FLAGS":        {Op: StoreAdd},
	"+FLAGS.SILENT": {Op: StoreAdd, Silent: true},
	"-FLAGS":        {Op: StoreRemove},
	"-FLAGS.SILENT": {Op: StoreRemove, Silent: true},
}

// StoreArgs reads the modifiers, the item and the flags, from after the space that follows the set.
func (d *Decoder) StoreArgs() StoreArgs {
	var a StoreArgs
	if d.Peek() == '(' {
		d.NonEmptyList(func() {
			if read, ok := storeModifiers[d.Keyword()]; ok {
				read(d, &a)
			} else {
				d.Fail("unknown STORE modifier")
			}
		})
		d.SP()
	}
	item, ok := storeItems[d.Keyword()]
	if !ok {
		d.Fail("expected FLAGS, +FLAGS or -FLAGS")
	}
	a.Op, a.Silent = item.Op, item.Silent
	d.SP()
	if d.Peek() == '(' {
		a.Flags = d.FlagList()
		return a
	}
	a.Flags = []string{d.Flag()}
	for d.TrySP() {
		a.Flags = append(a.Flags, d.Flag())
	}
	return a
}
