#!/usr/bin/env bash
# make test, on a fresh Debian as root with Go installed: installs what the tests need, builds, checks, and runs every
# test, those on real mounts, the examples and the demo included. A skipped test is a failure here. The last line counts.
#
#   tests/all.sh            all of it
#   tests/all.sh STEP…      only these steps: see the end of this file for their names
set -u
cd "$(dirname "$0")/.." || exit 1
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
export PATH=$PATH:/usr/local/go/bin:/root/go/bin

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
passed=0 failed=0 skipped=0
only=" $* "

# step NAME COMMAND…: one thing that passes or fails. Its output is shown if it fails.
step() {
	local name=$1 began=$SECONDS
	shift
	[ "$only" = "  " ] || [[ $only == *" $name "* ]] || return 0
	if "$@" >"$out/$name.log" 2>&1; then
		passed=$((passed + 1))
		printf 'ok    %-14s %4d s\n' "$name" $((SECONDS - began))
	else
		failed=$((failed + 1))
		printf 'FAIL  %-14s %4d s\n' "$name" $((SECONDS - began))
		tail -n 200 "$out/$name.log"
	fi
}

# tests NAME ARGUMENTS…: go test -v with these arguments; its tests are counted one by one, subtests too.
tests() {
	local name=$1 began=$SECONDS status p f s
	shift
	[ "$only" = "  " ] || [[ $only == *" $name "* ]] || return 0
	go test -v "$@" >"$out/$name.log" 2>&1
	status=$?
	p=$(grep -cE '^ *--- PASS' "$out/$name.log")
	f=$(grep -cE '^ *--- FAIL' "$out/$name.log")
	s=$(grep -cE '^ *--- SKIP' "$out/$name.log")
	[ $status = 0 ] || [ "$f" -gt 0 ] || f=1 # a package that does not build, or died
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	if [ "$f$s" = 00 ]; then
		printf 'ok    %-14s %4d s  %d tests\n' "$name" $((SECONDS - began)) "$p"
		return
	fi
	printf 'FAIL  %-14s %4d s  %d passed, %d failed, %d skipped\n' "$name" $((SECONDS - began)) "$p" "$f" "$s"
	grep -A3 -E '^ *--- SKIP' "$out/$name.log"
	if [ $status != 0 ]; then
		grep -E '^ *--- FAIL|^panic:|^FAIL\s' "$out/$name.log"
		# What belongs to packages that passed is left out.
		awk '/^=== RUN|^=== PAUSE|^=== CONT|^ *--- PASS/ {next} {text = text $0 "\n"}
			/^ok  |^\?   / {text = ""} /^FAIL\t/ {printf "%s", text; text = ""} END {printf "%s", text}' "$out/$name.log" | tail -n 400
	fi
}

packages() {
	local want=(make gcc libc6-dev git fuse3 attr sqlite3 ocfs2-tools-dev comerr-dev inotify-tools util-linux iproute2 procps python3 perl dash)
	local missing=() p
	for p in "${want[@]}"; do dpkg -s "$p" 2>/dev/null | grep -q '^Status: .* installed$' || missing+=("$p"); done
	[ ${#missing[@]} = 0 ] || { apt-get update -q && apt-get install -q -y --no-install-recommends "${missing[@]}"; } || return 1
	[ -e /dev/fuse ] || modprobe fuse || mknod /dev/fuse c 10 229 || return 1
	grep -q ' /sys/fs/fuse/connections ' /proc/mounts || mount -t fusectl fusectl /sys/fs/fuse/connections || return 1
	go version
}

format() {
	local wrong
	wrong=$(gofmt -l $(git ls-files '*.go' | grep -v '\.pb\.go$')) && [ -z "$wrong" ] || { echo "not gofmt'ed: $wrong"; return 1; }
}

clean() {
	local left
	left=$(git status --porcelain) && [ -z "$left" ] || { echo "left behind in the checkout: $left"; return 1; }
	left=$(mounts | grep -vxF "$mounted") || return 0
	echo "mounts left behind: $left"
	return 1
}

mounts() { grep ' fuse\.lockfs ' /proc/mounts | cut -d' ' -f2; }

step packages packages
step build make build
step format format
step vet go vet ./...
step staticcheck go run "$(sed -n 's/^STATICCHECK *= *//p' Makefile)" ./...
before=$(git status --porcelain) mounted=$(mounts)
tests tests -count=1 -timeout 20m ./...
# What cuts hosts off from their log, or has several in one process, is done with the harness's own daemon: in the step above.
own=$(awk '/^func / {name = $2; sub(/\(.*/, "", name)} /harness\.Start(Hosts|Short)\(/ {print name}' tests/mount/*_test.go | sort -u | paste -sd'|')
LOCKFS_TEST_BINARY=$PWD/build/lockfs tests real -count=1 -timeout 20m -skip "^($own)\$" ./tests/mount
tests race -count=1 -timeout 20m -short -race ./lockd/... ./fs/... ./cmd/... ./cluster/...
step examples env LOCKFS_BIN=build/lockfs examples/run.sh
step demo make demo
[ -n "$before" ] || step clean clean

if [ $failed -gt 0 ] || [ $skipped -gt 0 ]; then
	printf 'FAIL: %d passed, %d failed, %d skipped in %d s\n' $passed $failed $skipped $SECONDS
	printf '%d passed, %d failed\n' $passed $((failed + skipped))
	exit 1
fi
printf '%d passed, %d failed\n' $passed $failed
