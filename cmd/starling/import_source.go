package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"starling/frontend/mailstore"
)

// The formats that import knows.
const (
	formatAuto    = "auto"
	formatMbox    = "mbox"
	formatMaildir = "maildir"
	formatEML     = "eml"
)

// errImportSource says that a message could not be read.
var errImportSource = errors.New("source")

// importItem is a message to be imported.
type importItem struct {
	name    string // by which an error calls it
	err     error  // it could not even be found
	mailbox string
	path    string
	flags   mailstore.FlagSet
	date    time.Time // the zero time: what the message says
	mtime   time.Time
	size    int64
	mbox    *mboxEntry // where it is in the file; nil: it is the file
}

// importSource is where messages come from.
type importSource struct {
	paths   []string
	format  string
	mailbox string
}

// importYield is given each file: an mbox is one, and read later.
type importYield func(file importItem, format string) error

// check looks whether everything is there, and returns how many octets it has.
func (s *importSource) check() (int64, error) {
	if !slices.Contains([]string{formatAuto, formatMbox, formatMaildir, formatEML}, s.format) {
		return 0, fmt.Errorf("--format: is %q; want auto, mbox, maildir or eml", s.format)
	}
	var size int64
	files := 0
	err := s.files(func(file importItem, _ string) error {
		size += file.size
		files++
		if file.err != nil {
			return nil //nolint:nilerr // told of when its turn comes
		}
		return mailstore.CheckName(file.mailbox)
	})
	if err == nil && files == 0 {
		err = fmt.Errorf("no mail found in %s; --format says what it is", strings.Join(s.paths, ", "))
	}
	return size, err
}

// walk yields all messages.
func (s *importSource) walk(yield func(importItem) error) error {
	return s.files(func(file importItem, format string) error {
		if format == formatMbox && file.err == nil {
			return walkMbox(file, yield)
		}
		return yield(file)
	})
}

// files yields all files with mail.
func (s *importSource) files(yield importYield) error {
	for _, path := range s.paths {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		format := s.format
		switch {
		case !info.IsDir() && format == formatMaildir:
			return fmt.Errorf("%s: is a file; a Maildir is a folder", path)
		case !info.IsDir():
			if format == formatAuto {
				format = formatEML
				if isMbox(path) {
					format = formatMbox
				}
			}
			err = yield(fileItem(path, s.mailbox, info), format)
		case format == formatMaildir || format == formatAuto && hasMaildir(path):
			err = walkMaildir(path, s.mailbox, yield)
		default:
			err = walkFolder(path, s.mailbox, format, yield)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func fileItem(path, mailbox string, info fs.FileInfo) importItem {
	return importItem{name: path, path: path, mailbox: mailbox, mtime: info.ModTime(), size: info.Size()}
}

// walkFolder yields the files of a folder that is no Maildir: .eml files go to
// mailbox, mbox files and folders to mailboxes below it, which have their names.
func walkFolder(dir, mailbox, format string, yield importYield) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if e.IsDir() {
			if err := walkFolder(path, childMailbox(mailbox, e.Name()), format, yield); err != nil {
				return err
			}
			continue
		}
		info, err := os.Stat(path) // follows links
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		switch {
		case format == formatEML || format == formatAuto && strings.EqualFold(filepath.Ext(path), ".eml"):
			err = yield(fileItem(path, mailbox, info), formatEML)
		case format == formatMbox || isMbox(path):
			err = yield(fileItem(path, childMailbox(mailbox, strings.TrimSuffix(e.Name(), ".mbox")), info), formatMbox)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// childMailbox is the mailbox for a folder in one that goes to parent. What is in
// the folder that goes to INBOX stands beside INBOX, where clients expect it.
func childMailbox(parent, name string) string {
	if parent != mailstore.Inbox {
		name = parent + "/" + name
	}
	return mailstore.CleanName(name)
}

func isMbox(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // it was only read
	var start [5]byte
	_, err = io.ReadFull(f, start[:])
	return err == nil && string(start[:]) == "From "
}

// open opens the message as it stands in its file.
func (item *importItem) open() (io.Reader, io.Closer, error) {
	f, err := os.Open(item.path)
	if err != nil {
		return nil, nil, err
	}
	if item.mbox == nil {
		return f, f, nil
	}
	return io.NewSectionReader(f, item.mbox.start, item.mbox.end-item.mbox.start), f, nil
}

// importBuffer is of one read of a message's file.
const importBuffer = 64 << 10

// read reads the message, and writes it to w if that is not nil.
func (item *importItem) read(w io.Writer) (importRead, error) {
	r, file, err := item.open()
	if err != nil {
		return importRead{}, fmt.Errorf("%w: %w", errImportSource, err)
	}
	defer func() { _ = file.Close() }() // it was only read
	sink := newImportSink(w)
	err = copyMail(sink, bufio.NewReaderSize(r, importBuffer), item.mbox != nil)
	if err != nil && sink.err == nil {
		err = fmt.Errorf("%w: %w", errImportSource, err)
	}
	return sink.done(), err
}
