#!/bin/sh
# A cron job that is started on every host and runs on one: who comes second gives up at once (flock -n, exit 1).
# What the job leaves in the value says when it last ran, to be read by anybody without waiting.
set -eu
cd "${LOCKS:-/locks}"

touch nightly
job() {
	flock -n nightly sh -c 'echo "job runs as $1"; : >started.'"$1"'; while [ ! -e finish ]; do sleep 0.05; done' sh "$1"
}

job host1 & first=$!
while [ ! -e started.host1 ]; do sleep 0.05; done    # the first is at work

status=0; job host2 || status=$?
echo "host2: flock exits $status"
test "$status" = 1
test ! -e started.host2

touch finish
wait $first
date +%F >nightly                                     # PW, the new value, committed at the close
echo "last run: $(cat nightly)"

rm nightly started.host1 finish
