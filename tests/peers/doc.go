// Command peers measures lockfs beside the lock services that people use, on one machine, in one run: make bench-peers.
//
//	peers ─► three lockfs daemons (real mounts), etcd, ZooKeeper, Redis, Consul if there is one: on loopback, with fsync
//	      ─► the workloads of `lockfs bench` (cmd/bench/load), round by round, each round on every service in turn
//	      ─► results.json, table.md, ratios.svg
//
// It is a module of its own: what the peers need is no dependency of lockfs. A client of a file system is a process, one
// of a peer a goroutine with a connection of its own, which spares the peers the switching between processes; the client
// checks what it is granted in the same way (see package load). Every server is a child, ended by its own process id.
package main
