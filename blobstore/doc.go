// Package blobstore says what Starling needs of a place that keeps the bytes of mail: four methods, keys of one fixed
// form, and five errors.
//
// Start with [Store], which is the contract, and [Key], which is what objects are called. Objects are immutable in
// practice: a mail's key holds 128 random bits and is never used for other bytes. Only objects that have a name
// ([NameKey]) are ever written again.
//
// The stores are the sub-packages: s3 for any S3-compatible server, disk for a folder, memory for tests. What all of
// them must do is a suite, package blobtest, with one subtest for each sentence of the contract. Package codec stands
// above a Store: it makes an object of a message and reads it again, whole or by ranges. Package cache is a Store around
// another one, and keeps what was read at hand.
package blobstore
