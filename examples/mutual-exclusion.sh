#!/bin/sh
# Four processes add to one counter, one at a time, with flock(1): no addition is lost.
# flock(1) opens the file for reading, which locks nothing here; the lock is flock(2)'s, and it holds on all hosts.
set -eu
cd "${LOCKS:-/locks}"

touch counter.lock
echo 0 >counter            # the counter is a value of its own: this open is PW, the close commits

add() {
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		flock counter.lock sh -c 'n=$(cat counter); echo $((n + 1)) >counter'
	done
}
add & add & add & add &
wait

total=$(cat counter)
echo "the counter says $total"
test "$total" = 40

# The descriptor idiom of flock(1)'s manual wants 9<file here: 9>file would open for writing, which is a lock by itself.
(
	flock -n 9 || exit 1
	echo "in the critical section"
) 9<counter.lock

rm counter counter.lock
