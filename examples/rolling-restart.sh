#!/bin/sh
# A rolling restart: every host restarts its servers as soon as it is told to, all at once, and lockfs lets two at a time go on
# all hosts together. The slot is held until the server is well again. If a host dies in the middle of it, its slot is free
# when its session ends.
set -eu
a=${LOCKS:-/locks} b=${LOCKS2:-$a} c=${LOCKS3:-$a}     # the mounts of three hosts; one host will do to try it
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

restart() { # MOUNT SERVER: what runs on each host
	lockfs run -q --slots 2 "$1/restart" -- sh -c '
		mkdir "$2/down.$LOCKFS_SLOT"                       # fails if there is one in this slot
		echo "slot $LOCKFS_SLOT: $1 down, $(ls -d "$2"/down.* | wc -l) in all" >>"$2/log"
		sleep 0.1                                          # stop it, start it, ask until it answers well
		rmdir "$2/down.$LOCKFS_SLOT"
	' sh "$2" "$work"
}

for server in 1 2; do
	restart "$a" host1.$server &
	restart "$b" host2.$server &
	restart "$c" host3.$server &
done
until [ -e "$work/log" ] && [ -e "$a/restart" ]; do sleep 0.05; done
lockfs ls "$a/restart"                                   # who is at it, and who stands in line
wait
cat "$work/log"
test "$(wc -l <"$work/log")" = 6
test -z "$(grep -v '[12] in all$' "$work/log")"         # never a third
status=0; lockfs run --slots 3 "$a/restart" true 2>/dev/null || status=$?
test "$status" = 64                                      # the number of slots is the same for all

until rm -r "$a/restart" 2>/dev/null; do sleep 0.05; done     # when it is known to be free on all hosts
