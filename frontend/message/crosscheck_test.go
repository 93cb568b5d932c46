package message

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	gomessage "github.com/emersion/go-message"
)

// leaves returns the media types of the parts that are no multipart, as go-message reads
// them, which does not look into message/rfc822.
func leaves(e *gomessage.Entity, out []string) ([]string, error) {
	mr := e.MultipartReader()
	if mr == nil {
		typ, _, err := e.Header.ContentType()
		return append(out, strings.ToLower(typ)), err
	}
	n := 0
	for {
		part, err := mr.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !gomessage.IsUnknownCharset(err) && !gomessage.IsUnknownEncoding(err) {
			return out, err
		}
		n++
		if out, err = leaves(part, out); err != nil {
			return out, err
		}
	}
	if n == 0 {
		return out, errors.New("multipart without parts")
	}
	return out, nil
}

func ourLeaves(s *Summary, i int, out []string) []string {
	p := &s.Parts[i]
	if !p.IsMultipart() {
		return append(out, strings.ToLower(string(p.Type)+"/"+string(p.Subtype)))
	}
	for c := s.FirstChild(i); c >= 0; c = s.Parts[c].Next {
		out = ourLeaves(s, c, out)
	}
	return out
}

// Mails that go-message reads without an error have the same parts here.
func TestStructureAsGoMessage(t *testing.T) {
	t.Parallel()
	same := 0
	for _, path := range corpus(t) {
		b := readFile(t, path)
		e, err := gomessage.Read(bytes.NewReader(b))
		if err != nil && !gomessage.IsUnknownCharset(err) && !gomessage.IsUnknownEncoding(err) {
			continue
		}
		want, err := leaves(e, nil)
		if err != nil {
			continue
		}
		s := parse(b)
		got := ourLeaves(s, 0, nil)
		if bytes.Contains(b, []byte("multipart/digest")) || strings.Contains(strings.Join(want, " ")+" ", "text ") || strings.Contains(strings.Join(want, " "), "application-") {
			continue // it does not know of digests and takes what is no type for one
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s: parts %v, go-message has %v", filepath.Base(path), got, want)
		}
		same++
	}
	if same < 1300 {
		t.Errorf("compared %d mails only", same)
	}
}
