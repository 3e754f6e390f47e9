// Package sim is a simulation: several hosts, each with its own lock table (lockd/table), its own part in the leader's duty
// (lockd/duty) and its own copy of the replicated state (lockd/state), over one simulated log. It has no code but tests.
//
//	processes ─ open, convert, write, close ─► table ─ proposals ─► network ─► leader ─► duty, raft
//	    ▲                                        ▲      lost, late,                         │
//	    └────────── grants, losses ──────────────┴───── twice, reordered ◄───── log ◄───────┘
//
// All that happens comes from one seed: who asks for what, the delays of the network, the clocks, and the trouble (see
// trouble_test.go): crashes, partitions, daemons stopped by SIGSTOP and machines that sleep, hosts that can send and
// apply nothing, leaders deposed, stopped in the middle of their duty and continued when another leads, entries
// that survive their leader, snapshots in place of the log. So a failure is run again by its seed:
//
//	LOCKFS_SIM_SEED=42 go test ./lockd/sim -run TestSim -v    one seed, with all that happens
//	LOCKFS_SIM_SEEDS=10000 go test ./lockd/sim -timeout 0     many seeds (make sim-long); LOCKFS_SIM_FROM is the first
//
// What is checked, after each step as far as it may have changed:
//
//   - no two incompatible locks are granted to descriptors on any hosts, intents on ancestors included
//   - no lease outlives its session, by the host's own clock, also of a host that is stopped
//   - a host that applies no renewal loses its lease, whatever the leader hears of it
//   - the tokens of a resource grow
//   - a lock shows the newest value, and at the end every acknowledged commit is in it, none twice
//   - each entry does the same on all hosts, and all states at one index are the same, snapshots in between or not
//   - the invariants of the tables and of the state; a table believes of its host locks what the state says
//   - a verdict ends the youngest wait of a cycle that stood when it was suspected, and that has had no victim yet
//
// Processes have one thread, and the hosts tell of their locks and waits, late and now and then. At the end all trouble is over
// and whoever does not wait lets go: every deadlock is found, and nobody may be left.
package sim
