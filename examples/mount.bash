# For run.sh and demo.sh: hosts with mounts in a directory of the checkout, which go without a trace. Sourced by bash.
#
#   lockfs_up [N]         builds lockfs, unless LOCKFS_BIN names one, and starts N hosts (1), named a, b, c; sets LOCKS, the
#                         mount of a, and lockfs_dir, in which HOST/locks is the mount of HOST; puts lockfs into PATH
#   lockfs_start HOST     starts a host, again after lockfs_kill
#   lockfs_kill HOST      kills its daemon with SIGKILL
#   lockfs_down           ends all daemons, which unmount; fails if that went wrong; called at exit in any case

# lockfs_needs COMMAND PACKAGE…: installs, as root on Debian, the packages of commands that are not there.
lockfs_needs() {
	local missing=()
	while [ $# -gt 0 ]; do
		command -v "$1" >/dev/null || missing+=("$2")
		shift 2
	done
	[ ${#missing[@]} = 0 ] && return
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "needs: apt install ${missing[*]}" >&2; return 1; }
	{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"; } >/dev/null
}

declare -A lockfs_pid lockfs_args lockfs_killed

lockfs_up() {
	local hosts=${1:-1} host i
	lockfs_needs getfattr attr flock util-linux inotifywait inotify-tools || return 1
	[ "$(id -u)" = 0 ] || lockfs_needs fusermount3 fuse3 || return 1
	lockfs_top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
	lockfs_dir=$(mktemp -d "$lockfs_top/demo.XXXXXX") || return 1
	trap 'lockfs_down >/dev/null 2>&1' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	mkdir "$lockfs_dir/bin"
	if [ -n "${LOCKFS_BIN:-}" ]; then
		ln -s "$(realpath "$LOCKFS_BIN")" "$lockfs_dir/bin/lockfs"
	else
		(cd "$lockfs_top" && go build -o "$lockfs_dir/bin/lockfs" ./cmd/lockfs) || return 1
	fi
	PATH=$lockfs_dir/bin:$PATH
	LOCKS=$lockfs_dir/a/locks
	unset LOCKFS_MOUNT LOCKFS_CONFIG
	local net=127.$((RANDOM % 128 + 64)).$((RANDOM % 256)) # hardly in use
	for ((i = 1; i <= hosts; i++)); do
		host=$(printf "\\x$(printf %x $((96 + i)))")
		mkdir -p "$lockfs_dir/$host/locks" || return 1
		lockfs_args[$host]="--name $host --bind 127.0.0.1:0"
		if [ "$hosts" -gt 1 ]; then
			lockfs_args[$host]="--name $host --bind $net.$i:7420 --session-ttl 5s"
			[ "$i" = 1 ] || lockfs_args[$host]+=" --join $net.1"
		fi
		lockfs_start "$host" || return 1
	done
}

lockfs_start() { # HOST
	local line
	mkfifo "$lockfs_dir/$1/ready"
	lockfs mount ${lockfs_args[$1]} --data-dir "$lockfs_dir/$1/data" "$lockfs_dir/$1/locks" >"$lockfs_dir/$1/ready" 2>>"$lockfs_dir/$1/log" &
	lockfs_pid[$1]=$! lockfs_killed[$1]=
	if ! read -r -t 60 line <"$lockfs_dir/$1/ready" || [ "$line" != ready ]; then
		echo "the daemon of $1 did not start:" >&2
		cat "$lockfs_dir/$1/log" >&2
		return 1
	fi
	rm "$lockfs_dir/$1/ready"
}

lockfs_kill() { # HOST
	kill -KILL "${lockfs_pid[$1]}"
	{ wait "${lockfs_pid[$1]}"; } 2>/dev/null
	lockfs_killed[$1]=yes
}

lockfs_down() {
	local status=0 host
	[ -n "${lockfs_dir:-}" ] || return 0
	cd "$lockfs_top" || return 1
	for host in "${!lockfs_pid[@]}"; do
		[ -n "${lockfs_killed[$host]}" ] || kill -TERM "${lockfs_pid[$host]}" 2>/dev/null
	done
	for host in "${!lockfs_pid[@]}"; do
		if [ -z "${lockfs_killed[$host]}" ]; then
			# A daemon that hangs is killed, and its mount taken away by force.
			timeout 60 tail --pid="${lockfs_pid[$host]}" -f /dev/null || kill -KILL "${lockfs_pid[$host]}"
			wait "${lockfs_pid[$host]}" || { status=$?; echo "the daemon of $host exits $status:"; cat "$lockfs_dir/$host/log"; }
		fi
		if grep -q " $lockfs_dir/$host/locks " /proc/mounts; then
			[ -n "${lockfs_killed[$host]}" ] || { echo "the mount of $host is still there"; status=1; }
			umount -l "$lockfs_dir/$host/locks" 2>/dev/null || fusermount3 -uz "$lockfs_dir/$host/locks"
		fi
	done
	rm -rf "$lockfs_dir" || status=1
	lockfs_dir=
	return $status
}
