package table

import "github.com/lockfs/lockfs/lockd/queue"

// room is the strongest mode that is compatible with the row's: what a host may
// go on handing out when a request in that mode waits elsewhere. Every mode
// has exactly one.
var room = [...]queue.Mode{
	queue.None: queue.EX,
	queue.NL:   queue.EX,
	queue.CR:   queue.PW,
	queue.CW:   queue.CW,
	queue.PR:   queue.PR,
	queue.PW:   queue.CR,
	queue.EX:   queue.NL,
}

// meet returns the strongest mode that both cover. Of two modes one covers the
// other, but for CW and PR, whose meet is CR.
func meet(a, b queue.Mode) queue.Mode {
	switch {
	case a.Covers(b):
		return b
	case b.Covers(a):
		return a
	}
	return queue.CR
}

// intentIndex is the place of an intent's mode in a pair of counts.
func intentIndex(m queue.Mode) int { return int(m - queue.CR) }
