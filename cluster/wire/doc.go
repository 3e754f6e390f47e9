// Package wire is the one TCP port of a host, which raft and gRPC share, and the connections from it to other hosts'.
//
//	            ┌─ raft.StreamLayer ◄── Raft ──┐
//	raft, gRPC ─┤                              ├─ preface ◄─ TLS 1.3 (if on) ◄─ accept
//	            └─ net.Listener     ◄── RPC ───┘
//
// After TLS every connection begins with a preface: who dials (cluster, host), what for, and in which version of the
// protocol. The acceptor answers yes, or no and why; both sides log a no, once a minute for each host and reason. So two clusters
// never talk to each other, whatever addresses they were given, nor does a host that was removed. A host that is no
// member of a cluster yet can make and take RPC connections only.
//
// Until the preface is through, a connection costs a bounded amount of memory for a bounded time, and there is a
// bounded number of them, in all and from one address. What comes after it is of a host that has the cluster's id and, with
// TLS, a certificate of the cluster's CA; without TLS whoever reaches the port and knows the id is believed.
package wire
