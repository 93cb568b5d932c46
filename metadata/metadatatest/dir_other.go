//go:build !linux

package metadatatest

// dir is where the server keeps its files.
func dir() string { return "/tmp" }
