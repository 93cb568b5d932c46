package imapwire

// Names of STATUS items (status-att, RFC 9051 §6.3.11).
const (
	StatusMessages       = "MESSAGES"
	StatusUIDNext        = "UIDNEXT"
	StatusUIDValidity    = "UIDVALIDITY"
	StatusUnseen         = "UNSEEN"
	StatusDeleted        = "DELETED"
	StatusSize           = "SIZE"            // also RFC 8438
	StatusRecent         = "RECENT"          // RFC 3501 §6.3.10
	StatusHighestModSeq  = "HIGHESTMODSEQ"   // RFC 7162 §3.1.7
	StatusMailboxID      = "MAILBOXID"       // RFC 8474 §4.3
	StatusAppendLimit    = "APPENDLIMIT"     // RFC 7889
	StatusDeletedStorage = "DELETED-STORAGE" // RFC 9208 §5.1
)

var statusItems = map[string]bool{
	StatusMessages: true, StatusUIDNext: true, StatusUIDValidity: true, StatusUnseen: true,
	StatusDeleted: true, StatusSize: true, StatusRecent: true, StatusHighestModSeq: true,
	StatusMailboxID: true, StatusAppendLimit: true, StatusDeletedStorage: true,
}

// StatusItems reads the items of STATUS, in parentheses. Each is one of the Status constants; the order is the client's.
func (d *Decoder) StatusItems() []string {
	var items []string
	d.NonEmptyList(func() {
		name := d.itemName("a STATUS item")
		if !statusItems[name] {
			d.Fail("unknown STATUS item")
		}
		items = append(items, name)
	})
	return items
}
