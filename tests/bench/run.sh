#!/usr/bin/env bash
# make bench: lockfs bench beside go-fuse's loopback, which does the same calls on a tmpfs where there is one, in turns on
# the same machine. Arguments go to lockfs bench; without any, all workloads but W5 (100,000 locks held at once by W4).
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../examples/mount.bash"
lockfs_up || exit 1

original=$lockfs_dir/original
[ -w /dev/shm ] && original=$(mktemp -d /dev/shm/lockfs-bench.XXXXXX)
mkdir -p "$original" "$lockfs_dir/loopback"
(cd "$lockfs_top" && go build -o "$lockfs_dir/bin/loopback" ./tests/bench/loopback) || exit 1
mkfifo "$lockfs_dir/loopback-ready"
loopback "$lockfs_dir/loopback" "$original" >"$lockfs_dir/loopback-ready" 2>"$lockfs_dir/loopback-log" &
loopback_pid=$!
trap 'kill "$loopback_pid" 2>/dev/null; wait "$loopback_pid" 2>/dev/null; rm -rf "$original"; lockfs_down >/dev/null 2>&1' EXIT
read -r -t 30 line <"$lockfs_dir/loopback-ready" || {
	cat "$lockfs_dir/loopback-log" >&2
	exit 1
}

status=0
if [ $# -gt 0 ]; then
	lockfs bench --beside "$lockfs_dir/loopback" "$@" "$LOCKS" || status=1
else
	lockfs bench --beside "$lockfs_dir/loopback" "$LOCKS" || status=1
	lockfs bench W3 W7 W8 "$LOCKS" || status=1
	lockfs bench W4 --rounds 1 "$LOCKS" || status=1
fi
exit $status
