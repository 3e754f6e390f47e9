#!/bin/sh
# A deadlock over two hosts, and its cure. One job locks x and then y, another y and then x: each would wait for the other for
# ever. lockfs finds that within a second and ends the younger wait with EDEADLK (flock and lockfs run exit 65). Whoever
# gets that lets go of all he has and begins again. Better is not to get there: lock in the same order everywhere.
set -eu
a=${LOCKS:-/locks} b=${LOCKS2:-$a}                      # the mounts of two hosts; one host will do to try it
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

job() { # MOUNT FIRST SECOND
	flock "$1/$2" sh -c '
		: >"$4/$2"
		until [ -e "$4/x" ] && [ -e "$4/y" ]; do sleep 0.02; done   # both have their first: there is no way out
		flock "$1/$3" echo "has $2 and $3"
	' sh "$1" "$2" "$3" "$work"
}
again() { # MOUNT FIRST SECOND
	until job "$@"; do
		status=$?
		[ $status = 65 ] || return $status
		echo "deadlock: lets go of $2 and begins again"
	done
}

touch "$a/x" "$a/y"
until [ -e "$b/x" ] && [ -e "$b/y" ]; do sleep 0.05; done    # what one host makes another shows a moment later
again "$a" x y >>"$work/log" & first=$!
again "$b" y x >>"$work/log" & second=$!
wait $first
wait $second
cat "$work/log"
test "$(grep -c '^deadlock' "$work/log")" = 1           # one of them, never both
test "$(grep -c '^has' "$work/log")" = 2                # and both come to their end
lockfs deadlocks "$a"

for _ in 1 2 3 4 5; do flock "$a/x" flock "$a/y" true; done & first=$!
for _ in 1 2 3 4 5; do flock "$b/x" flock "$b/y" true; done & second=$!
wait $first
wait $second
echo "in the same order: no deadlock"

until rm -f "$a/x" "$a/y" 2>/dev/null; do sleep 0.05; done    # when they are known to be free on all hosts
