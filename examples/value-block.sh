#!/bin/sh
# The value block: what a lock protects can be kept in the lock itself, up to 256 KiB. A reader sees the old value or the
# new one and nothing between, on any host, without waiting for a lock.
set -eu
cd "${LOCKS:-/locks}"

echo v41 >orders                          # PW, the new value, committed and released at the close
echo "value: $(cat orders)"

exec 9<>orders                            # EX: nobody else writes now
lockfs value 9 --set v42                  # the whole value, whatever the descriptor's offset
echo "under the lock: $(lockfs value 9)"
exec 9>&-

value=$(cat orders)
echo "value: $value, commit number $(getfattr --only-values -n user.lockfs.generation orders)"
test "$value" = v42

# A writer that is killed before it closes commits nothing; the value is marked invalid until the next commit.
perl -e 'open F, "+<", "orders"; syswrite F, "half"; kill KILL => $$' || true
echo "after a killed writer: $(cat orders), valid $(getfattr --only-values -n user.lockfs.valid orders)"
test "$(cat orders)" = v42
test "$(getfattr --only-values -n user.lockfs.valid orders)" = 0
echo v43 >orders
test "$(getfattr --only-values -n user.lockfs.valid orders)" = 1

rm orders
