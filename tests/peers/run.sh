#!/usr/bin/env bash
# make bench-peers: installs the peers (as root, on Debian), builds, and measures lockfs beside them; see doc.go. Results
# in build/peers. Arguments go to peers: -short, -only SERVICE,…, -workloads W1,W3, -rounds N, -for 2s, -limit 40m.
set -u
here=$(cd "$(dirname "$0")" && pwd)
top=$here/../..
out=$top/build/peers
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)

# Services that a package would start at once are not: only what peers starts is measured, and ended.
want=(fuse3)
command -v redis-server >/dev/null || want+=(redis-server)
[ -e /usr/share/java/zookeeper.jar ] || want+=(zookeeper)
if [ ${#want[@]} -gt 1 ]; then
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "needs: apt install ${want[*]}" >&2; exit 1; }
	policy=/usr/sbin/policy-rc.d
	[ -e $policy ] && policy= || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy; }
	{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${want[@]}"; } >"$out/install.log" 2>&1
	status=$?
	[ -z "$policy" ] || rm -f $policy
	[ $status = 0 ] || { tail -n 20 "$out/install.log" >&2; exit 1; }
fi

# What lockfs itself needs may have moved on: that is followed in a copy of go.mod, not in the tree.
cd "$here" && cp go.mod "$out/go.mod" && cp go.sum "$out/go.sum" || exit 1
go=(-mod=mod -modfile="$out/go.mod")
go vet "${go[@]}" . && go test "${go[@]}" . && go build "${go[@]}" -o "$out/peers" . || exit 1
(cd "$top" && go build -o "$out/lockfs" ./cmd/lockfs && go build -o "$out/loopback" ./tests/bench/loopback) || exit 1

# peers ends its servers and unmounts, also when it is told to end. Its children end with it, whatever ends it; then only
# the mounts and the data are left to clear away.
"$out/peers" -bin "$out" -dir "$out" -out "$out" "$@" &
peers=$!
trap 'kill -TERM $peers 2>/dev/null' INT TERM
clear() {
	local mount
	while read -r _ mount _; do
		case $mount in "$out"/peers.*) umount -l "$mount" 2>/dev/null ;; esac # a daemon may be doing it too
	done </proc/mounts
	rm -rf "$out"/peers.*
}
wait $peers
status=$?
while kill -0 $peers 2>/dev/null; do # a signal interrupted the wait
	wait $peers
	status=$?
done
clear
exit $status
