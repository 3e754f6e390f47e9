// Package bench is `lockfs bench`: what the calls of a lock's user cost, measured by processes that make them on a
// real mount, beside the same calls in another directory if one is named.
//
//	bench ─► worker processes: workload, directory, how long  (one JSON line in)
//	      ◄─ "ready", then a histogram                        (one JSON line out)
//
// All workers of a round start together. With a second directory the rounds alternate between the two, so that
// what else the machine does hits both alike.
package bench
