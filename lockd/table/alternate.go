package table

import (
	"slices"

	"github.com/lockfs/lockfs/lockd/queue"
)

// AltPR and AltCW ask for another mode where the one wanted cannot be had at
// once. Other hosts have a say in that, so a request with alternates is a try
// of each mode in turn, and then, unless it is a try itself, a request that waits.

// altWait, in Lock.alts, says that after all alternates the request waits for
// the mode it asked for.
const altWait queue.Flags = 1 << 15

// alternate goes on with the next alternate mode of a request whose try
// failed, and reports whether there was one.
func (t *Table) alternate(l *Lock) bool {
	var mode queue.Mode
	switch {
	case l.alts&queue.AltPR != 0:
		mode, l.alts = queue.PR, l.alts&^queue.AltPR
	case l.alts&queue.AltCW != 0:
		mode, l.alts = queue.CW, l.alts&^queue.AltCW
	case l.alts&altWait != 0:
		mode, l.alts = l.main, 0
	default:
		return false
	}
	last := l.alts == 0 && mode == l.main
	if !last && (mode == l.main || !mode.Covers(l.Mode)) {
		return t.alternate(l)
	}
	own, conv, alts := slices.Clone(l.own), l.conv, l.alts
	t.withdraw(l)
	l.conv, l.alts = conv, alts
	t.setOwn(l, own)
	t.start(l, mode, !last)
	return true
}
