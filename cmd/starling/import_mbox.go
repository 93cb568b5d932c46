package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"
)

// mboxEntry is where a message is in an mbox file: from its header up to, but
// without, the empty line that ends it.
type mboxEntry struct {
	start, end int64
	from       string // the line before it, without its end
}

// errNoMbox says that a file is no mbox.
var errNoMbox = errors.New(`no mbox: its first line does not say "From " and a time`)

// fromLine is what tells the line before a message from one of a text: a time.
var fromLine = regexp.MustCompile(`^From .*\d:\d\d`)

// splitMbox yields the messages of an mbox file, in order. A message begins
// behind a line that says From and a time, and stands first or behind an empty
// line; lines of a message that look so are quoted (>From).
func splitMbox(r io.Reader, yield func(mboxEntry) error) error {
	lines := bufio.NewReaderSize(r, importBuffer)
	var (
		at       int64 // of the line
		blank    int64 = -1
		entry    mboxEntry
		inside   bool
		starting = true // the chunk begins a line
	)
	for {
		chunk, err := lines.ReadSlice('\n')
		text := bytes.TrimRight(chunk, "\r\n")
		switch {
		case starting && fromLine.Match(chunk) && (blank >= 0 || at == 0):
			if inside {
				entry.end = blank
				if err := yield(entry); err != nil {
					return err
				}
			}
			inside, blank = true, -1
			entry = mboxEntry{from: string(text)}
			for errors.Is(err, bufio.ErrBufferFull) { // nobody writes such a line
				at += int64(len(chunk))
				chunk, err = lines.ReadSlice('\n')
			}
			entry.start = at + int64(len(chunk))
		case at == 0 && len(chunk) > 0:
			return errNoMbox
		case starting && len(text) == 0 && len(chunk) > 0:
			blank = at
		case len(chunk) > 0:
			blank = -1
		}
		at += int64(len(chunk))
		starting = !errors.Is(err, bufio.ErrBufferFull)
		if err == nil || !starting {
			continue
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		if !inside {
			return nil
		}
		if entry.end = at; blank >= 0 {
			entry.end = blank
		}
		entry.end = max(entry.start, entry.end)
		return yield(entry)
	}
}

// walkMbox yields the messages of an mbox file.
func walkMbox(file importItem, yield func(importItem) error) error {
	f, err := os.Open(file.path)
	if err != nil {
		file.err = err
		return yield(file)
	}
	defer func() { _ = f.Close() }() // it was only read
	n := 0
	var stop error
	err = splitMbox(f, func(entry mboxEntry) error {
		n++
		item := file
		item.name = fmt.Sprintf("%s: message %d, at byte %d", file.path, n, entry.start)
		item.mbox, item.size, item.date = &entry, entry.end-entry.start, fromDate(entry.from)
		stop = yield(item)
		return stop
	})
	if err != nil && stop == nil {
		file.err = err
		return yield(file)
	}
	return stop
}

// fromDates are how the line before a message in an mbox gives its time.
var fromDates = []string{
	"Mon Jan _2 15:04:05 2006", "Mon Jan _2 15:04:05 -0700 2006", "Mon Jan _2 15:04:05 2006 -0700",
	"Mon Jan _2 15:04:05 MST 2006", "Mon Jan _2 15:04 2006", time.RFC1123Z, time.RFC1123,
}

// fromDate is the time of such a line; the zero time if it cannot be read. It is UTC
// unless it says something else, as RFC 4155 has it.
func fromDate(line string) time.Time {
	words := strings.Fields(line)
	for i := range words {
		text := strings.Join(words[i:], " ")
		for _, layout := range fromDates {
			if date, err := time.Parse(layout, text); err == nil && date.Year() >= 1970 && date.Year() <= 9999 {
				return date
			}
		}
	}
	return time.Time{}
}
