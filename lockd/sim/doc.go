// Package sim is a simulation: several hosts, each with its own lock table
// (lockd/table) and its own copy of the replicated state (lockd/state), over one
// simulated log. It has no code but tests.
//
//	processes ─ open, convert, write, close ─► table ─ proposals ─► network ─► leader
//	    ▲                                        ▲      lost, late,              │
//	    └────────── grants, losses ──────────────┴───── twice, reordered ◄── log ┘
//
// All that happens comes from one seed: who asks for what, the delays of the
// network, the clocks, crashes, partitions, changes of the leader, snapshots in place of the
// log. So a failure is run again by its seed:
//
//	LOCKFS_SIM_SEED=42 go test ./lockd/sim -run TestSim -v    one seed, with all that happens
//	LOCKFS_SIM_SEEDS=10000 go test ./lockd/sim -timeout 0     many seeds
//
// After each step it checks, over all hosts, that no two incompatible locks are
// granted to descriptors, intents on ancestors included; that the tokens of a
// resource grow; that a lock shows the newest value; and the invariants of the
// tables and of the state. At the end everybody lets go, and nobody may be left
// waiting.
package sim
