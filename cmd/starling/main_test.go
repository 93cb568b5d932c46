package main

import (
	"io"
	"os"
	"testing"
)

// TestMain makes the test's binary the program, where a test starts it as such:
// what is tested is then what was compiled for the tests, race detector and all.
func TestMain(m *testing.M) {
	if os.Getenv("STARLING_TEST_AS_PROGRAM") == "" {
		os.Exit(m.Run())
	}
	go func() {
		// The tests hold the other end, and let go of it however they end.
		_, _ = io.Copy(io.Discard, os.NewFile(3, "parent"))
		os.Exit(3)
	}()
	main()
}
