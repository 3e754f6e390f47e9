#!/bin/sh
# The six lock modes. NAME@MODE opens a descriptor that holds NAME in that mode; lockfs run -m MODE does it for a
# command. Readers that watch (CR) live with a writer that shares (CW); PR shuts writers out; EX shuts out all but NL.
set -eu
cd "${LOCKS:-/locks}"

touch report
tries() { lockfs run -n -m "$1" report true && echo "  $1 beside it: granted" || echo "  $1 beside it: busy"; }

for mode in nl cr cw pr pw ex; do
	exec 9<"report@$mode"
	echo "held $mode"
	for other in nl cr cw pr pw ex; do tries $other 9<&-; done
	exec 9<&-
done >table

grep -A6 'held pw' table
test "$(grep -c granted table)" = 20      # the compatibility table has 20 of 36 pairs
test "$(grep -A6 'held ex' table | grep -c granted)" = 1

rm report table
