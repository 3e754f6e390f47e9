package lockd

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// TestEncode: an entry put together from parts is the one that the state's own encoder makes.
func TestEncode(t *testing.T) {
	cmds := []*statepb.Command{
		{Session: 1, Seq: 1, TimeUnixNs: 5, Op: &statepb.Command_Barrier{Barrier: &statepb.Barrier{}}},
		{Session: 1<<64 - 1, Seq: 1<<64 - 1, TimeUnixNs: -1, Op: &statepb.Command_Commit{Commit: &statepb.Commit{
			Ino: 7, Change: &statepb.Commit_Whole{Whole: make([]byte, 300)},
		}}},
		{Session: 3, Seq: 9, Op: &statepb.Command_Make{Make: &statepb.Make{Parent: 1, Name: []byte("a\xff"), Lock: true}}},
	}
	size := 0
	entry := appendBatch(nil)
	for _, cmd := range cmds {
		body := encode(cmd)
		size += len(body) + commandOverhead
		entry = appendCommand(entry, cmd.Session, cmd.Seq, body)
	}
	if len(entry) > size+10 {
		t.Errorf("%d bytes, more than the %d allowed for", len(entry), size)
	}
	var got, want statepb.Batch
	if err := proto.Unmarshal(entry, &got); err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(state.Encode(cmds), &want); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(&got, &want) {
		t.Errorf("got %v\nwant %v", &got, &want)
	}
}
