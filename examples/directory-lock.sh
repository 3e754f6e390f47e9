#!/bin/sh
# A directory is a resource too: DIR/.lock is its lock file, and who holds EX on it shuts out every lock below. Who holds
# something below holds an intent on the directory and need not ask for it.
set -eu
cd "${LOCKS:-/locks}"

mkdir -p db/tables
touch db/tables/a db/tables/b

exec 8<db/tables/a@pr                     # one reader at work
status=0; flock -n db/.lock true 8<&- || status=$?
echo "the whole of db while db/tables/a is read: $status"
test "$status" = 1
exec 8<&-

exec 9<db@ex                              # the same as db/.lock@ex: maintenance
status=0; lockfs run -n -m cr db/tables/b true 9<&- || status=$?
echo "db/tables/b while all of db is held: $status"
test "$status" = 1
exec 9<&-
lockfs run -n -m cr db/tables/b -- echo "db/tables/b is free again"

rm -r db
