#!/bin/sh
# Conversion: a descriptor that holds a mode changes it without letting go. Down is granted at once; up waits, ahead of
# all new requests.
set -eu
cd "${LOCKS:-/locks}"

echo empty >catalog
exec 9<>catalog                           # EX: rebuild it
lockfs value 9 --set rebuilt
status=0; flock -n -s catalog true 9<&- || status=$?
echo "a reader while EX is held: $status"
test "$status" = 1

lockfs convert 9 pr                       # done writing: readers may come, writers may not
echo "a reader while PR is held: $(flock -n -s catalog cat catalog 9<&-)"
status=0; flock -n -x catalog true 9<&- || status=$?
test "$status" = 1

lockfs convert 9 ex -w 5                  # and back, if the readers let go within 5 s
lockfs value 9 --set again
exec 9>&-
test "$(cat catalog)" = again
echo "catalog: $(cat catalog)"

rm catalog
