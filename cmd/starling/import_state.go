package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// stateLine is the length of a line of a state file: a digest and a line feed.
const stateLine = 2*32 + 1

// importState is the file in which it is noted what went into an account. A line
// is written after the message is kept; if the import dies between the two, the
// server still knows the digest of the delivery.
type importState struct {
	mu   sync.Mutex
	file *os.File
	seen map[[32]byte]struct{} // noted, or on its way
}

// openImportState opens the file at path, "" for the usual one of the account.
func openImportState(path string, account int64) (*importState, error) {
	if path == "" {
		dir := os.Getenv("XDG_STATE_HOME")
		if dir == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return nil, usageError{fmt.Errorf("no folder for the state file, name one with --state: %w", err)}
			}
			dir = filepath.Join(home, ".local", "state")
		}
		path = filepath.Join(dir, "starling", fmt.Sprintf("import-%016x", account))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil { //nolint:gosec // who runs the program says where
		return nil, fmt.Errorf("state file: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // likewise
	if err != nil {
		return nil, fmt.Errorf("state file: %w", err)
	}
	s := &importState{file: f, seen: make(map[[32]byte]struct{})}
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("state file %s: %w", path, err), f.Close())
	}
	return s, nil
}

// load reads what is noted, and cuts off a line that was not written whole.
func (s *importState) load() error {
	if err := lockFile(s.file); err != nil {
		return fmt.Errorf("another import uses it: %w", err)
	}
	r := bufio.NewReader(s.file)
	var line [stateLine]byte
	var good int64
	for {
		if _, err := io.ReadFull(r, line[:]); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		} else if err != nil {
			return err
		}
		var digest [32]byte
		if _, err := hex.Decode(digest[:], line[:stateLine-1]); err != nil || line[stateLine-1] != '\n' {
			return fmt.Errorf("line %d is no digest: this is no state file of an import", good/stateLine+1)
		}
		s.seen[digest] = struct{}{}
		good += stateLine
	}
	if err := s.file.Truncate(good); err != nil {
		return err
	}
	_, err := s.file.Seek(good, io.SeekStart)
	return err
}

// claim reports whether the message is not noted and nobody else imports it now.
func (s *importState) claim(digest [32]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.seen[digest]; ok {
		return false
	}
	s.seen[digest] = struct{}{}
	return true
}

// add notes that the message is kept.
func (s *importState) add(digest [32]byte) error {
	line := append(hex.AppendEncode(make([]byte, 0, stateLine), digest[:]), '\n')
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.file.Write(line); err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	return nil
}

// close writes everything to disk.
func (s *importState) close() error {
	err := s.file.Sync()
	if cerr := s.file.Close(); err == nil && !errors.Is(cerr, fs.ErrClosed) {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	return nil
}
