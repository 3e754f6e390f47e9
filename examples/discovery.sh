#!/bin/sh
# Who is there: every service holds a file of its own in a directory, with its address as the value. The directory is
# ephemeral, so the file goes with the lock: when the service ends, is killed, or its host is lost. Clients list the
# directory, read the addresses, and watch.
set -eu
a=${LOCKS:-/locks} b=${LOCKS2:-$a} c=${LOCKS3:-$a}     # the mounts of three hosts; one host will do to try it
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$a/web"
setfattr -n user.lockfs.ephemeral -v 1 "$a/web"
until getfattr -n user.lockfs.ephemeral "$b/web" >/dev/null 2>&1 && [ -e "$c/web" ]; do sleep 0.05; done

service() { # MOUNT NAME ADDRESS
	exec lockfs run -q "$1/web/$2" -- sh -c '
		lockfs value $LOCKFS_FD --set "$1"
		echo $$ >"$2"
		exec sleep 1000                                    # serve
	' sh "$3" "$work/$2"
}
list() { # MOUNT: name and address of all that are there
	for f in "$1"/web/*; do
		[ ! -e "$f" ] || echo "${f##*/}=$(cat "$f")"
	done | paste -sd' '
}
sees() { until [ "$(list "$1")" = "$2" ]; do sleep 0.05; done; echo "there: $2"; } # MOUNT LIST

exec 8<"$c/web@events"                                  # a client on the third host watches, from here on
service "$a" one 10.0.0.1:80 & first=$!
service "$b" two 10.0.0.2:80 & second=$!
sees "$c" "one=10.0.0.1:80 two=10.0.0.2:80"

kill -9 "$(cat "$work/one")"                             # a service crashes
wait $first || true
sees "$c" "two=10.0.0.2:80"
kill $second                                             # another one is stopped
wait $second || true
sees "$c" ""

while read -r kind rest <&8; do
	case $kind in created | removed) echo "$kind ${rest##*path=/web/}" ;; esac
done >"$work/log" & watcher=$!
until [ "$(grep -c removed "$work/log")" = 2 ]; do sleep 0.05; done
kill $watcher
exec 8<&-
sort "$work/log" | cut -d' ' -f1-2
until rmdir "$a/web" 2>/dev/null; do sleep 0.05; done         # when it is known to be empty
