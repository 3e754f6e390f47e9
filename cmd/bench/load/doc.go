// Package load is what `lockfs bench` and the comparison with other lock services (tests/peers) measure: workloads of
// lock clients, the same for every service that has a Client.
//
//	Crew ─► workers: round                                 (one JSON line in)
//	     ◄─ prepared, ran, gripped, checked, cleared up    (one JSON line out each; all workers take a step together)
//
// A worker is a process (of a file system, whose calls block a thread) or a goroutine (of a service with a client library).
// All workers are on one machine: where they contend they share a page of memory, the arena, in which each writes itself
// down as the holder. So a workload fails, and gives no figure, if two ever hold one lock, if a lock that is held is
// granted to another, if the counts of the clients do not add up, or if a reader sees a value older than one before.
package load
