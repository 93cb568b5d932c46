// Package disk is a blobstore.Store in a folder, for one machine or for a file system that several share.
//
//	<root>/.tmp/<random>           what is being written
//	<root>/<account>/<name>        an object
//
// An object is written to a file in .tmp, which is synced, then renamed to its place, then the folder is synced: it is
// there whole or not at all, also after a loss of power, and any number of processes may use one root. What a
// killed process left in .tmp is removed by the next Open once it is a day old. The clock of the store is the file
// system's: PutResult.Date is the time that a listing will show.
//
// The folder .tmp is also the mark of a root: while it is missing (a disk not mounted) nothing is called absent and
// nothing is written, all is unavailable.
package disk
