// Package actor runs processes that make system calls when they are told to, one at a time, and say what came of it: so a
// test says who does what in which order, and each call is made by a process of its own.
//
//	test ── "lock f w 0 10" ──► actor process ── fcntl(2) ──► mount
//	     ◄──── "EAGAIN" ───────
//
// A play is a script of such steps for several actors, one a line:
//
//	a open f rdwr,creat x      => ok
//	b open g rdwr x            => ok
//	a lock f w 0 10            => ok
//	b& lockw g w 0 10          => waits
//	a close f                  => ok
//	b=                         => ok
//
// The first word is the actor, started when it is first named. With & its call must wait; = takes the call's result later;
// ! kills the actor. Pids of actors show as their names. A play that holds on any file system is run on a native one
// too, so that what it wants of lockfs is what the kernel does.
package actor
