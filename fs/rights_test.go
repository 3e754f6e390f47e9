package fs

import (
	"testing"

	"github.com/lockfs/lockfs/lockd/queue"
)

func TestRightsOf(t *testing.T) {
	const owner, group, stranger = 1000, 2000, 1
	for _, test := range []struct {
		name   string
		perm   uint32
		who    opener
		groups []uint32
		proven rights
		want   rights
		looked bool
	}{
		{"root may all", 0, opener{uid: 0}, nil, 0, mayAll, false},
		{"owner by the owner's bits", 0o400, opener{uid: owner, gid: group}, nil, 0, mayRead, false},
		{"owner is not helped by the group", 0o060, opener{uid: owner, gid: group}, nil, 0, 0, false},
		{"group", 0o060, opener{uid: stranger, gid: group}, nil, 0, mayAll, false},
		{"group shut out", 0o606, opener{uid: stranger, gid: group}, nil, 0, 0, false},
		{"other, group does not matter", 0o644, opener{uid: stranger, gid: stranger}, nil, 0, mayRead, false},
		{"other, group would matter", 0o664, opener{uid: stranger, gid: stranger}, []uint32{5}, 0, mayRead, true},
		{"supplementary group", 0o664, opener{uid: stranger, gid: stranger}, []uint32{5, group}, 0, mayAll, true},
		{"supplementary group shut out", 0o604, opener{uid: stranger, gid: stranger}, []uint32{group}, 0, 0, true},
		{"proven decides", 0o664, opener{uid: stranger, gid: stranger}, nil, mayAll, mayAll, false},
		{"proven makes the rest agree", 0o620, opener{uid: stranger, gid: stranger}, nil, mayWrite, mayWrite, false},
		{"write only", 0o200, opener{uid: owner}, nil, mayWrite, mayWrite, false},
	} {
		looked := false
		test.who.groups = func() []uint32 { looked = true; return test.groups }
		got := rightsOf(owned{perm: test.perm, uid: owner, gid: group}, test.who, test.proven)
		if got != test.want || looked != test.looked {
			t.Errorf("%s: %b, groups looked up %v, want %b, %v", test.name, got, looked, test.want, test.looked)
		}
	}
}

func TestAliasPerm(t *testing.T) {
	for _, test := range []struct {
		perm uint32
		mode queue.Mode
		want uint32
	}{
		{0o644, queue.EX, 0o600},
		{0o644, queue.PR, 0o666},
		{0o640, queue.NL, 0o660},
		{0o200, queue.PW, 0o600},
		{0o200, queue.CR, 0o000},
		{0o622, queue.CW, 0o666},
		{0o777, queue.EX, 0o666},
	} {
		if got := aliasPerm(test.perm, modeNeeds[test.mode]); got != test.want {
			t.Errorf("aliasPerm(%o, %v) = %o, want %o", test.perm, test.mode, got, test.want)
		}
	}
}
