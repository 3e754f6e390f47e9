// Package daemon is `lockfs mount`: it reads the settings, starts the cluster member, the host's lock manager and
// one file system a mount point, and takes them down again in the opposite order.
//
//	flag > LOCKFS_… > --config file > default ─► Options
//	cluster.Open ─► lockd.Host ─► fs.Mount … ─► "ready", sd_notify
//	SIGTERM, SIGINT ─► refuse new requests, drain, unmount, leave the session, close the log
package daemon
