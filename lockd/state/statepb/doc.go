// Package statepb holds the commands of the replicated log and the records of its snapshots, as protocol buffers.
// The meaning of each command is documented in state.proto and implemented in package state.
package statepb

//go:generate protoc --go_out=. --go_opt=paths=source_relative state.proto report.proto watch.proto snapshot.proto
