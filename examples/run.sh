#!/usr/bin/env bash
# Runs every example, or those named, against three hosts of its own, as make test does: LOCKS, LOCKS2 and LOCKS3 are their mounts.
# It prints the output of those that fail, and fails if one does or leaves something behind in the tree.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/mount.bash"
lockfs_up 3 || exit 1
export LOCKS LOCKS2=$lockfs_dir/b/locks LOCKS3=$lockfs_dir/c/locks

passed=0 failed=0
for script in "${@:-$here/*.sh}"; do
	for script in $script; do
		name=$(basename "$script" .sh)
		case $name in run | demo) continue ;; esac
		timeout 60 "$script" >"$lockfs_dir/output" 2>&1 </dev/null & # in a group of its own
		if wait $! && left=$(ls -A "$LOCKS") && [ -z "$left" ]; then
			passed=$((passed + 1))
		else
			failed=$((failed + 1))
			kill -- -$! 2>/dev/null
			printf -- '--- FAIL: examples/%s.sh\n%s\n' "$name" "$(cat "$lockfs_dir/output")"
			[ -z "${left:-}" ] || printf 'left behind: %s\n' "$left"
			rm -rf "${LOCKS:?}"/* 2>/dev/null
		fi
	done
done
lockfs_down || failed=$((failed + 1))
echo "examples: $passed passed, $failed failed"
[ "$failed" = 0 ]
