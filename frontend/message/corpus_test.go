package message

import (
	"os"
	"path/filepath"
	"testing"
)

// corpus returns the paths of the test mails, or skips the test.
func corpus(tb testing.TB) []string {
	tb.Helper()
	dir := os.Getenv("STARLING_CORPUS")
	if dir == "" {
		at, err := os.Getwd()
		if err != nil {
			tb.Fatal(err)
		}
		for ; at != filepath.Dir(at); at = filepath.Dir(at) {
			if try := filepath.Join(at, "shared", "corpus"); isDir(try) {
				dir = try
				break
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.eml"))
	if err != nil {
		tb.Fatal(err)
	}
	if dir == "" || len(files) == 0 {
		tb.Skip("no corpus: set STARLING_CORPUS to a folder of *.eml files")
	}
	return files
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func readFile(tb testing.TB, path string) []byte {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func parse(b []byte) *Summary {
	p := NewParser()
	p.Write(b)
	return p.Close()
}
