# For run.sh and demo.sh: a mount in a directory of the checkout, which goes without a trace. Sourced by bash.
#
#   lockfs_up     builds lockfs, unless LOCKFS_BIN names one, and mounts; sets LOCKS, and puts lockfs into PATH
#   lockfs_down   ends the daemon, which unmounts; fails if that went wrong; called at exit in any case

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

lockfs_up() {
	lockfs_needs getfattr attr flock util-linux || return 1
	[ "$(id -u)" = 0 ] || lockfs_needs fusermount3 fuse3 || return 1
	lockfs_top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
	lockfs_dir=$(mktemp -d "$lockfs_top/demo.XXXXXX") || return 1
	trap 'lockfs_down >/dev/null 2>&1' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	mkdir "$lockfs_dir/bin" "$lockfs_dir/locks"
	if [ -n "${LOCKFS_BIN:-}" ]; then
		ln -s "$(realpath "$LOCKFS_BIN")" "$lockfs_dir/bin/lockfs"
	else
		(cd "$lockfs_top" && go build -o "$lockfs_dir/bin/lockfs" ./cmd/lockfs) || return 1
	fi
	PATH=$lockfs_dir/bin:$PATH
	LOCKS=$lockfs_dir/locks
	unset LOCKFS_MOUNT LOCKFS_CONFIG
	mkfifo "$lockfs_dir/ready"
	lockfs mount --data-dir "$lockfs_dir/data" --bind 127.0.0.1:0 "$LOCKS" >"$lockfs_dir/ready" 2>"$lockfs_dir/log" &
	lockfs_pid=$!
	if ! read -r -t 30 line <"$lockfs_dir/ready" || [ "$line" != ready ]; then
		echo "the daemon did not start:" >&2
		cat "$lockfs_dir/log" >&2
		return 1
	fi
}

lockfs_down() {
	local status=0
	[ -n "${lockfs_dir:-}" ] || return 0
	cd "$lockfs_top" || return 1
	if [ -n "${lockfs_pid:-}" ]; then
		kill -TERM "$lockfs_pid" 2>/dev/null
		# A daemon that hangs is killed, and its mount taken away by force.
		timeout 20 tail --pid="$lockfs_pid" -f /dev/null || kill -KILL "$lockfs_pid"
		wait "$lockfs_pid" || { status=$?; echo "the daemon exits $status:"; cat "$lockfs_dir/log"; }
	fi
	if grep -q " $lockfs_dir/locks " /proc/mounts; then
		echo "the mount is still there"
		status=1
		umount -l "$lockfs_dir/locks" 2>/dev/null || fusermount3 -uz "$lockfs_dir/locks"
	fi
	rm -rf "$lockfs_dir" || status=1
	lockfs_dir=
	return $status
}
