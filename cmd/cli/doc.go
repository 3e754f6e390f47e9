// Package cli is the command line: the root command and the small commands, each in a file of its own. The
// larger ones are packages: daemon (mount), run, bench. All but mount talk to a daemon through its mount alone
// (package client).
//
// A command's help says what it does, gives examples and lists its exit codes; `lockfs man DIR` makes the
// manual pages out of the same texts.
package cli
