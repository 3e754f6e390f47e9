#!/bin/sh
# A cron job that is started on every host and done by one: whoever comes while it runs gives up at once (-n, exit 1), and
# whoever comes later, since clocks differ, sees in the value that today's is done. Anybody can read there when it last ran.
set -eu
a=${LOCKS:-/locks} b=${LOCKS2:-$a} c=${LOCKS3:-$a}     # the mounts of three hosts; one host will do to try it
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

job() { # MOUNT HOST: what the crontab of each host has
	lockfs run -n "$1/nightly" -- sh -c '
		today=$(date +%F)
		[ "$(lockfs value $LOCKFS_FD)" != "$today" ] || { echo "$1: done already"; exit 0; }
		echo "$1: at work"; echo "$1" >>"$2/done"
		while [ ! -e "$2/finish" ]; do sleep 0.05; done
		lockfs value $LOCKFS_FD --set "$today"
	' sh "$2" "$work"
}

job "$a" host1 & first=$!
while [ ! -e "$work/done" ]; do sleep 0.05; done         # the first is at work

for mount in "$b" "$c"; do
	status=0; job "$mount" another || status=$?
	echo "another: exit $status"
	test "$status" = 1
done

touch "$work/finish"
wait $first
until job "$c" host3; do sleep 0.05; done                # late, and nothing left to do
test "$(cat "$work/done")" = host1
echo "last run: $(cat "$a/nightly")"

until rm "$a/nightly" 2>/dev/null; do sleep 0.05; done        # when it is known to be free on all hosts
