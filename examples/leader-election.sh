#!/bin/sh
# Leader election: whoever holds `leader` leads, and the value of the lock is the leader's address. The candidates, one on each
# host, wait in the queue for their turn; when the leader dies the next one leads at once. Followers ask nobody: they read
# the value, and inotify tells them of every change, on all hosts.
set -eu
a=${LOCKS:-/locks} b=${LOCKS2:-$a} c=${LOCKS3:-$a}     # the mounts of three hosts; one host will do to try it
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

candidate() { # MOUNT ADDRESS
	exec lockfs run -q "$1/leader" -- sh -c '
		lockfs value $LOCKFS_FD --set "$1"             # committed before anybody else can lead
		echo $$ >"$2/serves.$1"
		exec sleep 1000                                # serve; hand on LOCKFS_TOKEN with all that is written elsewhere
	' sh "$2" "$work"
}

follower() { # MOUNT: says who leads after every change, of which its input tells
	seen=
	while read -r change; do
		now=$(cat "$1/leader")
		[ "$now" = "$seen" ] || echo "$now"
		seen=$now
	done
}

touch "$a/leader"
until [ -e "$c/leader" ]; do sleep 0.05; done            # what one host makes another shows a moment later
mkfifo "$work/changes"
inotifywait -m -e modify "$c/leader" >"$work/changes" 2>"$work/says" & watch=$!
follower "$c" <"$work/changes" >"$work/log" & follower=$!
until grep -q established "$work/says" 2>/dev/null; do sleep 0.05; done

candidate "$a" 10.0.0.1:80 & first=$!
until [ -s "$work/serves.10.0.0.1:80" ]; do sleep 0.05; done
candidate "$b" 10.0.0.2:80 & second=$!
until ls "$a"/.lockfs/waiting/leader >/dev/null 2>&1; do sleep 0.05; done
until [ "$(wc -l <"$work/log")" = 1 ]; do sleep 0.05; done
echo "the leader is $(cat "$c/leader")"
test ! -e "$work/serves.10.0.0.2:80"

kill -9 "$(cat "$work/serves.10.0.0.1:80")"              # it crashes
wait $first || echo "the first leader's run exits $?"
until [ -s "$work/serves.10.0.0.2:80" ]; do sleep 0.05; done
until [ "$(wc -l <"$work/log")" = 2 ]; do sleep 0.05; done
kill $second
wait $second || true
kill $watch
wait $follower
until rm "$a/leader" 2>/dev/null; do sleep 0.05; done         # when it is known to be free on all hosts

echo "the follower saw: $(paste -sd' ' "$work/log")"
test "$(paste -sd' ' "$work/log")" = "10.0.0.1:80 10.0.0.2:80"
