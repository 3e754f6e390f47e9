#!/usr/bin/env bash
# make scale: what many hosts and many files cost, on this machine, as root; prints figures, and fails where something is lost.
#
#   tests/scale/run.sh [hosts|files]…
#
# HOSTS (60) daemons, three of them voters, on loopback addresses of their own: memory, a lock on each in turn, a leader killed.
# FILES (1000000) files in directories of 100,000 on one host: time and memory, a start from snapshot and log, a listing, a second
# host that gets all of it.
set -u
cd "$(dirname "$0")/../.." || exit 1
bin=${LOCKFS_BIN:-build/lockfs} hosts=${HOSTS:-60} files=${FILES:-1000000} net=127.88.0
[ "$(id -u)" = 0 ] && [ -e /dev/fuse ] || { echo "needs root and /dev/fuse" >&2; exit 1; }
bin=$(realpath "$bin") dir=$(mktemp -d)
declare -A pid
wrong=0

clear() {
	local p
	for p in "${pid[@]}"; do kill -9 "$p" 2>/dev/null; done
	awk -v d="$dir/" 'index($2, d) == 1 {print $2}' /proc/mounts | xargs -r -n 1 umount -l
	rm -rf "$dir"
}
trap clear EXIT
trap 'exit 1' INT TERM

now() { date +%s%N; }
since() { echo $((($(now) - $1) / 1000000)); } # ms
rss() { awk '/^VmRSS/ {print $2}' "/proc/${pid[$1]}/status"; } # KiB
fail() { echo "WRONG: $*" >&2; wrong=1; }

# host N [FLAG…] starts host N; await N waits until it is ready.
host() {
	local n=$1
	shift
	mkdir -p "$dir/m$n"
	"$bin" mount --name "h$n" --data-dir "$dir/d$n" --bind "$net.$n:7420" --gossip "$net.$n:7421" --voters 3 "$@" "$dir/m$n" \
		>"$dir/out$n" 2>"$dir/log$n" &
	pid[$n]=$!
	disown
}
await() {
	local n=$1 end=$((SECONDS + 600))
	until grep -qs ready "$dir/out$n"; do
		kill -0 "${pid[$n]}" 2>/dev/null && [ $SECONDS -lt $end ] || { tail -n 5 "$dir/log$n" >&2; fail "host $n does not start"; exit 1; }
		sleep 0.05
	done
}
role() { sed -n 's/^role=//p' "$dir/m$1/.lockfs/status"; }

hosts() {
	local n began sum=0 cpu leader=1
	began=$(now)
	host 1
	await 1
	for n in $(seq 2 "$hosts"); do host "$n" --join "$net.1:7421,$net.2:7421,$net.3:7421"; done
	for n in $(seq 2 "$hosts"); do await "$n"; done
	echo "hosts: $hosts ready after $(since "$began") ms"
	for n in $(seq "$hosts"); do sum=$((sum + $(rss "$n"))); done
	echo "hosts: resident memory of one, mean: $((sum / hosts / 1024)) MiB"
	ticks() { cat $(printf '/proc/%s/stat ' "${pid[@]}") | awk '{s += $14 + $15} END {print s}'; }
	sleep 5
	cpu=$(ticks)
	sleep 20
	cpu=$(($(ticks) - cpu))
	echo "hosts: idle, all of them: $((cpu * 1000 / 20 / $(getconf CLK_TCK)))/1000 of a core"
	echo 0 >"$dir/m1/counter"
	began=$(now)
	for n in $(seq "$hosts"); do
		"$bin" run "$dir/m$n/counter" -- sh -c 'echo $(($("$0" value "$LOCKFS_FD") + 1)) | "$0" value "$LOCKFS_FD" --set -' "$bin" ||
			fail "no lock on host $n"
	done
	echo "hosts: one lock on each host after the other, with what starts the commands: $(($(since "$began") / hosts)) ms each"
	[ "$(cat "$dir/m2/counter")" = "$hosts" ] || fail "the hosts have counted to $(cat "$dir/m2/counter")"
	"$bin" bench W6 W8 --processes 2 --rounds 3 --for 2s "$dir/m$((hosts - 1))" "$dir/m$hosts" || fail "bench"
	for n in $(seq "$hosts"); do [ "$(role "$n")" = leader ] && leader=$n; done
	began=$(now)
	kill -9 "${pid[$leader]}"
	touch "$dir/m$hosts/after" || fail "no new name after the leader was killed"
	echo "hosts: leader killed, a new name on another host after $(since "$began") ms"
	for n in $(seq "$hosts"); do
		[ "$n" = "$leader" ] || flock -w 60 "$dir/m$n/counter" true || fail "no lock on host $n after the leader was killed"
	done
}

files() {
	local began before i per=100000 dirs
	dirs=$(((files + per - 1) / per))
	host 1
	await 1
	before=$(rss 1)
	began=$(now)
	for i in $(seq "$dirs"); do mkdir "$dir/m1/d$i"; done
	for i in $(seq "$dirs"); do
		seq -f "$dir/m1/d$i/f%.0f" "$per" | xargs -P 16 -n 2000 touch || fail "touch"
	done
	echo "files: $((dirs * per)) made in $(($(since "$began") / 1000)) s, $(((dirs * per) / ($(since "$began") / 1000 + 1))) a second"
	echo "files: memory of the daemon: $(((($(rss 1) - before) * 1024) / (dirs * per))) bytes a file"
	began=$(now)
	[ "$(ls -f "$dir/m1/d1" | wc -l)" = $((per + 2)) ] || fail "the listing is not whole"
	echo "files: ls -f of a directory of $per: $(since "$began") ms"
	began=$(now)
	ls -l "$dir/m1/d1" | tail -n 1 >/dev/null
	echo "files: ls -l of it: $(since "$began") ms"
	began=$(now)
	host 2 --join "$net.1:7421"
	await 2
	echo "files: a second host ready after $(since "$began") ms, memory $(($(rss 2) / 1024)) MiB"
	[ "$(ls -f "$dir/m2/d$dirs" | wc -l)" = $((per + 2)) ] || fail "the second host's listing is not whole"
	kill -9 "${pid[1]}" "${pid[2]}"
	while kill -0 "${pid[1]}" || kill -0 "${pid[2]}"; do sleep 0.05; done 2>/dev/null
	umount -l "$dir/m1" "$dir/m2"
	began=$(now)
	host 1
	host 2 --join "$net.1:7421"
	await 1
	await 2
	echo "files: both killed and started again: ready after $(since "$began") ms; disk $(du -sm "$dir/d1" | cut -f1) MiB, memory $(($(rss 1) / 1024)) MiB"
	[ "$(ls -f "$dir/m1/d$dirs" | wc -l)" = $((per + 2)) ] || fail "the listing is not whole after a restart"
}

for what in "${@:-hosts files}"; do
	for part in $what; do
		(trap clear EXIT; "$part"; exit $wrong) || exit 1
		dir=$(mktemp -d)
	done
done
