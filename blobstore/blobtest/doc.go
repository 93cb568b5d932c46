// Package blobtest is what every blobstore.Store must do: the sentences of the contract, a subtest each. A store's own
// tests call [Run] and add what is special to it.
package blobtest
