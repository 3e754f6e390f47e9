// Package run is `lockfs run`: flock(1) with six modes, request flags, tokens, and an answer to the two things
// that flock(1) leaves out: being asked to let go, and having lost the lock.
//
//	open PATH ─► request (a thread of its own, waits in the kernel) ─► start CMD in its own process group
//	                                                                     │
//	         signals ──────────────────────────────────► handed on to it │
//	         poll(2) POLLPRI  somebody is blocked  ────► --on-blocking   │
//	         poll(2) POLLERR  the lock is lost     ────► --on-loss       ▼
//	                                                              its exit code
//
// With --slots the lock is EX on one of N files of a directory: see slots.go and asks.go.
//
// The descriptor is inherited by CMD unless -o says otherwise: whoever survives of CMD keeps the lock.
package run
