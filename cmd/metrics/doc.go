// Package metrics gathers the figures of a daemon as Prometheus has them, for .lockfs/metrics and /metrics.
//
// Nothing is counted here: at each gathering it asks what the parts of the daemon know of themselves, so that no lock and no
// request pays for it. Names follow Prometheus's conventions: base units (seconds, bytes), _total for what only grows.
//
//	lockd.Host.Status ─┐
//	lockd.Host.View ───┤
//	cluster.Node ──────┼─► Collector ─► Registry ─► text
//	fs.Mounted ────────┤
//	Go, /proc/self ────┘
package metrics
