// Package clusterpb has the messages that the daemons of a cluster exchange beside raft's, and their gRPC service.
package clusterpb

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative cluster.proto
