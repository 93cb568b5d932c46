package main

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
	"starling/metadata"
)

func isMaildir(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, "cur"))
	return err == nil && info.IsDir()
}

// hasMaildir reports whether dir is a Maildir, or has folders that are.
func hasMaildir(dir string) bool {
	if isMaildir(dir) {
		return true
	}
	entries, err := os.ReadDir(dir)
	return err == nil && slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		return e.IsDir() && isMaildir(filepath.Join(dir, e.Name()))
	})
}

// walkMaildir yields the messages of a Maildir, and of those in it: of
// Maildir++, ".Work.Orders", and of plain folders in folders, "Work/Orders".
func walkMaildir(dir, mailbox string, yield importYield) error {
	if isMaildir(dir) {
		keywords := maildirKeywords(dir)
		for _, sub := range []string{"cur", "new"} {
			if err := walkMaildirFiles(filepath.Join(dir, sub), mailbox, keywords, yield); err != nil {
				return err
			}
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if !e.IsDir() || name == "cur" || name == "new" || name == "tmp" {
			continue
		}
		path, child := filepath.Join(dir, name), mailbox
		levels := []string{name}
		if strings.HasPrefix(name, ".") {
			if !isMaildir(path) {
				continue
			}
			levels = strings.Split(name[1:], ".")
		}
		for _, level := range levels {
			child = childMailbox(child, folderName(level))
		}
		if err := walkMaildir(path, child, yield); err != nil {
			return err
		}
	}
	return nil
}

// folderName is what a folder of a Maildir is called: servers write it in IMAP's UTF-7.
func folderName(name string) string {
	if decoded, err := imapwire.DecodeUTF7(name); err == nil {
		return decoded
	}
	return name
}

func walkMaildirFiles(dir, mailbox string, keywords map[byte]string, yield importYield) error {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		info, err := e.Info()
		item := importItem{name: path, path: path, mailbox: mailbox, err: err, flags: maildirFlags(e.Name(), keywords)}
		if err == nil {
			item.size, item.mtime, item.date = info.Size(), info.ModTime(), info.ModTime()
		}
		if err := yield(item, formatMaildir); err != nil {
			return err
		}
	}
	return nil
}

// maildirLetters are the flags that stand behind ":2," in a file's name.
var maildirLetters = map[byte]metadata.Flags{
	'S': metadata.Seen, 'R': metadata.Answered, 'F': metadata.Flagged, 'T': metadata.Deleted, 'D': metadata.Draft,
}

// maildirFlags are the flags of a file by its name; small letters are keywords.
func maildirFlags(name string, keywords map[byte]string) mailstore.FlagSet {
	_, letters, _ := strings.Cut(name, ":2,")
	letters, _, _ = strings.Cut(letters, ",")
	var flags mailstore.FlagSet
	for _, l := range []byte(letters) {
		flags.System |= maildirLetters[l]
		keyword := keywords[l]
		if l == 'P' {
			keyword = "$Forwarded"
		}
		if keyword != "" && !slices.Contains(flags.Keywords, keyword) {
			flags.Keywords = append(flags.Keywords, keyword)
		}
	}
	return flags
}

// maildirKeywords are what Dovecot's file of keywords says that small letters
// mean: a line "0 $Label1" for a, and so on. Without the file they mean nothing.
func maildirKeywords(dir string) map[byte]string {
	f, err := os.Open(filepath.Join(dir, "dovecot-keywords"))
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }() // it was only read
	keywords := make(map[byte]string)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		number, name, _ := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseUint(number, 10, 8); err == nil && n < 26 && isKeyword(name) {
			keywords['a'+byte(n)] = name
		}
	}
	return keywords
}

// isKeyword reports whether a flag can be called so (RFC 9051 §9, atom).
func isKeyword(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`(){%*"\]`, r)
	})
}
