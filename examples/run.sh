#!/usr/bin/env bash
# Runs every example, or those named, against a mount of its own, as make test does. It prints the output of those that
# fail, and fails if one does or leaves something behind in the mount.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/mount.bash"
lockfs_up || exit 1

passed=0 failed=0
for script in "${@:-$here/*.sh}"; do
	for script in $script; do
		name=$(basename "$script" .sh)
		case $name in run | demo) continue ;; esac
		if output=$(LOCKS=$LOCKS timeout 60 "$script" 2>&1 </dev/null) && left=$(ls -A "$LOCKS") && [ -z "$left" ]; then
			passed=$((passed + 1))
		else
			failed=$((failed + 1))
			printf -- '--- FAIL: examples/%s.sh\n%s\n' "$name" "$output"
			[ -z "${left:-}" ] || printf 'left behind: %s\n' "$left"
			rm -rf "${LOCKS:?}"/* 2>/dev/null
		fi
	done
done
lockfs_down || failed=$((failed + 1))
echo "examples: $passed passed, $failed failed"
[ "$failed" = 0 ]
