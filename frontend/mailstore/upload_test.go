package mailstore

import (
	"bytes"
	"testing"

	"starling/metadata"
)

// body is what BODY[] of a message returns.
func body(t testing.TB, m *client, uid uint32) string {
	t.Helper()
	var text string
	err := m.Messages(t.Context(), one(uid), metadata.ColBlob|metadata.ColSize, func(row *metadata.Message) error {
		b, err := m.Body(row)
		if err != nil {
			return err
		}
		defer b.Close()
		if b.Size() != row.Size {
			t.Errorf("message %d has %d octets, its row says %d", uid, b.Size(), row.Size)
		}
		var buf bytes.Buffer
		if err := b.ReadRange(t.Context(), &buf, 0, b.Size()); err != nil {
			return err
		}
		text = buf.String()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}
