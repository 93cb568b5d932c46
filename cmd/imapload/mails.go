package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// made is how many messages are made up when there is no corpus.
const made = 200

// loadMails reads the corpus, with the line ends of mail, or makes messages up.
// Messages that not every server takes as they are stay out: with NUL, a lone CR or
// no header.
func loadMails(cfg *config) ([][]byte, error) {
	if cfg.corpus == "" {
		random := rand.New(rand.NewPCG(cfg.seed, 0))
		mails := make([][]byte, made)
		for i := range mails {
			mails[i] = makeMail(random, i)
		}
		return mails, nil
	}
	files, err := filepath.Glob(filepath.Join(cfg.corpus, "*.eml"))
	if err != nil {
		return nil, fmt.Errorf("corpus: %w", err)
	}
	slices.Sort(files)
	var mails [][]byte
	for _, file := range files {
		text, err := os.ReadFile(file) //nolint:gosec // the folder is the user's own
		if err != nil {
			return nil, fmt.Errorf("corpus: %w", err)
		}
		text = bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
		lone := bytes.Count(text, []byte("\r")) != bytes.Count(text, []byte("\r\n"))
		if len(text) > 0 && !lone && bytes.IndexByte(text, 0) < 0 && bytes.Contains(text, []byte("\r\n\r\n")) {
			mails = append(mails, append(bytes.TrimRight(text, "\r\n"), "\r\n"...))
		}
	}
	if len(mails) == 0 {
		return nil, errors.New("corpus: no message can be used")
	}
	return mails, nil
}

// describe says which messages were sent: runs with the same can be compared.
func describe(mails [][]byte) string {
	h := sha256.New()
	size := 0
	for _, m := range mails {
		h.Write(m)
		size += len(m)
	}
	return fmt.Sprintf("%d messages, %d octets on average, %x", len(mails), size/len(mails), h.Sum(nil)[:8])
}

var words = strings.Fields(`about account after answer before budget budgets call change client cluster contract
	customer date delivery document draft email estimate evening example file final forward friday group invoice
	letter list meeting message minutes monday morning node number office order payment people plan please price
	project question regards report request schedule server storage summary thanks today tomorrow travel update week`)

// makeMail makes up a message: text, mostly short, a third with HTML, every tenth with
// an attachment.
func makeMail(random *rand.Rand, number int) []byte {
	var b bytes.Buffer
	text := func(n int) string {
		var line strings.Builder
		for i := range n {
			line.WriteString(words[random.IntN(len(words))])
			line.WriteString([]string{" ", "\r\n"}[min(i%12/11, 1)])
		}
		return line.String()
	}
	subject := strings.TrimSpace(text(3 + random.IntN(4)))
	date := time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC).Add(time.Duration(number) * 97 * time.Minute)
	fmt.Fprintf(&b, "Received: from mx.example.net by mail.example.org with ESMTP id %x;\r\n\t%s\r\n", random.Uint64(), date.Format(time.RFC1123Z))
	fmt.Fprintf(&b, "From: %s Sender <sender%d@example.net>\r\nTo: Somebody <user@example.org>\r\n", words[random.IntN(len(words))], number%50)
	fmt.Fprintf(&b, "Cc: a@example.org, b@example.org\r\nSubject: %s\r\nDate: %s\r\nMessage-ID: <%x.%d@example.net>\r\nMIME-Version: 1.0\r\n",
		subject, date.Format(time.RFC1123Z), random.Uint64(), number)
	attached := number%10 == 9
	if attached {
		b.WriteString("Content-Type: multipart/mixed; boundary=\"outer\"\r\n\r\n--outer\r\n")
	}
	plain := text(50 + random.IntN(400))
	if number%3 == 0 {
		fmt.Fprintf(&b, "Content-Type: multipart/alternative; boundary=\"inner\"\r\n\r\n--inner\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n%s\r\n"+
			"--inner\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html><body><p>%s</p></body></html>\r\n--inner--\r\n", plain, plain)
	} else {
		fmt.Fprintf(&b, "Content-Type: text/plain; charset=utf-8\r\n\r\n%s\r\n", plain)
	}
	if attached {
		b.WriteString("--outer\r\n")
		attach(&b, random, 20_000+random.IntN(100_000))
		b.WriteString("--outer--\r\n")
	}
	return b.Bytes()
}

// largeMail is a message with an attachment of so many octets.
func largeMail(seed uint64, octets int) []byte {
	random := rand.New(rand.NewPCG(seed, 1))
	var b bytes.Buffer
	b.WriteString("From: sender@example.net\r\nSubject: large\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"outer\"\r\n\r\n--outer\r\n")
	attach(&b, random, octets)
	b.WriteString("--outer--\r\n")
	return b.Bytes()
}

// attach writes a part with random content.
func attach(b *bytes.Buffer, random *rand.Rand, octets int) {
	b.WriteString("Content-Type: application/pdf; name=\"file.pdf\"\r\nContent-Disposition: attachment; filename=\"file.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	content := make([]byte, octets)
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	encoded := base64.StdEncoding.EncodeToString(content)
	for ; len(encoded) > 76; encoded = encoded[76:] {
		b.WriteString(encoded[:76] + "\r\n")
	}
	b.WriteString(encoded + "\r\n")
}
