// Package gossip finds the other hosts of a cluster and suspects those that are silent: serf, with a host's id as the name
// and what others must know of it in its tags. It only suggests: who is a member and who leads is raft's to decide.
//
//	Join addresses ──► serf (UDP and TCP, one port) ──► Members, Changed
//
// The gossip of two clusters never merges: a member that says it is of another cluster is ignored. A host that waits to
// be admitted has no cluster yet and hears of everybody.
//
// Without a key anybody who reaches the port is believed; the connections that follow check who is there (package wire).
package gossip
