// Package table is one host's lock table: it shares what the host holds in the
// replicated state out to the descriptors of its processes, and decides what to
// ask of the state, what to keep cached and when to give it up.
//
//	requests, releases ──►┌───────┐──► Events      granted, refused, blocking, lost …
//	state.Change ────────►│ Table │
//	Tick, Renewed ───────►└───────┘──► Proposals   Acquire, Release, Cancel, InUse: in this order
//
// It is pure: no clock, no goroutine, no I/O. The shell (package lockd) feeds it
// under one mutex and, after each input, takes the output ([Table.Take]).
package table
