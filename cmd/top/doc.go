// Package top is `lockfs top`: who holds and who waits, on all hosts, shown anew each second. It reads the listings under .lockfs and
// kills nothing.
//
//	.lockfs/held, waiting, hosts ──► round ──► table (sorted, filtered) ──► screen, plain text or JSON
package top
