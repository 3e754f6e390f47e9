package lockd

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// A command is encoded once, by whoever asks, before it has its session and number: these are put in front when it is sent,
// each time that it is. So what Do was given may be changed again as soon as Do returns, though the command may
// still be on its way, and nothing large is encoded under the mutex or twice.

// The fields of Batch and Command in state.proto.
const (
	batchVersion   protowire.Number = 1
	batchCommand   protowire.Number = 2
	commandSession protowire.Number = 1
	commandSeq     protowire.Number = 2
)

// encode returns a command without its session and number.
func encode(cmd *statepb.Command) []byte {
	body, err := proto.Marshal(&statepb.Command{TimeUnixNs: cmd.TimeUnixNs, Op: cmd.Op})
	if err != nil {
		panic("lockd: encode a command: " + err.Error()) // names and values are bytes: nothing in it can be refused
	}
	return body
}

// appendBatch begins an entry.
func appendBatch(entry []byte) []byte {
	entry = protowire.AppendTag(entry, batchVersion, protowire.VarintType)
	return protowire.AppendVarint(entry, state.Version)
}

// appendCommand adds a command to an entry.
func appendCommand(entry []byte, session, seq uint64, body []byte) []byte {
	var header [2 * (1 + 10)]byte
	head := protowire.AppendTag(header[:0], commandSession, protowire.VarintType)
	head = protowire.AppendVarint(head, session)
	head = protowire.AppendTag(head, commandSeq, protowire.VarintType)
	head = protowire.AppendVarint(head, seq)
	entry = protowire.AppendTag(entry, batchCommand, protowire.BytesType)
	entry = protowire.AppendVarint(entry, uint64(len(head)+len(body)))
	entry = append(entry, head...)
	return append(entry, body...)
}

// commandOverhead is at least what appendCommand adds to a body.
const commandOverhead = 2*(1+10) + 1 + 10
