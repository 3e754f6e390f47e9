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
	case l.ask.alts&queue.AltPR != 0:
		mode, l.ask.alts = queue.PR, l.ask.alts&^queue.AltPR
	case l.ask.alts&queue.AltCW != 0:
		mode, l.ask.alts = queue.CW, l.ask.alts&^queue.AltCW
	case l.ask.alts&altWait != 0:
		mode, l.ask.alts = l.ask.main, 0
	default:
		return false
	}
	last := l.ask.alts == 0 && mode == l.ask.main
	if !last && (mode == l.ask.main || !mode.Covers(l.Mode)) {
		return t.alternate(l)
	}
	was, own := l.ask, slices.Clone(l.ask.own)
	t.withdraw(l)
	l.ask = &asking{rank: was.rank, conv: was.conv, main: was.main, alts: was.alts}
	t.setOwn(l, own)
	t.start(l, mode, !last)
	return true
}
