// Package client is how the commands reach a daemon: through its mount and nothing else. It finds the mount
// point of a path in /proc/self/mountinfo, reads the listings under .lockfs, and parses inherited descriptors.
//
//	/proc/self/mountinfo ─► Mount ─► .lockfs/held, .lockfs/waiting ─► Lock
//	                           └──► .lockfs/status                 ─► Fields
package client
