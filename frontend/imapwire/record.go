package imapwire

// maxRecord is how many bytes of a command are recorded.
const maxRecord = 64 << 10

// record keeps what the client sends, but for the bytes of its literals.
type record struct {
	on   bool
	text []byte
	mark int // where what is consumed of the buffer and not in text begins
}

// Record begins to keep what is decoded from here on, or ends that.
func (d *Decoder) Record(on bool) { d.record = record{on: on, mark: d.pos} }

// Recorded is what was decoded or skipped since it was called last: lines with their
// ends and the headers of literals, without the bytes of literals, up to 64 KiB. It is
// valid until the next call of any method.
func (d *Decoder) Recorded() []byte {
	d.keepRecord()
	text := d.record.text
	d.record.text = text[:0]
	return text
}

// keepRecord records what was consumed up to here. It is called before the buffer
// is filled anew or given back, and before and after something that is not recorded
// is consumed.
func (d *Decoder) keepRecord() {
	r := &d.record
	if r.on && d.buf != nil {
		b := d.buf[r.mark:d.pos]
		r.text = append(r.text, b[:min(len(b), maxRecord-len(r.text))]...)
	}
	r.mark = d.pos
}
