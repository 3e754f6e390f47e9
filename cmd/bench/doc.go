// Package bench is `lockfs bench`: what locks cost, measured by processes that use them on real mounts, one or several of
// one cluster, beside the same calls in another directory if one is named. What the processes do is package load's.
//
// With a second directory the rounds alternate between the two, so that what else the machine does hits both alike.
package bench
