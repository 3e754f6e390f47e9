#!/bin/sh
# A cache that is kept true, as OpenVMS programs do it: every host keeps its own copy of a value under a shared lock (PR), and
# uses it without asking anybody. Who wants to change the value asks for EX; the blocking AST tells the others to give way,
# and when they have the lock again, the number of commits (the generation) tells whether there is anything to read anew.
set -eu
a=${LOCKS:-/locks} b=${LOCKS2:-$a} c=${LOCKS3:-$a}     # the mounts of three hosts; one host will do to try it
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cache() { # MOUNT NAME: keeps work/NAME true
	have=
	while :; do
		exec 8<"$1/prices@pr"                              # behind a writer that waits already
		now=$(getfattr --absolute-names --only-values -n user.lockfs.generation "$1/prices")
		if [ "$now" != "$have" ]; then
			lockfs value 8 >"$work/$2.new"
			mv "$work/$2.new" "$work/$2"
			echo "$2 reads generation $now" >>"$work/log"
			have=$now
		fi
		[ "$(cat "$work/$2")" != end ] || return 0
		: >"$work/$2.true"
		until lockfs notices 8 -w 60 | grep -q ^blocking; do :; done
		rm "$work/$2.true"                                 # from here on the copy is not to be used
		exec 8<&-
	done
}
# both_have VALUE: waits until both copies are true again, and looks at them
both_have() {
	until [ -e "$work/b.true" ] && [ -e "$work/c.true" ]; do sleep 0.02; done
	echo "the caches: $(cat "$work/b") $(cat "$work/c")"
	test "$(cat "$work/b" "$work/c")" = "$1$1"
}

printf 100 >"$a/prices"
until [ -e "$b/prices" ] && [ -e "$c/prices" ]; do sleep 0.05; done  # what one host makes another shows a moment later
cache "$b" b & first=$!
cache "$c" c & second=$!
both_have 100

# set VALUE: when it returns no host uses the old value any more.
set_price() { lockfs run -q "$a/prices" -- sh -c 'lockfs value $LOCKFS_FD --set "$1"' sh "$1"; }
set_price 120
both_have 120

lockfs run -q "$a/prices" true                           # locked, and nothing changed: nobody reads anew
both_have 120

set_price end
wait $first; wait $second
sort "$work/log"
test "$(grep -c '^b' "$work/log")" = 3
test "$(grep -c '^c' "$work/log")" = 3
until rm "$a/prices" 2>/dev/null; do sleep 0.05; done         # when it is known to be free on all hosts
