#!/bin/sh
# The blocking AST: a holder that works as long as nobody else wants the lock. run tells it with a signal; it finishes
# the item at hand and lets go.
set -eu
cd "${LOCKS:-/locks}"

touch batch
lockfs run --on-blocking USR1 batch -- sh -c '
	asked=; trap "asked=1" USR1
	echo started >progress
	while [ -z "$asked" ]; do sleep 0.05; done          # one item after another
	echo "batch: somebody waits, letting go"
' &
holder=$!
while [ ! -e progress ]; do sleep 0.05; done

lockfs run -q -w 10 batch -- echo "the other one has the lock"
wait $holder

# The same with a descriptor: notices says who asks.
exec 9<>batch
flock batch true 9<&- & waiter=$!
lockfs notices 9 -w 10
exec 9>&-
wait $waiter

rm batch progress
