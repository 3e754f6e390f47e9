#!/bin/sh
# Fencing: the tokens of a lock grow with every grant. A third party (here a file beside the mount) refuses what comes
# with a lower token than the highest that it has seen, so that a holder who lost the lock without knowing does no harm.
set -eu
cd "${LOCKS:-/locks}"
store=$(mktemp); echo 0 >"$store"
trap 'rm -f "$store"' EXIT

write() { # TOKEN WHAT: what the third party does
	if [ "$1" -lt "$(head -n 1 "$store")" ]; then echo "refused: $2"; return 1; fi
	printf '%s\n%s\n' "$1" "$2" >"$store"
	echo "stored: $2"
}

touch leader
old=$(lockfs run leader -- sh -c 'echo $LOCKFS_TOKEN')
new=$(lockfs run leader -- sh -c 'echo $LOCKFS_TOKEN')
test "$new" -gt "$old"

write "$new" "from the holder"
! write "$old" "from one that was holder before"

# Or let the third party ask: a sequencer stands as long as the lock is held.
exec 9<>leader
sequencer=$(lockfs token 9 --sequencer)
echo "sequencer $sequencer: $(lockfs check --mount . "$sequencer")"
exec 9>&-
! lockfs check --mount . "$sequencer"

rm leader
