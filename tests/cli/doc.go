// Package cli tests the lockfs command on real mounts: scripts of shell commands and what they must print
// (testscript), and the README's tour.
//
// The test process never touches a mount itself: the daemon and all clients are its children, and a hard limit of time
// kills the daemon, which frees whoever hangs in it.
package cli
